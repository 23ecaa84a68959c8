package crush

import "golang.org/x/sys/cpu"

// hashEights computes hash3(x, id, r) of n ids, a multiple of 8, with AVX2.
//
//go:noescape
func hashEights(out *uint32, ids *ItemID, n int, x, r uint32)

// hashItems sets out[i] to hash3(x, ids[i], r). The length is a multiple of 8.
func hashItems(out []uint32, ids []ItemID, x, r uint32) {
	if cpu.X86.HasAVX2 && len(ids) > 0 {
		out = out[:len(ids)]
		hashEights(&out[0], &ids[0], len(ids), x, r)
		return
	}
	hashOneByOne(out, ids, x, r)
}
