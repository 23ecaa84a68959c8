package crush

import (
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/cpu"
)

// TestDrawsInGroupsAreThoseOneByOne compares the vectors' hashes with the plain ones, for
// lengths of whole pairs of groups and of single ones.
func TestDrawsInGroupsAreThoseOneByOne(t *testing.T) {
	if !cpu.X86.HasAVX2 {
		t.Skip("SKIPPED: this processor has no AVX2, so all hashes are made one by one and there is nothing to compare")
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		ids := make([]ItemID, hashGroup*random.IntN(8))
		for i := range ids {
			ids[i] = ItemID(int32(random.Uint32()))
		}
		x, r := random.Uint32(), random.Uint32()
		got, want := make([]uint32, len(ids)), make([]uint32, len(ids))
		hashItems(got, ids, x, r)
		hashOneByOne(want, ids, x, r)
		for i := range want {
			if got[i] != want[i] {
				t.Fatalf("hash3(%d, %d, %d) of %d is %d in place %d, want %d", x, ids[i], r, len(ids), got[i], i, want[i])
			}
		}
	}
}
