package placement

import (
	"cmp"
	"slices"
)

// release moves PGs to where they have to go, wave by wave, as far as the map in force can
// say it.
func (s *staging) release() {
	for {
		was := slices.Clone(s.at)
		pending := s.pending()
		// Below nearfull if that gets anywhere, else below backfillfull.
		for _, crowded := range []bool{false, true} {
			if s.wave(pending, crowded) {
				s.record(Wave, was, nil, crowded)
				break
			}
		}
		if slices.Equal(was, s.at) {
			return
		}
	}
}

// pending lists the PGs that have to move and can, those on the fullest OSDs first.
func (s *staging) pending() []int32 {
	type entry struct {
		pg    int32
		level float64
	}
	var list []entry
	for i := range s.pgs {
		p := &s.pgs[i]
		to := s.target[p.at : int(p.at)+int(p.n)]
		if !s.differs(p, s.at, s.target) || !s.expressible(p, to) {
			continue
		}
		var level float64
		for _, o := range p.arrivals(to, s.at[p.at:int(p.at)+int(p.n)]) {
			level = max(level, s.levelOf(o))
		}
		list = append(list, entry{int32(i), level})
	}
	slices.SortStableFunc(list, func(a, b entry) int { return cmp.Compare(b.level, a.level) })
	pgs := make([]int32, len(list))
	for i, e := range list {
		pgs[i] = e.pg
	}
	return pgs
}

// levelOf is how full an OSD is: by its disk where that is known, else by its weight.
func (s *staging) levelOf(o int32) float64 {
	if disk := s.used[o]; disk.Size > 0 && !s.counts {
		return float64(disk.Used+s.load[o]-s.held[o]) / float64(disk.Size)
	}
	if weight := s.osds[o].weight; weight > 0 {
		return float64(s.load[o]) / weight
	}
	return 0
}

// wave moves those of the PGs that go together; it says whether there were any.
func (s *staging) wave(pending []int32, crowded bool) bool {
	most := s.near
	if crowded {
		most = s.most
	}
	clear(s.in)
	count := make([]int, len(s.load))
	moved := false
	for _, i := range pending {
		p := &s.pgs[i]
		from, to := s.at[p.at:int(p.at)+int(p.n)], s.target[p.at:int(p.at)+int(p.n)]
		come, leave := p.arrivals(from, to), p.arrivals(to, from)
		if !s.hasRoom(p, come, most) || !s.takes(come, leave, count) {
			continue
		}
		for _, o := range come {
			s.in[o] += p.size
		}
		copy(from, to)
		moved = true
	}
	return moved
}

// hasRoom says whether the OSDs that a PG comes to may hold it, with what comes in the wave
// already. What leaves them counts until all of the wave has moved.
func (s *staging) hasRoom(p *pg, come []int32, most []int64) bool {
	return !slices.ContainsFunc(come, func(o int32) bool {
		return s.load[o]+s.in[o]+p.size > most[o] || s.in[o] > 0 && s.Bytes > 0 && s.in[o]+p.size > s.Bytes
	})
}

// takes counts what comes and goes if no OSD has more of that than it may. The first PG of an
// OSD always fits.
func (s *staging) takes(come, leave []int32, count []int) bool {
	touched := append(slices.Clone(come), leave...)
	for i, o := range touched {
		if count[o]++; count[o] > s.Backfills && !slices.Contains(touched[:i], o) {
			for _, o := range touched[:i+1] {
				count[o]--
			}
			return false
		}
	}
	return true
}
