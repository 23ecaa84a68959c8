package placement

import (
	"cmp"
	"slices"
)

// maxRelayed bounds how many shards of one OSD a chain tries to pass on.
const maxRelayed = 64

// relay finds a short chain of moves of shards of several sizes that lowers one OSD's
// excess: each OSD of the chain passes on a shard that makes room for what it is given,
// the last one has room. OSDs that have too much themselves end with no more than that.
func (s *solver) relay(start int32, held [][]shard) bool {
	hops := make([]hop, len(s.osds))
	need := make([]int64, len(s.osds))
	hops[start].seen = true
	queue := []int32{start}
	for at := 0; at < len(queue); at++ {
		from := queue[at]
		shards := s.relayed(held[from], need[from])
		if from == start {
			shards = s.shed(held[start], -s.slack(start))
		}
		for _, room := range []bool{true, false} {
			for _, to := range s.ids {
				if hops[to].seen || !s.osds[to].takes {
					continue
				}
				i := slices.IndexFunc(shards, func(x shard) bool {
					return s.slack(to) >= s.size(x) == room && s.allowed(x, to) && !onChain(hops, from, start, x.pg)
				})
				if i < 0 {
					continue
				}
				hops[to] = hop{from, shards[i], true}
				if room {
					for ; to != start; to = hops[to].from {
						s.transfer(held, hops[to].shard, to)
					}
					return true
				}
				need[to] = s.size(shards[i]) - max(0, s.slack(to))
				queue = append(queue, to)
			}
		}
	}
	return false
}

// shed lists what an OSD may be rid of: the smallest shards that cover its excess, then
// smaller ones, the largest first.
func (s *solver) shed(held []shard, excess int64) []shard {
	cover, _ := slices.BinarySearchFunc(held, excess, func(x shard, size int64) int { return cmp.Compare(s.size(x), size) })
	list := slices.Clone(held[cover:])
	for i := cover - 1; i >= 0; i-- {
		list = append(list, held[i])
	}
	return list
}

// relayed lists the smallest shards that are large enough, those first that have moved
// already.
func (s *solver) relayed(held []shard, least int64) []shard {
	var moved, others []shard
	for _, x := range held {
		switch {
		case s.size(x) < least:
		case s.at(x) != s.old[int(s.pgs[x.pg].at)+int(x.place)]:
			moved = append(moved, x)
		default:
			others = append(others, x)
		}
	}
	moved = append(moved, others...)
	return moved[:min(len(moved), maxRelayed)]
}
