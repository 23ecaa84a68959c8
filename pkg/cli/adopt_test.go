package cli

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/holdfast-storage/holdfast/pkg/fault"
)

func TestPersistentVolumesOfCephCSIAreRewritten(t *testing.T) {
	old, err := os.ReadFile(filepath.Join("testdata", "ceph-csi-pv.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	converted, passed, err := adoptManifests(old, "holdfast-system")
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, pv := range converted {
		data, err := yaml.Marshal(pv)
		if err != nil {
			t.Fatal(err)
		}
		text.WriteString("---\n" + string(data))
	}
	for _, why := range passed {
		text.WriteString("# " + why + "\n")
	}
	golden := filepath.Join("testdata", "adopted-pv.yaml")
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), text.String()); diff != "" {
		t.Errorf("%s: %s\ngot:\n%s", golden, diff, &text)
	}
}

func TestOnePersistentVolumeIsTakenAndAnythingElseIsNot(t *testing.T) {
	one := `{"kind":"PersistentVolume","metadata":{"name":"a"},"spec":{"csi":{"driver":"rook-ceph.cephfs.csi.ceph.com",
		"volumeHandle":"0001-0004-ceph-0000000000000016-7957e938-405a-11eb-bfd0-0050563001a1"}}}`
	converted, passed, err := adoptManifests([]byte(one), "x")
	if err != nil || len(converted) != 1 || len(passed) != 0 || converted[0].Spec.CSI.Driver != "cephfs.csi.holdfast.io" {
		t.Errorf("got %v, %v, %v", converted, passed, err)
	}
	for _, text := range []string{"", "[1]", "kind: List", `{"kind":"Pod"}`, "a: [b"} {
		if _, _, err := adoptManifests([]byte(text), "x"); !errors.Is(err, fault.Invalid) {
			t.Errorf("%q: got %v", text, err)
		}
	}
}
