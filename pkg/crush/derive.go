package crush

import (
	"math"
	"math/bits"
	"slices"

	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// derive returns what the bucket's algorithm draws with beside the weights, as Ceph's
// src/crush/builder.c computes it; nil for those that need no more.
func (m *Map) derive(b *Bucket) ([]uint32, error) {
	if b.derived != nil {
		return b.derived, nil
	}
	switch b.Algorithm {
	case List:
		return listSums(b)
	case Tree:
		return treeNodes(b)
	case Straw:
		return straws(b.Weights, m.Tunables.StrawCalcVersion), nil
	default:
		return nil, nil
	}
}

// errOverflow is Ceph's ERANGE: sums of weights are 16.16 numbers of 32 bits.
func errOverflow(b *Bucket) error {
	return fault.New(fault.Range, "bucket %s: its items weigh 65536.0 or more in all, which a map cannot hold: lower their weights", b.Name)
}

func listSums(b *Bucket) ([]uint32, error) {
	sums := make([]uint32, len(b.Weights))
	var sum uint32
	for i, w := range b.Weights {
		if uint64(sum)+uint64(w) > math.MaxUint32 {
			return nil, errOverflow(b)
		}
		sum += uint32(w)
		sums[i] = sum
	}
	return sums, nil
}

// treeNodes returns the weights of the nodes of the binary tree over the items: item i is
// node 2i+1, and a node of height h has its children 2^(h-1) to the left and right.
func treeNodes(b *Bucket) ([]uint32, error) {
	if len(b.Items) == 0 {
		return []uint32{}, nil
	}
	depth := bits.Len(uint(len(b.Items)-1)) + 1
	nodes := make([]uint32, 1<<depth)
	for i, w := range b.Weights {
		node := uint32(2*i + 1)
		nodes[node] = uint32(w)
		for range depth - 1 {
			height := node & -node
			if node&(height<<1) != 0 {
				node -= height
			} else {
				node += height
			}
			if uint64(nodes[node])+uint64(w) > math.MaxUint32 {
				return nil, errOverflow(b)
			}
			nodes[node] += uint32(w)
		}
	}
	return nodes, nil
}

// straws returns the length of each item's straw (crush_calc_straw). Version 0 is wrong
// for weights that are 0 or equal, and is kept as it is: maps were made with it.
func straws(weights []Weight, version uint8) []uint32 {
	size := len(weights)
	lengths := make([]uint32, size)
	order := make([]int, size)
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return int(int64(weights[a]) - int64(weights[b])) })
	straw, below, last, left := 1.0, 0.0, 0.0, size
	for i := 0; i < size; {
		w := weights[order[i]]
		if w == 0 {
			if version > 0 {
				left--
			}
			i++
			continue
		}
		lengths[order[i]] = uint32(straw * 0x10000)
		i++
		if i == size {
			break
		}
		next := weights[order[i]]
		if version == 0 {
			if next == w {
				continue
			}
			below += (float64(w) - last) * float64(left)
			for j := i; j < size && weights[order[j]] == next; j++ {
				left--
			}
		} else {
			below += (float64(w) - last) * float64(left)
			left--
		}
		gap := float64(uint32(left) * uint32(next-w))
		straw *= math.Pow(1/(below/(below+gap)), 1/float64(left))
		last = float64(w)
	}
	return lengths
}
