package rebalance

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/placement"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// KindWave is the kind of the steps.
const KindWave plan.Kind = "upmap-wave"

// Wave is what one step does.
type Wave struct {
	Upmaps []Upmap `json:"upmaps"`
	Moves  int64   `json:"moves"` // of shards
	// Places names what of the CRUSH map places data (placesHash); "" for a change of the map, which knows the whole of it.
	Places string `json:"places,omitempty"`
	How    How    `json:"how"`
}

// How is what somebody wanted of a plan. What is left of it is planned so, too.
type How struct {
	Prefer placement.Prefer `json:"prefer,omitempty"`
	// Backfills and Bytes bound a wave; 0: nobody said so.
	Backfills int   `json:"wave_backfills,omitempty"`
	Bytes     int64 `json:"wave_bytes,omitempty"`
}

// options are those of a plan that is made so. backfills bounds waves where nobody said otherwise.
func (h How) options(backfills int) Options {
	return Options{How: h, Waves: placement.WaveOptions{Backfills: cmp.Or(h.Backfills, backfills), Bytes: h.Bytes}}
}

// Upmap is a PG's pg_upmap_items before and after; none is an empty list.
type Upmap struct {
	PG   string     `json:"pg"`
	From [][2]int32 `json:"from"`
	To   [][2]int32 `json:"to"`
	// Bytes is what moves with it, about.
	Bytes storage.Bytes `json:"bytes,omitempty"`
}

// Options say how a cluster is to be changed and balanced.
type Options struct {
	How

	Waves placement.WaveOptions
	// Edits are changes of the CRUSH map: what gives space first.
	Edits []Edit
}

// usualRate is the rate that forecasts are made with before anything was measured.
const usualRate = 100 << 20

// ErrNothing says that no plan is needed.
var ErrNothing = errors.New("nothing to do: the pools are as balanced as the rules allow")

// Plan plans to change and balance a cluster. state is what Read gave beside it. fault.Precondition: there is nothing to do, or data
// has nowhere to go.
func Plan(now placement.Cluster, state State, o Options) (plan.Plan, error) {
	path, err := edited(now, o.Edits)
	if err != nil {
		return plan.Plan{}, err
	}
	change, err := placement.PlanChange(path.Before, path.After, cmp.Or(o.Prefer, placement.PreferBytes))
	if err != nil {
		return plan.Plan{}, err
	}
	waves, err := placement.PlanWaves(path, change, o.Waves)
	if err != nil {
		return plan.Plan{}, err
	}
	if len(waves.LeftOut) > 0 {
		return plan.Plan{}, fault.New(fault.Precondition, "this cannot be done to its end: %s (%s): add space first, or remove less", words(waves.LeftOut), words(waves.Why))
	}
	m := &maker{now: now, options: o, state: state, waves: waves}
	if m.places, err = placesHash(now.Crush); err != nil {
		return plan.Plan{}, err
	}
	return m.plan(change)
}

// maker makes a plan's steps of waves.
type maker struct {
	now     placement.Cluster
	options Options
	state   State  // after the steps that are made
	places  string // of the CRUSH map then
	waves   *placement.Waves
	steps   []plan.Step
}

func (m *maker) plan(change *placement.Change) (plan.Plan, error) {
	parent, err := plan.Hash(m.state)
	if err != nil {
		return plan.Plan{}, err
	}
	m.state.Upmaps = maps.Clone(m.state.Upmaps)
	for i := range m.waves.Steps {
		if err := m.step(i); err != nil {
			return plan.Plan{}, err
		}
	}
	if len(m.steps) == 0 {
		return plan.Plan{}, fault.As(fault.Precondition, ErrNothing)
	}
	p := plan.Plan{Parent: parent, Subject: Subject, What: "balance the pools over the OSDs", Steps: m.steps, Disks: []plan.Disk{}}
	if len(m.options.Edits) > 0 {
		p.What = "change the OSDs of the cluster, and balance the pools over them"
	}
	p.Before, p.After = scaled(change.RawBefore, change.UsableBefore), scaled(change.RawAfter, change.UsableAfter)
	p.Notes = append(p.Notes, fmt.Sprintf("usable %.2f %% of %s -> %.2f %% of %s, %.2f %% at best: %s", 100*change.UsableBefore, storage.Bytes(change.RawBefore),
		100*change.UsableAfter, storage.Bytes(change.RawAfter), 100*change.Bound, change.LimitedBy))
	if n := m.waves.HeldBack; n > 0 {
		p.Notes = append(p.Notes, fmt.Sprintf("%d PGs stay where they are: no order of moves keeps the OSDs below the backfillfull ratio", n))
	}
	if p.State, err = json.Marshal(m.state); err != nil {
		return plan.Plan{}, fmt.Errorf("encode state: %w", err)
	}
	return p.Seal(1)
}

func scaled(raw int64, part float64) storage.Bytes { return storage.Bytes(float64(raw) * part) }

// step adds what a step of the waves does, if that is anything.
func (m *maker) step(i int) error {
	s := m.waves.Steps[i]
	w := Wave{Moves: s.Moves, Upmaps: m.upmaps(s), Places: m.places, How: m.options.How}
	bytes := storage.Bytes(s.Bytes)
	step := plan.Step{
		Kind: KindWave, What: fmt.Sprintf("wave %d of %d: %d PGs get other OSDs, %s move", i+1, len(m.waves.Steps), len(w.Upmaps), bytes), Executor: "coordinator",
		Requires: []string{"their upmaps are as they were planned from"}, Sync: bytes, Passes: 1, Redundancy: 1, Forecast: int64((bytes + usualRate - 1) / usualRate),
	}
	args := any(w)
	switch {
	case len(s.Change) > 0:
		w.Places = ""
		r := Reshape{Wave: w, Before: m.state.CRUSH}
		first, last := split(m.now, m.options.Edits)
		if r.Edits = first; s.Kind == placement.Finish {
			r.Edits = last
		}
		var err error
		if r.After, err = crushHash(s.After.Crush); err != nil {
			return err
		}
		if m.places, err = placesHash(s.After.Crush); err != nil {
			return err
		}
		m.state.CRUSH = r.After
		step.Kind, step.What = KindReshape, fmt.Sprintf("change the CRUSH map: %s; %d upmaps keep data where it is", words(s.Change), len(w.Upmaps))
		step.Requires = []string{"the CRUSH map and the upmaps are as they were planned from"}
		args = r
	case len(w.Upmaps) == 0:
		return nil
	}
	var err error
	if step.Args, err = json.Marshal(args); err != nil {
		return fmt.Errorf("encode step: %w", err)
	}
	m.steps = append(m.steps, step)
	return nil
}

// upmaps are those of a step, with what they replace.
func (m *maker) upmaps(s placement.Step) (list []Upmap) {
	var weight int64
	for _, u := range s.Upmaps {
		pg, to := u.PG.String(), plain(u.Pairs)
		list = append(list, Upmap{PG: pg, From: orEmpty(m.state.Upmaps[pg]), To: to})
		weight += m.now.PGs[u.PG].Bytes
		if m.state.Upmaps[pg] = to; len(to) == 0 {
			delete(m.state.Upmaps, pg)
		}
	}
	for i, u := range s.Upmaps {
		if weight > 0 {
			list[i].Bytes = storage.Bytes(float64(s.Bytes) * float64(m.now.PGs[u.PG].Bytes) / float64(weight))
		}
	}
	return list
}

func orEmpty(pairs [][2]int32) [][2]int32 {
	if pairs == nil {
		return [][2]int32{}
	}
	return pairs
}
