package record_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/holdfast-storage/holdfast/csi/record"
	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/ceph/cephtest"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// work is what a connection does alone, on a pool that has had an image.
func work(t *testing.T, c ceph.Cluster) record.Work {
	t.Helper()
	if err := c.Images("rbd", "").Create(t.Context(), "first", ceph.ImageSpec{Size: storage.MiB}); err != nil && !errors.Is(err, fault.Exists) {
		t.Fatal(err)
	}
	return record.Work{Objects: c.Objects("rbd", ""), Object: ceph.ImageDirectory, Name: "w", Owner: "test"}
}

func TestOneControllerAtATimeDoesAWork(t *testing.T) {
	fake := cephtest.NewFake()
	a, b := fake.Connect(), fake.Connect()
	of := map[ceph.Cluster]record.Work{a: work(t, a), b: work(t, b)}
	for _, full := range []bool{false, true} { // a full cluster must be emptied, too
		fake.SetFull(full)
		ran, err := record.Alone(t.Context(), a, of[a], func(context.Context) error {
			soon, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			ran, err := record.Alone(soon, b, of[b], func(context.Context) error { return nil })
			if ran || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("full %v, beside another: ran %v, %v", full, ran, err)
			}
			return nil
		})
		if !ran || err != nil {
			t.Fatalf("full %v, alone: ran %v, %v", full, ran, err)
		}
	}
	want := fault.New(fault.Denied, "its own")
	if ran, err := record.Alone(t.Context(), b, of[b], func(context.Context) error { return want }); !ran || !errors.Is(err, fault.Denied) {
		t.Errorf("work that fails: ran %v, %v", ran, err)
	}
}

// What a controller that was killed left locked is free when its lease has run out; it is cut off before.
func TestWorkOfADeadControllerIsTakenOver(t *testing.T) {
	fake := cephtest.NewFake()
	dead, c := fake.Connect(), fake.Connect()
	w := work(t, c)
	if err := dead.Objects("rbd", "").Lock(t.Context(), w.Object, ceph.Lease{Name: w.Name, Cookie: "dead", TTL: time.Minute}); err != nil {
		t.Fatal(err)
	}
	fake.Advance(2 * time.Minute)
	ran, err := record.Alone(t.Context(), c, w, func(context.Context) error { return nil })
	if !ran || err != nil {
		t.Errorf("ran %v, %v", ran, err)
	}
	if err := dead.Images("rbd", "").Remove(t.Context(), "first"); !errors.Is(err, fault.Unavailable) {
		t.Errorf("the one that lost its lease removes an image: %v", err)
	}
}

func TestThereIsNoWorkInAPoolThatNeverHadAnImage(t *testing.T) {
	c := cephtest.NewFake().Connect()
	w := record.Work{Objects: c.Objects("rbd", ""), Object: ceph.ImageDirectory, Name: "w"}
	if ran, err := record.Alone(t.Context(), c, w, func(context.Context) error { return nil }); ran || !errors.Is(err, fault.NotFound) {
		t.Errorf("ran %v, %v", ran, err)
	}
}
