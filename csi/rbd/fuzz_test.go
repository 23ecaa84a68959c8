package rbd

import (
	"errors"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// FuzzParameters: whatever a StorageClass says is either refused as invalid, or gives a
// layout that librbd's own rules allow.
func FuzzParameters(f *testing.F) {
	f.Add("imageFeatures", "layering,exclusive-lock,object-map", "objectSize", "8MiB")
	f.Add("stripeUnit", "64KiB", "stripeCount", "4")
	f.Add("mounter", "krbd", "dataPool", "풀")
	f.Add("stripeUnit", "1e308TB", "stripeCount", "-1")
	f.Fuzz(func(t *testing.T, nameA, valueA, nameB, valueB string) {
		parameters := map[string]string{"pool": "rbd", nameA: valueA, nameB: valueB}
		if err := (&Backend{}).Check(parameters); err != nil {
			if !errors.Is(err, fault.Invalid) {
				t.Fatalf("class of %v", err)
			}
			return
		}
		spec, err := specOf(parameters)
		if err != nil {
			t.Fatal(err)
		}
		object := spec.ObjectSize
		if object == 0 {
			object = defaultObject
		}
		if object < minObject || object > maxObject || object&(object-1) != 0 {
			t.Fatalf("object size %d", object)
		}
		if (spec.StripeUnit == 0) != (spec.StripeCount == 0) || spec.StripeUnit > 0 && object%spec.StripeUnit != 0 {
			t.Fatalf("stripes %+v", spec)
		}
	})
}

func FuzzRound(f *testing.F) {
	f.Add(int64(1))
	f.Fuzz(func(t *testing.T, n int64) {
		if n < 0 || n > 1<<62 {
			return
		}
		if got := (&Backend{}).Round(storage.Bytes(n)); got < storage.Bytes(n) || got%granule != 0 || got-storage.Bytes(n) >= granule {
			t.Fatalf("%d rounds to %d", n, got)
		}
	})
}
