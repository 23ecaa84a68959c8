package crush

// Robert Jenkins' 32-bit mix, as in Ceph's src/crush/hash.c (hash type 0, rjenkins1,
// the only one there is).
const (
	hashSeed = 1315423911
	hashX    = 231232
	hashY    = 1232
)

func mix(a, b, c uint32) (uint32, uint32, uint32) {
	a = (a - b - c) ^ c>>13
	b = (b - c - a) ^ a<<8
	c = (c - a - b) ^ b>>13
	a = (a - b - c) ^ c>>12
	b = (b - c - a) ^ a<<16
	c = (c - a - b) ^ b>>5
	a = (a - b - c) ^ c>>3
	b = (b - c - a) ^ a<<10
	c = (c - a - b) ^ b>>15
	return a, b, c
}

// Hash2 is crush_hash32_2: what turns a placement seed and a pool's id into the input
// of a rule, and what decides whether a partly reweighted OSD takes an input.
func Hash2(a, b uint32) uint32 {
	hash := hashSeed ^ a ^ b
	x, y := uint32(hashX), uint32(hashY)
	a, b, hash = mix(a, b, hash)
	_, _, hash = mix(x, a, hash)
	_, _, hash = mix(b, y, hash)
	return hash
}

// hash3 is crush_hash32_3, the draw of one item of a bucket.
func hash3(a, b, c uint32) uint32 {
	hash := hashSeed ^ a ^ b ^ c
	x, y := uint32(hashX), uint32(hashY)
	a, b, hash = mix(a, b, hash)
	c, x, hash = mix(c, x, hash)
	y, _, hash = mix(y, a, hash)
	_, _, hash = mix(b, x, hash)
	_, _, hash = mix(y, c, hash)
	return hash
}

// hash4 is crush_hash32_4, the draw of list and tree buckets.
func hash4(a, b, c, d uint32) uint32 {
	hash := hashSeed ^ a ^ b ^ c ^ d
	x, y := uint32(hashX), uint32(hashY)
	a, b, hash = mix(a, b, hash)
	c, d, hash = mix(c, d, hash)
	_, x, hash = mix(a, x, hash)
	y, _, hash = mix(y, b, hash)
	_, _, hash = mix(c, x, hash)
	_, _, hash = mix(y, d, hash)
	return hash
}

// hashGroup is how many draws hashItems makes at a time.
const hashGroup = 8

// hashOneByOne is hashItems for machines without vectors.
func hashOneByOne(out []uint32, ids []ItemID, x, r uint32) {
	for i, id := range ids {
		out[i] = hash3(x, uint32(id), r)
	}
}
