package cephfs

import (
	"errors"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// FuzzParameters: whatever a StorageClass says is accepted or refused as invalid.
func FuzzParameters(f *testing.F) {
	f.Add("fsName", "cephfs", "mounter", "kernel")
	f.Add("encrypted", "true", "풀", "")
	f.Fuzz(func(t *testing.T, nameA, valueA, nameB, valueB string) {
		err := (&Backend{}).Check(map[string]string{nameA: valueA, nameB: valueB})
		if err != nil && !errors.Is(err, fault.Invalid) {
			t.Fatalf("class of %v", err)
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
