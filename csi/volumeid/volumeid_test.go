package volumeid_test

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-storage/holdfast/csi/volumeid"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

func handle() volumeid.Handle {
	return volumeid.Handle{
		Driver: storage.RBD, Cluster: storage.ClusterID(strings.Repeat("c", 40)), Pool: 99999999,
		NameHash: volumeid.Hash(storage.RBD, "volume", "이름 🗄"), Incarnation: strings.Repeat("a", 32),
	}
}

func TestHandleOfTheLongestClusterFitsCSI(t *testing.T) {
	text := handle().String()
	if len(text) > volumeid.MaxLength {
		t.Fatalf("%d bytes", len(text))
	}
	back, err := volumeid.Parse(text)
	if err != nil || back != handle() {
		t.Fatalf("got %+v, %v", back, err)
	}
}

func TestWhatIsNoHandleIsNotFound(t *testing.T) {
	good := handle().String()
	for _, text := range []string{
		"", "x", "hf1", good + "0", good[:len(good)-1], strings.Replace(good, "hf1", "hf2", 1), strings.Replace(good, ".r.", ".x.", 1),
		strings.Replace(good, "99999999", "-1", 1), strings.Replace(good, "99999999", "007", 1), strings.ToUpper(good), strings.Repeat("가", 60),
	} {
		if _, err := volumeid.Parse(text); !errors.Is(err, fault.NotFound) {
			t.Errorf("%q: got %v", text, err)
		}
	}
}

func TestKindAndDriverKeepEqualNamesApart(t *testing.T) {
	seen := map[string]bool{}
	for _, driver := range []storage.Driver{storage.RBD, storage.CephFS} {
		for _, kind := range []string{"volume", "snapshot"} {
			seen[volumeid.Hash(driver, kind, "n")] = true
		}
	}
	if len(seen) != 4 {
		t.Fatal(seen)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(handle().String())
	f.Add("hf1.c.x.0.00000000000000000000000000000000.ffffffffffffffffffffffffffffffff")
	f.Add("hf1.......")
	f.Fuzz(func(t *testing.T, text string) {
		h, err := volumeid.Parse(text)
		if err != nil {
			if !errors.Is(err, fault.NotFound) {
				t.Fatalf("class of %v", err)
			}
			if utf8.ValidString(text) && !utf8.ValidString(err.Error()) {
				t.Fatalf("the message is not UTF-8: %q", err)
			}
			return
		}
		if h.String() != text {
			t.Fatalf("%q came back as %q", text, h)
		}
	})
}

func TestContextComesBackAndUnknownKeysAreRefused(t *testing.T) {
	c := volumeid.Context{ClusterID: "c", Name: "시험", Pool: "rbd", Image: "hf-1", MapOptions: "a,b"}
	m := c.Map()
	m["storage.kubernetes.io/csiProvisionerIdentity"] = "x"
	m["csi.storage.k8s.io/pv/name"] = "y"
	back, err := volumeid.ParseContext(m)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(c, back); diff != "" {
		t.Fatal(diff)
	}
	m["surprise"] = "z"
	if _, err := volumeid.ParseContext(m); !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "surprise") {
		t.Fatalf("got %v", err)
	}
}
