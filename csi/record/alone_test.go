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
)

func TestOneControllerAtATimeDoesAWork(t *testing.T) {
	fake := cephtest.NewFake()
	a, b := fake.Connect(), fake.Connect()
	objects := a.Objects(record.Pool, "work")
	ran, err := record.Alone(t.Context(), a, "w", "a", func(context.Context) error {
		soon, cancel := context.WithCancel(t.Context())
		cancel()
		ran, err := record.Alone(soon, b, "w", "b", func(context.Context) error { return nil })
		if ran || !errors.Is(err, context.Canceled) {
			t.Errorf("beside another: ran %v, %v", ran, err)
		}
		return nil
	})
	if !ran || err != nil {
		t.Fatalf("alone: ran %v, %v", ran, err)
	}
	if left, err := objects.List(t.Context()); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	want := fault.New(fault.Denied, "its own")
	if ran, err := record.Alone(t.Context(), b, "w", "b", func(context.Context) error { return want }); !ran || !errors.Is(err, fault.Denied) {
		t.Errorf("work that fails: ran %v, %v", ran, err)
	}
}

// What a controller that was killed left locked is free when its lease has run out.
func TestWorkOfADeadControllerIsTakenOver(t *testing.T) {
	fake := cephtest.NewFake()
	c := fake.Connect()
	objects := c.Objects(record.Pool, "work")
	if err := objects.CreateLocked(t.Context(), "w", []byte("{}"), ceph.Lease{Name: "holdfast", Cookie: "dead", TTL: time.Minute}); err != nil {
		t.Fatal(err)
	}
	fake.Advance(2 * time.Minute)
	ran, err := record.Alone(t.Context(), c, "w", "b", func(context.Context) error { return nil })
	if left, listErr := objects.List(t.Context()); !ran || err != nil || listErr != nil || len(left) != 0 {
		t.Errorf("ran %v, %v, left %v", ran, err, left)
	}
}
