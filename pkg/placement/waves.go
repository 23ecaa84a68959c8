package placement

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/holdfast-storage/holdfast/pkg/crush"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/placement/osdmap"
)

// WaveOptions bound what moves at a time.
type WaveOptions struct {
	// Backfills is how many shards may move to or from one OSD in one wave. At least one
	// PG moves, also where a bound is less than that takes.
	Backfills int
	// Bytes is how much may move to one OSD in one wave; 0: any amount.
	Bytes int64
}

// StepKind is what a step of a plan in waves does.
type StepKind string

// The kinds. Hold makes the changes that give space, and upmaps that keep data where it is.
// Wave moves data. Finish makes the changes that take space away, which data has left by then,
// or change a rule, which it fits by then: neither Hold nor Finish moves a shard that has a
// place.
const (
	Hold   StepKind = "hold"
	Wave   StepKind = "wave"
	Finish StepKind = "finish"
)

// Step is one step of a plan in waves. When all its PGs are active+clean, the next may come;
// each leaves every PG where it was or where it will be, as the rules want it.
type Step struct {
	Kind  StepKind `json:"kind"`
	Moves int64    `json:"moves"`
	Bytes int64    `json:"bytes_moved"` // 0 where the PGs' bytes are not known
	// Fullest is the part of its disk that the fullest OSD fills while the step's data is
	// under way, when targets have it already and sources have it still; 0: not known.
	Fullest    float64 `json:"fullest,omitempty"`
	FullestOSD int32   `json:"fullest_osd"`
	// Change lists what changes the map, before the upmaps and with norebalance set: commands,
	// and after a "# " what to do by hand.
	Change []string `json:"change,omitempty"`
	// Crowded says that OSDs go above the nearfull ratio in this step, as nothing moved
	// without; none goes above the backfillfull ratio.
	Crowded bool `json:"crowded,omitempty"`

	Upmaps []Upmap `json:"-"`
	After  Cluster `json:"-"` // the cluster after the step
}

// Commands are what the step runs, for a shell. Where something has to be done by hand, a
// line says so and ends the shell, with norebalance set: what comes after it is to be run when
// that is done.
func (s Step) Commands() []string {
	if len(s.Change) == 0 {
		return s.upmapCommands()
	}
	list := []string{"ceph osd set norebalance"}
	var hands, change []string
	for _, line := range s.Change {
		if what, byHand := strings.CutPrefix(line, "# "); byHand {
			hands = append(hands, what)
		} else {
			change = append(change, line)
		}
	}
	if len(hands) > 0 {
		list = append(list, StopShell("do by hand, then run what comes after this line: "+strings.Join(hands, "; ")))
	}
	return append(append(append(list, change...), s.upmapCommands()...), "ceph osd unset norebalance")
}

func (s Step) upmapCommands() []string {
	var list []string
	for _, u := range s.Upmaps {
		list = append(list, u.Command())
	}
	return list
}

// StopShell is a line that says something and ends the shell that reads it.
func StopShell(why string) string {
	return "echo '" + strings.ReplaceAll(why, "'", `'\''`) + "' >&2; exit 1"
}

// Waves is a change in steps.
type Waves struct {
	Steps []Step `json:"steps"`
	// HeldBack counts PGs that stay where they are, since no order of moves keeps the OSDs
	// that they would go to below the backfillfull ratio, or no upmap puts them there before
	// the change that they wait for.
	HeldBack int `json:"held_back"`
	// LeftOut tells what was to be done last, and is in no step: PGs that are held back would move
	// all at once with it, or OSDs that go for good hold them still.
	LeftOut []string `json:"left_out,omitempty"`
	// Why says what keeps it from being done, a sentence each.
	Why []string `json:"why_left_out,omitempty"`
}

// PlanWaves puts a change that was planned into steps. The change must have been made from
// the path's Before and After. fault.Precondition: shards would move at once by what comes
// first.
func PlanWaves(path Path, c *Change, o WaveOptions) (*Waves, error) {
	if o.Backfills < 1 || o.Bytes < 0 {
		return nil, fault.New(fault.Invalid, "waves of %d backfills and %d bytes an OSD: at least 1 backfill, and 0 or more bytes", o.Backfills, o.Bytes)
	}
	was, err := newWorldToChange(path.Before)
	if err != nil {
		return nil, err
	}
	if len(c.target) != len(was.cur) {
		return nil, fault.New(fault.Invalid, "the plan is for another cluster")
	}
	s := &staging{WaveOptions: o, target: c.target, at: slices.Clone(was.cur), items: maps.Clone(path.Before.OSDs.UpmapItems), world: was}
	s.limitFrom(path)
	if len(path.First) > 0 {
		w, err := s.within(path.During)
		if err != nil {
			return nil, err
		}
		if err := s.enter(w, Hold, path.First); err != nil {
			return nil, err
		}
	}
	s.release()
	if len(path.Last) > 0 {
		if err := s.finish(path); err != nil {
			return nil, err
		}
	}
	held := 0
	for i := range s.pgs {
		if s.differs(&s.pgs[i], s.at, s.target) {
			held++
		}
	}
	s.HeldBack = max(s.HeldBack, held)
	return &s.Waves, nil
}

