package controller_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-storage/holdfast/csi/record"
	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/ceph/cephtest"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// The library's call goes on while another controller takes over and removes the record.
func TestWhatIsMadeAfterTheRecordIsGoneIsTakenBack(t *testing.T) {
	b := newBench(t, storage.RBD, cephtest.NewFake())
	b.fake.Hook(func(op string) error {
		if !strings.HasPrefix(op, "Images.Create ") {
			return nil
		}
		b.fake.Hook(nil)
		b.fake.Advance(time.Minute) // longer than the lease
		objects := b.fake.Connect().Objects(record.Pool, "rbd")
		lease := ceph.Lease{Name: "holdfast", Cookie: "another", TTL: time.Minute}
		keys, err := objects.List(t.Context())
		for _, key := range keys {
			err = errors.Join(err, objects.Lock(t.Context(), key, lease), objects.RemoveLocked(t.Context(), key, lease))
		}
		return err
	})
	if err := b.create(t, b.request("v", storage.GiB)); !errors.Is(err, fault.Aborted) {
		t.Errorf("create: %v, want Aborted", err)
	}
	b.fake.Hook(nil)
	b.Tidy(t.Context())
	if left := b.left(t); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// A call of another controller can spoil one of a controller that was overtaken in any way: the
// error need not tell that the lease was lost.
func TestWhatIsMadeLateIsTakenBackWhateverTheErrorIs(t *testing.T) {
	b := newBench(t, storage.CephFS, cephtest.NewFake())
	b.fake.Hook(func(op string) error {
		if !strings.HasPrefix(op, "Subvolumes.Info ") {
			return nil
		}
		b.fake.Hook(nil)
		b.fake.Advance(time.Minute)
		objects := b.fake.Connect().Objects(record.Pool, "cephfs")
		lease := ceph.Lease{Name: "holdfast", Cookie: "another", TTL: time.Minute}
		keys, err := objects.List(t.Context())
		for _, key := range keys {
			err = errors.Join(err, objects.Lock(t.Context(), key, lease), objects.RemoveLocked(t.Context(), key, lease))
		}
		return errors.Join(err, fault.New(fault.NotFound, "subvolume is gone"))
	})
	if err := b.create(t, b.request("v", storage.GiB)); err == nil {
		t.Error("a volume without a record was answered with")
	}
	b.fake.Hook(nil)
	b.Tidy(t.Context())
	if left := b.left(t); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// A cluster that does not answer is not asked for ever.
func TestLooksThatFailEnd(t *testing.T) {
	b := newBench(t, storage.RBD, cephtest.NewFake())
	asked := 0
	down := fault.New(fault.Unavailable, "injected")
	b.fake.Hook(func(op string) error {
		switch {
		case strings.HasPrefix(op, "Images.Create "):
			return down
		case strings.HasPrefix(op, "Objects.Read "):
			asked++
		}
		return nil
	})
	if err := b.create(t, b.request("v", storage.GiB)); !errors.Is(err, fault.Unavailable) {
		t.Fatalf("create: %v", err)
	}
	asked = 0
	b.fake.Hook(func(op string) error {
		if !strings.HasPrefix(op, "Objects.Read ") {
			return nil
		}
		asked++
		return down
	})
	last := -1
	for deadline := time.Now().Add(20 * time.Second); asked != last && time.Now().Before(deadline); <-time.After(20 * time.Millisecond) {
		last = asked
		for range 20 {
			b.Tidy(t.Context())
			<-time.After(2 * time.Millisecond)
		}
	}
	if asked < 4 || asked != last {
		t.Errorf("asked %d times, and on", asked)
	}
}
