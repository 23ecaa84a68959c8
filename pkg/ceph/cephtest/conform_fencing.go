package cephtest

import (
	"crypto/rand"
	"testing"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/fault"
)

func conformNotes(t *testing.T, clients Clients) {
	ctx := t.Context()
	a, b := clients.A.Notes(".holdfast", "conformance.notes"), clients.B.Notes(".holdfast", "conformance.notes")
	name := "n-" + rand.Text()
	one, two := []byte("하나"), []byte("둘, longer than the first")

	_, err := a.Read(ctx, name)
	want(t, "read of an absent note", err, fault.NotFound)
	want(t, "replacement of an absent note", a.Swap(ctx, name, one, two), fault.Aborted)
	want(t, "removal of an absent note", a.Swap(ctx, name, one, nil), fault.Aborted)
	want(t, "first note", a.Swap(ctx, name, nil, one), nil)
	want(t, "first note again", b.Swap(ctx, name, nil, one), fault.Aborted)
	want(t, "replacement of what it does not hold", b.Swap(ctx, name, two, one), fault.Aborted)
	want(t, "removal of what it does not hold", b.Swap(ctx, name, two, nil), fault.Aborted)
	want(t, "replacement", b.Swap(ctx, name, one, two), nil)
	want(t, "late replacement", a.Swap(ctx, name, one, two), fault.Aborted)
	data, err := a.Read(ctx, name)
	want(t, "read", err, nil)
	if string(data) != string(two) {
		t.Fatalf("read %q", data)
	}
	want(t, "replacement by a shorter one", a.Swap(ctx, name, two, one), nil)
	if data, err = b.Read(ctx, name); err != nil || string(data) != string(one) {
		t.Fatalf("read %q, %v", data, err)
	}
	names, err := a.List(ctx)
	want(t, "list", err, nil)
	if !contains(names, name) {
		t.Fatalf("list %v lacks %s", names, name)
	}
	want(t, "removal", a.Swap(ctx, name, one, nil), nil)
	_, err = a.Read(ctx, name)
	want(t, "read after removal", err, fault.NotFound)
}

// forever is how long a test's fence lasts.
const forever = 24 * time.Hour

func conformFencing(t *testing.T, clients Clients) {
	ctx := t.Context()
	self, err := clients.C.Self(ctx)
	want(t, "own address", err, nil)
	other, err := clients.A.Self(ctx)
	want(t, "own address", err, nil)
	if self == other {
		t.Fatalf("two clients have the address %s", self)
	}
	notes, name := clients.C.Notes(".holdfast", "conformance.notes"), "f-"+rand.Text()
	want(t, "write before the fence", notes.Swap(ctx, name, nil, []byte("1")), nil)
	for range 2 {
		want(t, "fence", clients.A.Fence(ctx, self, forever), nil)
	}
	want(t, "barrier", clients.A.Barrier(ctx, ".holdfast"), nil)
	want(t, "barrier in an absent pool", clients.A.Barrier(ctx, "no-such-pool"), fault.Precondition)
	want(t, "write of a fenced client", notes.Swap(ctx, name, []byte("1"), []byte("2")), fault.Unavailable)
	elsewhere := clients.B.Notes(".holdfast", "conformance.notes")
	data, err := elsewhere.Read(ctx, name)
	want(t, "read beside the fence", err, nil)
	if string(data) != "1" {
		t.Fatalf("a fenced client wrote %q", data)
	}
	want(t, "removal beside the fence", elsewhere.Swap(ctx, name, []byte("1"), nil), nil)
	for range 2 {
		want(t, "unfence", clients.A.Unfence(ctx, self), nil)
	}
}
