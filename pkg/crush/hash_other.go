//go:build !amd64

package crush

// hashItems sets out[i] to hash3(x, ids[i], r). The length is a multiple of 8.
func hashItems(out []uint32, ids []ItemID, x, r uint32) { hashOneByOne(out, ids, x, r) }
