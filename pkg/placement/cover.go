package placement

const (
	// coverSteps is how finely cover tells sums apart: a part of what has to leave.
	coverSteps = 1 << 14
	// coverShards is how many average shards may have to leave for cover to look at sums: those
	// of more are as good as dense.
	coverShards = 12
)

// cover is the least that whole shards of those sizes can add up to and be at least excess,
// or a little less than that, never more: sums are told apart to a 16,384th, sizes rounded
// down. All sums are found as bits of one long number, shifted by each size (Bellman 1957).
func cover(sizes []int64, excess int64) int64 {
	if excess <= 0 || len(sizes) == 0 {
		return max(0, excess)
	}
	var sum, largest int64
	for _, s := range sizes {
		sum, largest = sum+s, max(largest, s)
	}
	if excess >= sum || excess > coverShards*sum/int64(len(sizes)) {
		return excess
	}
	quantum := max(1, excess/coverSteps)
	top := int((excess + largest) / quantum)
	sums := make([]uint64, top/64+2)
	sums[0] = 1
	for _, s := range sizes {
		shiftIn(sums, int(s/quantum), top)
	}
	// A sum of n shards may have lost a quantum for each by rounding.
	for at := int(excess/quantum) - coverShards*2; at <= top; at++ {
		if at > 0 && sums[at/64]>>(at%64)&1 == 1 {
			return max(excess, int64(at)*quantum)
		}
	}
	return excess
}

// shiftIn adds to a set of sums those that are larger by so much, up to top.
func shiftIn(sums []uint64, by, top int) {
	words, rest := by/64, by%64
	for i := min(len(sums)-1, top/64); i >= words; i-- {
		moved := sums[i-words] << rest
		if rest > 0 && i-words > 0 {
			moved |= sums[i-words-1] >> (64 - rest)
		}
		sums[i] |= moved
	}
	if extra := (top + 1) % 64; extra > 0 {
		sums[top/64] &= 1<<extra - 1
	}
}