// staging is a plan in waves in the making. The world is that of the map in force: its cur
// holds what the upmaps say then.
type staging struct {
	WaveOptions
	Waves
	*world
	target, at []int32 // where shards have to go, and where they are
	items      map[osdmap.PG][]osdmap.Pair
	most, near []int64 // by OSD: what it may hold
	used       []Disk  // by OSD
	held       []int64 // what it held at first
	load, in   []int64 // what it holds now, and what comes in this wave
}

// limitFrom notes how full the OSDs may get, by the smaller of the disks that they have on the
// way and in the end.
func (s *staging) limitFrom(path Path) {
	n := max(len(path.During.OSDs.OSDs), len(path.After.OSDs.OSDs), len(s.osds))
	s.held = make([]int64, n)
	copy(s.held, s.loadsOf(s.at))
	s.load, s.in = slices.Clone(s.held), make([]int64, n)
	s.most, s.near, s.used = make([]int64, n), make([]int64, n), make([]Disk, n)
	for i := range s.most {
		disk := path.During.Disks[crush.ItemID(i)]
		s.used[i], s.most[i], s.near[i] = disk, unlimited, unlimited
		if last := path.After.Disks[crush.ItemID(i)].Size; last > 0 {
			disk.Size = min(disk.Size, last)
		}
		if disk.Size <= 0 || s.counts {
			continue
		}
		ratios := s.OSDs.Ratios
		s.most[i] = room(disk, ratios.BackfillFull, s.held[i])
		s.near[i] = min(s.most[i], room(disk, ratios.NearFull, s.held[i]))
	}
}

// withItems is a cluster with the upmaps that are in force now.
func (s *staging) withItems(c Cluster) Cluster {
	m := *c.OSDs
	m.UpmapItems = maps.Clone(s.items)
	c.OSDs = &m
	return c
}

// expressible says whether upmaps can put a PG there, and monitors would leave them.
func (w *world) expressible(p *pg, places []int32) bool {
	if p.frozen {
		return !p.moves(w.places(p), places)
	}
	base := w.basePlaces(p)
	if holes(places) != holes(base) || !p.pool.rule.holds(places) {
		return false
	}
	for _, o := range places {
		if o != none && (!w.isOSD(o) || w.osds[o].weight == 0 && !slices.Contains(base, o)) {
			return false
		}
	}
	if p.pool.positional {
		_, at := order(base, places)
		return slices.Equal(at, places)
	}
	return true
}

// moves says whether shards of a PG have to move from one list of places to another.
func (p *pg) moves(from, to []int32) bool {
	return p.differing(to, from) > 0 || holes(from) != holes(to)
}

func (s *staging) differs(p *pg, a, b []int32) bool {
	return p.moves(a[p.at:int(p.at)+int(p.n)], b[p.at:int(p.at)+int(p.n)])
}

// record adds the step that leads from where shards were to where they are.
func (s *staging) record(kind StepKind, was []int32, change []string, crowded bool) {
	step := Step{Kind: kind, Change: change, Crowded: crowded, FullestOSD: -1}
	clear(s.in)
	for i := range s.pgs {
		p := &s.pgs[i]
		from, to := was[p.at:int(p.at)+int(p.n)], s.at[p.at:int(p.at)+int(p.n)]
		n := p.differing(to, from)
		step.Moves, step.Bytes = step.Moves+n, step.Bytes+n*p.size
		for _, o := range p.arrivals(from, to) {
			s.in[o] += p.size
		}
	}
	for i := range s.load {
		if s.used[i].Size > 0 && !s.counts {
			full := float64(s.used[i].Used+s.load[i]+s.in[i]-s.held[i]) / float64(s.used[i].Size)
			if full > step.Fullest {
				step.Fullest, step.FullestOSD = full, int32(i)
			}
		}
	}
	if s.counts {
		step.Bytes = 0
	}
	copy(s.cur, s.at)
	step.Upmaps, _ = s.upmaps()
	for _, u := range step.Upmaps {
		if len(u.Pairs) == 0 {
			delete(s.items, u.PG)
		} else {
			s.items[u.PG] = u.Pairs
		}
	}
	step.After = s.withItems(s.Cluster)
	s.Cluster = step.After
	copy(s.load, s.loadsOf(s.at))
	s.Steps = append(s.Steps, step)
}

// arrivals lists the OSDs that a PG comes to.
func (p *pg) arrivals(from, to []int32) []int32 {
	var list []int32
	for i, o := range to {
		if o != none && o >= 0 && o != from[i] && (p.pool.positional || !slices.Contains(from, o)) {
			list = append(list, o)
		}
	}
	return list
}

// room is what an OSD may hold, in shards' bytes, when its disk is full to a ratio. What it
// has may stay.
func room(disk Disk, ratio float64, held int64) int64 {
	if ratio <= 0 {
		return unlimited
	}
	return held + max(0, int64(ratio*float64(disk.Size))-disk.Used)
}

// String says what a step does in one line.
func (s Step) String() string {
	text := fmt.Sprintf("%s: %s to move", s.Kind, times(int(s.Moves), "shard"))
	if s.Fullest > 0 {
		text += fmt.Sprintf(", the fullest OSD %s full meanwhile", percent(s.Fullest))
	}
	return text
}
