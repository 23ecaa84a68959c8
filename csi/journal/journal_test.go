package journal_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-storage/holdfast/csi/journal"
	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/ceph/cephtest"
	"github.com/holdfast-storage/holdfast/pkg/fault"
)

const (
	one = "7957e938-405a-11eb-bfd0-0050563001a1"
	two = "8957e938-405a-11eb-bfd0-0050563001a1"
)

// imagePool and journalPool are the fake's "rbd" and "cephfs.data".
const imagePool, journalPool = 4, 2

func open(fake *cephtest.Fake) *journal.Journal {
	pools := []ceph.PoolInfo{{ID: imagePool, Name: "rbd"}, {ID: journalPool, Name: "cephfs.data"}}
	return journal.Open(fake.Connect(), pools, "", journal.DefaultInstance)
}

func set(t *testing.T, fake *cephtest.Fake, pool, object string, pairs map[string]string) {
	fake.SetOmap(t, pool, "", object, pairs)
}

// apart writes an entry whose directory is in a pool of its own: ceph-csi reserves the UUID beside the image
// and puts the attributes into the journal's pool.
func apart(t *testing.T, fake *cephtest.Fake) {
	set(t, fake, "cephfs.data", "csi.volumes.default", map[string]string{"csi.volume.pvc-1": "0000000000000004/" + one})
	set(t, fake, "rbd", "csi.volume."+one, nil)
	set(t, fake, "cephfs.data", "csi.volume."+one, map[string]string{
		"csi.volname": "pvc-1", "csi.imagename": "vol-" + one, "csi.imageid": "4d24", "csi.journalpool": "0000000000000002",
	})
}

func TestAnEntryIsReadWhereverCephCSIPutsIt(t *testing.T) {
	fake := cephtest.NewFake()
	apart(t, fake)
	// As old as ceph-csi 1: without the image's name.
	set(t, fake, "rbd", "csi.volumes.default", map[string]string{"csi.volume.pvc-2": two, "csi.volume.0001-0004-ceph-x": "0001-0004-ceph-y"})
	set(t, fake, "rbd", "csi.volume."+two, map[string]string{"csi.volname": "pvc-2"})
	j := open(fake)
	places, err := j.List(t.Context(), journal.Volumes)
	if want := []journal.Place{{Pool: imagePool, UUID: one}, {Pool: imagePool, UUID: two}}; err != nil || !cmp.Equal(places, want) {
		t.Fatalf("got %v, %v", places, err)
	}
	for uuid, want := range map[string]*journal.Entry{
		one: {UUID: one, Name: "pvc-1", Image: "vol-" + one, ImageID: "4d24", Directory: journalPool, Objects: []int64{imagePool, journalPool}},
		two: {UUID: two, Name: "pvc-2", Image: "csi-vol-" + two, Directory: imagePool, Objects: []int64{imagePool}},
	} {
		e, err := j.Read(t.Context(), journal.Volumes, imagePool, uuid)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, e); diff != "" {
			t.Error(diff)
		}
		if known, err := j.Confirm(t.Context(), journal.Volumes, e); err != nil || !known {
			t.Errorf("confirm: %v, %v", known, err)
		}
	}
}

func TestAnEntryInTwoPoolsIsRemovedFromAnyCut(t *testing.T) {
	for cut := range 12 {
		fake := cephtest.NewFake()
		apart(t, fake)
		j := open(fake)
		e, err := j.Read(t.Context(), journal.Volumes, imagePool, one)
		if err != nil {
			t.Fatal(err)
		}
		left := cut
		fake.Hook(func(string) error {
			if left--; left < 0 {
				return fault.New(fault.Unavailable, "injected")
			}
			return nil
		})
		_ = j.Remove(t.Context(), journal.Volumes, e)
		fake.Hook(nil)
		if _, err := j.Confirm(t.Context(), journal.Volumes, e); err != nil {
			t.Errorf("cut at %d: confirm: %v", cut, err)
		}
		if err := j.Remove(t.Context(), journal.Volumes, e); err != nil {
			t.Errorf("cut at %d: %v", cut, err)
		}
		if known, err := j.Confirm(t.Context(), journal.Volumes, e); err != nil || known {
			t.Errorf("cut at %d: it is known still, %v", cut, err)
		}
		for _, pool := range []string{"rbd", "cephfs.data"} {
			if _, err := fake.Connect().Omaps(pool, "").Pairs(t.Context(), "csi.volume."+one, ""); !errors.Is(err, fault.NotFound) {
				t.Errorf("cut at %d: the object in %s: %v", cut, pool, err)
			}
		}
		if keys, err := fake.Connect().Omaps("cephfs.data", "").Pairs(t.Context(), "csi.volumes.default", ""); err != nil || len(keys) != 0 {
			t.Errorf("cut at %d: keys %v, %v", cut, keys, err)
		}
	}
}

func TestANameThatBelongsToAnotherStays(t *testing.T) {
	fake := cephtest.NewFake()
	apart(t, fake)
	j := open(fake)
	e, err := j.Read(t.Context(), journal.Volumes, imagePool, one)
	if err != nil {
		t.Fatal(err)
	}
	set(t, fake, "cephfs.data", "csi.volumes.default", map[string]string{"csi.volume.pvc-1": "0000000000000004/" + two})
	if _, err := j.Confirm(t.Context(), journal.Volumes, e); !errors.Is(err, journal.ErrDiffers) {
		t.Errorf("confirm: %v", err)
	}
	if err := j.Remove(t.Context(), journal.Volumes, e); err != nil {
		t.Fatal(err)
	}
	if keys, err := fake.Connect().Omaps("cephfs.data", "").Pairs(t.Context(), "csi.volumes.default", ""); err != nil || len(keys) != 1 {
		t.Errorf("keys %v, %v", keys, err)
	}
}
