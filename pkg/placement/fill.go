package placement

import (
	"cmp"
	"slices"
)

// wholeFill says how full whole shards of several sizes can make an OSD: n of them hold at least
// what the n smallest do, and at most what the n largest do. Between what n hold at most and
// n+1 at least an OSD of few shards has space that nothing fits.
type wholeFill struct{ least, most []int64 } // by number of shards

// upTo is the most that whole shards can hold within a cap.
func (f *wholeFill) upTo(room int64) int64 {
	n, found := slices.BinarySearch(f.least, room)
	if !found {
		n--
	}
	if n < 0 {
		return 0
	}
	return min(room, f.most[n])
}

// findFills prepares, for groups whose shards differ, what whole shards can fill: by the
// pools that reach an OSD, of which each PG has one place there.
func (g *group) findFills() {
	if g.even {
		return
	}
	g.fills = make([]*wholeFill, len(g.osds))
	known := map[string]*wholeFill{}
	for _, o := range g.ids {
		key := make([]byte, len(g.members))
		for i, p := range g.members {
			if p.reaches(g.world, int(o)) {
				key[i] = 1
			}
		}
		if known[string(key)] == nil {
			known[string(key)] = g.newFill(key)
		}
		g.fills[o] = known[string(key)]
	}
}

func (g *group) newFill(reach []byte) *wholeFill {
	var sizes []int64
	for i, p := range g.members {
		if reach[i] == 0 {
			continue
		}
		for j := p.first; j < p.end; j++ {
			sizes = append(sizes, g.pgs[j].size)
		}
	}
	slices.SortFunc(sizes, cmp.Compare[int64])
	f := &wholeFill{least: []int64{0}, most: []int64{0}}
	for i, size := range sizes {
		f.least = append(f.least, f.least[i]+size)
		f.most = append(f.most, f.most[i]+sizes[len(sizes)-1-i])
	}
	return f
}
