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

func foreign() volumeid.Foreign {
	return volumeid.Foreign{Cluster: "rook-ceph", Location: 22, UUID: "7957e938-405a-11eb-bfd0-0050563001a1"}
}

// The handle is one that ceph-csi gave out, quoted in an issue of its own.
func TestAHandleOfCephCSIIsRead(t *testing.T) {
	const given = "0001-0004-ceph-0000000000000016-7957e938-405a-11eb-bfd0-0050563001a1"
	f, err := volumeid.ParseForeign(given)
	want := volumeid.Foreign{Cluster: "ceph", Location: 0x16, UUID: "7957e938-405a-11eb-bfd0-0050563001a1"}
	if err != nil || f != want || f.String() != given {
		t.Fatalf("got %+v, %v", f, err)
	}
	h := f.Handle(storage.RBD, "c1")
	if h.String() != given || h.Incarnation != "7957e938405a11ebbfd00050563001a1" || h.Pool != 22 || len(h.NameHash) != 32 {
		t.Fatalf("got %+v", h)
	}
	other := f
	other.Cluster = "another-name-of-it"
	if other.Handle(storage.RBD, "c1").NameHash != h.NameHash || f.Handle(storage.CephFS, "c1").NameHash == h.NameHash {
		t.Error("the record goes by location, UUID and driver")
	}
}

func TestWhatIsNoHandleOfCephCSIIsNotFound(t *testing.T) {
	good := foreign().String()
	for _, text := range []string{
		"", "0001-", good + "0", good[1:], strings.Replace(good, "0009", "0008", 1), strings.Replace(good, "0001", "0002", 1), strings.ToUpper(good),
		strings.Replace(good, "rook-ceph", "rook/ceph", 1), strings.Replace(good, "0000000000000016", "8000000000000016", 1), handle().String(),
		strings.Replace(good, "-405a-", "405a--", 1), "0001-0000--0000000000000016-7957e938-405a-11eb-bfd0-0050563001a1",
		volumeid.Foreign{Cluster: strings.Repeat("c", 65), UUID: foreign().UUID}.String(),
	} {
		if _, err := volumeid.ParseForeign(text); !errors.Is(err, fault.NotFound) {
			t.Errorf("%q: got %v", text, err)
		}
	}
	longest := volumeid.Foreign{Cluster: strings.Repeat("c", 64), Location: 1<<63 - 1, UUID: foreign().UUID}
	if f, err := volumeid.ParseForeign(longest.String()); err != nil || f != longest || len(longest.String()) != volumeid.MaxLength {
		t.Errorf("the longest: %+v, %v", f, err)
	}
}

func FuzzForeign(f *testing.F) {
	f.Add(foreign().String())
	f.Add("0001-0024-00000000-0000-4000-8000-000000000000-0000000000000001-7957e938-405a-11eb-bfd0-0050563001a1")
	f.Add("0001-ffff-x-")
	f.Fuzz(func(t *testing.T, text string) {
		h, err := volumeid.ParseForeign(text)
		if err != nil {
			if !errors.Is(err, fault.NotFound) {
				t.Fatalf("class of %v", err)
			}
			return
		}
		if h.String() != text || !volumeid.ValidUUID(h.UUID) || h.Location < 0 {
			t.Fatalf("%q came back as %q", text, h)
		}
		if _, err := volumeid.Parse(text); err == nil {
			t.Fatalf("%q is both", text)
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

func TestTheContextOfAForeignVolumeIsTheControllersWithTheOldMountOptions(t *testing.T) {
	c := volumeid.Context{ClusterID: "c", Name: "pvc-1", Pool: "rbd", Image: "csi-vol-1"}
	old := map[string]string{"pool": "renamed", "imageFormat": "2", "mkfsOptions": "-m0", "kernelMountOptions": "readdir_max_bytes=1", "fuseMountOptions": "debug"}
	got, err := volumeid.ParsePublished(volumeid.EncodePublished(c.Map()), old)
	want := c
	want.MkfsOptions, want.KernelMountOptions, want.FuseMountOptions = "-m0", "readdir_max_bytes=1", "debug"
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Fatalf("%v %s", err, diff)
	}
	if _, err := volumeid.ParsePublished("", old); !errors.Is(err, fault.Invalid) {
		t.Errorf("got %v", err)
	}
}
