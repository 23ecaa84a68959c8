package record_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/holdfast-storage/holdfast/csi/record"
	"github.com/holdfast-storage/holdfast/pkg/ceph/cephtest"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func fresh() *record.Record {
	return &record.Record{
		Version: 1, Kind: record.KindVolume, Driver: storage.RBD, Name: "시험 볼륨 🗄",
		Incarnation: "0123456789abcdef0123456789abcdef", State: record.Creating, Created: time.Unix(1, 0).UTC(),
	}
}

func stores() (a, b *record.Store) {
	fake := cephtest.NewFake()
	open := func() *record.Store { return record.NewStore(fake.Connect().Objects(record.Pool, "rbd"), "test") }
	return open(), open()
}

func TestRecordComesBackAsItWasSaved(t *testing.T) {
	a, b := stores()
	ctx, held, made, err := a.Acquire(t.Context(), "k", fresh())
	if err != nil || !made {
		t.Fatal(made, err)
	}
	held.Record.State = record.Ready
	if err := held.Save(ctx); err != nil {
		t.Fatal(err)
	}
	held.Release(t.Context())

	_, again, made, err := b.Acquire(t.Context(), "k", fresh())
	if err != nil || made {
		t.Fatal(made, err)
	}
	defer again.Release(t.Context())
	want := fresh()
	want.State = record.Ready
	if diff := cmp.Diff(want, again.Record); diff != "" {
		t.Fatal(diff)
	}
}

func TestSecondControllerWaitsForTheFirst(t *testing.T) {
	a, b := stores()
	_, held, _, err := a.Acquire(t.Context(), "k", fresh())
	if err != nil {
		t.Fatal(err)
	}
	impatient, cancel := context.WithTimeout(t.Context(), 120*time.Millisecond)
	defer cancel()
	if _, _, err := b.Hold(impatient, "k"); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v, want a wait that ends with the context", err)
	}
	held.Release(t.Context())
	_, other, err := b.Hold(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	if err := held.Save(t.Context()); !errors.Is(err, fault.Aborted) {
		t.Fatalf("write without the lease: got %v", err)
	}
	if err := other.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	other.Release(t.Context())
	if keys, _ := a.Keys(t.Context()); len(keys) != 0 {
		t.Fatalf("left %v", keys)
	}
}

func TestRecordOfANewerVersionIsRefused(t *testing.T) {
	a, _ := stores()
	newer := fresh()
	newer.Version = 2
	_, held, _, err := a.Acquire(t.Context(), "k", newer)
	if err != nil {
		t.Fatal(err)
	}
	held.Release(t.Context())
	if _, _, err := a.Hold(t.Context(), "k"); !errors.Is(err, fault.Precondition) {
		t.Fatalf("got %v", err)
	}
}

func TestLeaseThatRanOutEndsTheWorkAndIsNotTakenBack(t *testing.T) {
	fake := cephtest.NewFake()
	store := record.NewStore(fake.Connect().Objects(record.Pool, "rbd"), "test")
	work, held, _, err := store.Acquire(t.Context(), "k", fresh())
	if err != nil {
		t.Fatal(err)
	}
	defer held.Release(t.Context())
	fake.Advance(time.Minute) // this controller was stopped for longer than its lease
	if err := held.Save(t.Context()); !errors.Is(err, fault.Aborted) {
		t.Fatalf("a stale record was written: %v", err)
	}
	select {
	case <-work.Done():
	case <-time.After(20 * time.Second):
		t.Fatal("the work was not ended")
	}
	if err := held.Outcome(work.Err()); !errors.Is(err, fault.Aborted) {
		t.Fatalf("got %v", err)
	}
	if err := held.Save(t.Context()); !errors.Is(err, fault.Aborted) {
		t.Fatalf("the renewal took the lease back: %v", err)
	}
}
