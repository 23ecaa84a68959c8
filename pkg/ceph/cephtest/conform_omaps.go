package cephtest

import (
	"crypto/rand"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-storage/holdfast/pkg/fault"
)

func conformOmaps(t *testing.T, clients Clients) {
	ctx := t.Context()
	const pool, namespace = ".holdfast", "conformance.omaps"
	a, b := clients.A.Omaps(pool, namespace), clients.B.Omaps(pool, namespace)
	name := "m-" + rand.Text()

	_, err := a.Pairs(ctx, name, "")
	want(t, "read of an absent object", err, fault.NotFound)
	want(t, "removal of an absent object", a.Remove(ctx, name), fault.NotFound)
	want(t, "removal of a key of an absent object", a.RemoveKey(ctx, name, "k"), nil)
	_, err = a.Pairs(ctx, name, "")
	want(t, "read after that", err, fault.NotFound)
	_, err = clients.A.Omaps("no-such-pool", "").Pairs(ctx, name, "")
	want(t, "read in an absent pool", err, fault.Precondition)

	all := map[string]string{"k": "값", "other": ""}
	for i := range 1500 { // more than one answer of an OSD holds
		all[fmt.Sprintf("k.%04d", i)] = "v"
	}
	clients.Outside.SetOmap(t, pool, namespace, name, all)
	got, err := b.Pairs(ctx, name, "")
	want(t, "read", err, nil)
	if diff := cmp.Diff(all, got); diff != "" {
		t.Fatal(diff)
	}
	got, err = b.Pairs(ctx, name, "k.00")
	want(t, "read of some", err, nil)
	if len(got) != 100 || got["k.0099"] != "v" {
		t.Fatalf("a prefix has %d pairs", len(got))
	}
	want(t, "removal of a key", a.RemoveKey(ctx, name, "k"), nil)
	want(t, "removal of a key that is gone", a.RemoveKey(ctx, name, "k"), nil)
	if got, err = b.Pairs(ctx, name, ""); err != nil || len(got) != len(all)-1 {
		t.Fatalf("%d pairs are left, %v", len(got), err)
	}
	want(t, "removal", a.Remove(ctx, name), nil)
	_, err = b.Pairs(ctx, name, "")
	want(t, "read after removal", err, fault.NotFound)
}
