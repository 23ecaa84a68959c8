package placement

import (
	"fmt"
	"slices"
	"strings"

	"github.com/holdfast-storage/holdfast/pkg/crush"
	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// within maps the PGs as a change of the map makes them, with upmaps that leave data where it
// is, or else bring it where it has to go. The staging stays as it is.
func (s *staging) within(c Cluster) (*world, error) {
	w, err := s.world.after(s.withItems(c))
	if err != nil {
		return nil, err
	}
	for i := range w.pgs {
		p := &w.pgs[i]
		for _, wish := range [][]int32{s.at, s.target} {
			if places := wish[p.at : int(p.at)+int(p.n)]; w.expressible(p, places) {
				copy(w.places(p), places)
				break
			}
		}
	}
	return w, nil
}

// enter makes the change that a world is within. It is refused where more moves by it than in a wave.
func (s *staging) enter(w *world, kind StepKind, change []string) error {
	if n := s.uprooted(w); n > 0 {
		return fault.New(fault.Precondition, "%s would move all at once, as no upmap holds them where they are, with: %q; make the change in smaller parts, or all at once: `holdfast placement simulate` says what moves then", times(n, "PG"), change)
	}
	was := slices.Clone(s.at)
	s.world = w
	for i, disk := range w.Disks {
		if int(i) < len(s.used) {
			s.used[i].Size = disk.Size
		}
	}
	copy(s.at, w.cur)
	s.record(kind, was, change, false)
	return nil
}

// finish makes the change that comes last, and moves what only that allows. The change is left
// out where data is in its way.
func (s *staging) finish(path Path) error {
	w, err := s.within(path.After)
	if err != nil {
		return err
	}
	if n := s.uprooted(w); n > 0 {
		s.HeldBack = n
		s.Why = append(s.Why, fmt.Sprintf("%s would move all at once, whatever room there is", times(n, "PG")))
	}
	s.Why = append(s.Why, s.tooFull(w)...)
	if len(s.Why) > 0 {
		s.LeftOut = undone(path.Last)
		return nil
	}
	if err := s.enter(w, Finish, path.Last); err != nil {
		return err
	}
	s.release()
	return nil
}

// undone tells changes that are left out, so that nobody takes them for what to run.
func undone(change []string) (list []string) {
	for _, line := range change {
		var osd int
		if _, err := fmt.Sscanf(line, purgeFormat, &osd); err == nil {
			list = append(list, fmt.Sprintf("the removal of osd.%d", osd))
		} else if !strings.HasPrefix(line, stopPrefix) {
			list = append(list, strings.TrimPrefix(line, "# "))
		}
	}
	return list
}

// uprooted counts the PGs that a change of the map must not move: no upmap holds them, and they would lose a shard on an OSD
// that goes, or all such PGs together are more than a wave may move. What is within a wave's bounds moves with the change.
func (s *staging) uprooted(w *world) (n int) {
	clear(s.in)
	count := make([]int, len(s.load))
	for i := range w.pgs {
		p := &w.pgs[i]
		if !s.uproots(w, p) {
			continue
		}
		at, to := s.at[p.at:int(p.at)+int(p.n)], w.places(p)
		come, leave := p.arrivals(at, to), p.arrivals(to, at)
		if slices.ContainsFunc(leave, w.isGone) || !s.hasRoom(p, come, s.most) || !s.takes(come, leave, count) {
			n++
			continue
		}
		for _, o := range come {
			s.in[o] += p.size
		}
	}
	return n
}

// uproots says whether a change moves a PG. One that lacks shards is to be recovered as soon as a map lets it,
// by whatever moves; but it must not lose those that it has.
func (s *staging) uproots(w *world, p *pg) bool {
	at := s.at[p.at : int(p.at)+int(p.n)]
	if holes(at) > 0 {
		return slices.ContainsFunc(at, func(o int32) bool { return s.isOSD(o) && !s.isGone(o) && w.isGone(o) })
	}
	return p.moves(at, w.places(p))
}

// tooFull lists the OSDs that get smaller disks than what they hold by now takes.
func (s *staging) tooFull(w *world) (list []string) {
	if s.counts {
		return nil
	}
	ratio := w.OSDs.Ratios.BackfillFull
	if ratio <= 0 {
		ratio = 1
	}
	for i := range s.used {
		was, next := s.used[i], w.Disks[crush.ItemID(i)].Size
		has := was.Used + s.load[i] - s.held[i]
		if next > 0 && next < was.Size && has > int64(ratio*float64(next)) {
			list = append(list, fmt.Sprintf("osd.%d would be %s full with its smaller disk", i, percent(float64(has)/float64(next))))
		}
	}
	return list
}
