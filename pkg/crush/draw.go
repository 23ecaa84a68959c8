package crush

import "math"

// draw picks an item of a bucket that is not empty (crush_bucket_choose).
func (m *Mapper) draw(b *bucket, r int32, position int) ItemID {
	switch b.algorithm {
	case Uniform:
		return m.permuted(b, r)
	case List:
		return m.drawList(b, r)
	case Tree:
		return m.drawTree(b, r)
	case Straw:
		return m.drawStraw(b, r)
	default:
		return b.items[m.drawStraw2(&b.draws[min(position, len(b.draws)-1)], uint32(r))]
	}
}

// drawStraw2 draws for each item an exponentially distributed number of rate 1/weight;
// the smallest wins (bucket_straw2_choose). C hashes one by one, and divides a logarithm by the weight for every
// item. Here a lower bound of the quotient, from a small table and the inverse of the
// weight, first says whether the item can win at all; only then is the division done.
func (m *Mapper) drawStraw2(d *straw2Draw, r uint32) int {
	coarse := m.coarse
	best, winner := uint64(math.MaxUint64), 0
	limit := float32(math.Inf(1))
	inverse := d.inverse
	hashes := m.hashes[:len(d.ids)]
	hashItems(hashes, d.ids, m.x, r)
	for i, u := range hashes[:len(inverse)] {
		u &= 0xffff
		if coarse[u>>(16-coarseBits)]*inverse[i] >= limit {
			continue
		}
		w := uint64(d.weights[i])
		if w == 0 {
			continue
		}
		if cost := lnCost(u) / w; cost < best {
			best, winner = cost, i
			// The product above is too large by a rounding at most, which the last factor covers.
			limit = float32(best+1) * (1 + 1.0/(1<<21))
		}
	}
	return winner
}

// drawStraw is the straw of old: each item's straw is scaled by its weight beforehand.
func (m *Mapper) drawStraw(b *bucket, r int32) ItemID {
	var winner int
	var longest uint64
	for i, item := range b.items {
		draw := uint64(hash3(m.x, uint32(item), uint32(r))&0xffff) * uint64(b.derived[i])
		if i == 0 || draw > longest {
			winner, longest = i, draw
		}
	}
	return b.items[winner]
}

// drawList walks from the newest item to the oldest, and stops with the chance of the
// item's weight among all that are left.
func (m *Mapper) drawList(b *bucket, r int32) ItemID {
	for i := len(b.items) - 1; i >= 0; i-- {
		w := uint64(hash4(m.x, uint32(b.items[i]), uint32(r), uint32(b.id)) & 0xffff)
		if w*uint64(b.derived[i])>>16 < uint64(b.weights[i]) {
			return b.items[i]
		}
	}
	return b.items[0]
}

// drawTree goes down a binary tree whose node 2i+1 is item i.
func (m *Mapper) drawTree(b *bucket, r int32) ItemID {
	node := uint32(len(b.derived)) >> 1
	for node&1 == 0 {
		half := node & -node >> 1
		point := uint64(hash4(m.x, node, uint32(r), uint32(b.id))) * uint64(b.derived[node]) >> 32
		if point < uint64(b.derived[node-half]) {
			node -= half
		} else {
			node += half
		}
	}
	return b.items[node>>1]
}

// permuted picks the r-th item of a pseudo-random order of the bucket's items
// (bucket_perm_choose). The order is drawn only as far as it is asked for.
func (m *Mapper) permuted(b *bucket, r int32) ItemID {
	size := uint32(len(b.items))
	want := uint32(r) % size
	id := uint32(b.id)
	p := &m.perms[-1-b.id]
	if p.x != m.x || p.n == 0 {
		if want == 0 {
			return b.items[hash3(m.x, id, 0)%size]
		}
		if p.order == nil {
			p.order = make([]uint32, size)
		}
		for i := range p.order {
			p.order[i] = uint32(i)
		}
		p.x, p.n = m.x, 0
	}
	for ; p.n <= int(want); p.n++ {
		at := uint32(p.n)
		if at < size-1 {
			other := at + hash3(m.x, id, at)%(size-at)
			p.order[at], p.order[other] = p.order[other], p.order[at]
		}
	}
	return b.items[p.order[want]]
}
