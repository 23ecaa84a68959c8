package crush

import (
	"math"
	"math/bits"
	"sync"
)

// lnCost is 2^48 - crush_ln(u) for u of 16 bits: how far a draw is below the best one,
// from 2^28 (u = 65535) to 2^48 (u = 0).
func lnCost(u uint32) uint64 {
	x := uint64(u) + 1
	exponent := 15
	if x&0x18000 == 0 {
		shift := bits.LeadingZeros32(uint32(x)) - 16
		x <<= shift
		exponent -= shift
	}
	k := x>>8 - 128
	// The reciprocal that the C code looks up is exactly ceil(2^48 * 128/(128+k)).
	reciprocal := (1<<55 + 127 + k) / (128 + k)
	low := x * reciprocal >> 48 & 0xff
	return 1<<48 - (uint64(exponent)<<44 + (log2High[k]+log2Low[low])>>4)
}

// coarseBits is how many of a draw's 16 bits the coarse table looks at: 4096 entries of
// 4 bytes stay in a core's first cache.
const coarseBits = 12

// coarseCosts holds, for each of the coarse steps, a lower bound of lnCost in it.
type coarseCosts [1 << coarseBits]float32

// sharedCoarseCosts computes the table once for all mappers, which only read it.
var sharedCoarseCosts = sync.OnceValue(newCoarseCosts)

// newCoarseCosts computes the table: 65,536 logarithms, less than a millisecond.
func newCoarseCosts() *coarseCosts {
	var t coarseCosts
	const width = 1 << (16 - coarseBits)
	for i := range t {
		least := uint64(math.MaxUint64)
		for u := range uint32(width) {
			least = min(least, lnCost(uint32(i*width)+u))
		}
		t[i] = roundDown(float64(least))
	}
	return &t
}

// roundDown returns a float32 that is at most v.
func roundDown(v float64) float32 {
	f := float32(v)
	if float64(f) > v {
		f = math.Nextafter32(f, 0)
	}
	return f
}
