package pools

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/poll"
)

// Steps binds the kinds of this package.
func Steps(c ceph.Cluster) executor.Registry {
	return executor.Registry{
		KindCreate: func(s plan.Step, report func(executor.Progress)) (executor.Step, error) {
			step := &create{cluster: c, works: func() { report(executor.Progress{}) }}
			if err := json.Unmarshal(s.Args, &step.Create); err != nil || step.Advice == nil {
				return nil, fault.New(fault.Invalid, "read pool to make: %w", err)
			}
			return step, nil
		},
		KindSet: func(s plan.Step, report func(executor.Progress)) (executor.Step, error) {
			step := &set{cluster: c, works: func() { report(executor.Progress{}) }}
			if err := json.Unmarshal(s.Args, &step.Set); err != nil {
				return nil, fault.New(fault.Invalid, "read pool to set: %w", err)
			}
			return step, nil
		},
	}
}

// create makes a pool.
type create struct {
	Create

	cluster ceph.Cluster
	works   func() // tells that the step is at work
}

var _ executor.Step = (*create)(nil)

// Check finds the pool missing, or as it is to be. One that was made with another rule, or larger, is another's.
func (s *create) Check(ctx context.Context) (executor.State, error) {
	w, err := patientRead(ctx, s.cluster, s.works)
	if err != nil || w.pool(s.Name) == nil {
		return executor.Todo, err
	}
	if now := w.state(s.Name); now.Rule != s.Name || now.Size > s.Advice.Size {
		return executor.Todo, fault.New(fault.Precondition, "somebody has made a pool %s of size %d with the rule %s: `holdfast pool set` changes it", s.Name, now.Size, now.Rule)
	}
	return executor.Begun, nil
}

// Do makes the rule or profile, the pool, and sets it. Ceph takes each command again where it is done already.
func (s *create) Do(ctx context.Context) error {
	a := s.Advice
	pool := map[string]any{"prefix": "osd pool create", "pool": s.Name, "pg_num": a.PGs, "pgp_num": a.PGs, "pool_type": a.Type, "autoscale_mode": "off"}
	var commands []map[string]any
	if a.Type == "erasure" {
		var profile []string
		for _, key := range slices.Sorted(maps.Keys(a.ECProfile)) {
			profile = append(profile, key+"="+a.ECProfile[key])
		}
		commands = append(commands, map[string]any{"prefix": "osd erasure-code-profile set", "name": s.Name, "profile": profile})
		pool["erasure_code_profile"] = s.Name
	} else {
		rule := map[string]any{"prefix": "osd crush rule create-replicated", "name": s.Name, "root": "default", "type": a.Domain}
		if a.Policy.Class != "" {
			rule["class"] = a.Policy.Class
		}
		commands = append(commands, rule)
		pool["rule"], pool["size"] = s.Name, a.Size // never larger than wanted, for Check
	}
	commands = append(commands, pool)
	if a.Type == "erasure" {
		commands = append(commands, s.option("allow_ec_overwrites", "true"))
	} else {
		commands = append(commands, s.option("size", strconv.Itoa(a.Size)))
	}
	commands = append(commands, s.option("min_size", strconv.Itoa(a.MinSize)))
	if s.Application != "" {
		commands = append(commands, map[string]any{"prefix": "osd pool application enable", "pool": s.Name, "app": s.Application})
	}
	for _, c := range commands {
		if err := order(ctx, s.cluster, s.works, c); err != nil {
			return fmt.Errorf("make pool %s: %w", s.Name, err)
		}
	}
	return nil
}

// order gives the monitors a command, and sits out elections.
func order(ctx context.Context, c ceph.Cluster, works func(), command map[string]any) error {
	return ceph.Patiently(ctx, works, func() error {
		_, err := c.Mon(ctx, command, nil)
		return err
	})
}

// patientRead reads what there is, and sits out elections.
func patientRead(ctx context.Context, c ceph.Cluster, works func()) (w world, err error) {
	err = ceph.Patiently(ctx, works, func() (err error) {
		w, err = read(ctx, c)
		return err
	})
	return w, err
}

func (s *create) option(name, value string) map[string]any {
	return map[string]any{"prefix": "osd pool set", "pool": s.Name, "var": name, "val": value}
}

// Verify finds the pool as it was to be made.
func (s *create) Verify(ctx context.Context) error {
	w, err := patientRead(ctx, s.cluster, s.works)
	if err != nil {
		return err
	}
	p := w.pool(s.Name)
	if p == nil {
		return fault.New(fault.NotFound, "pool %s is gone since it was made", s.Name)
	}
	a := s.Advice
	domain, class := w.spread(w.rule(p))
	if p.Size != a.Size || p.MinSize != a.MinSize || domain != a.Domain || class != a.Policy.Class || p.Erasure() != (a.Type == "erasure") {
		return fault.New(fault.Precondition, "pool %s is %s of size %d, min_size %d over %s (class %q), and was to be %s of size %d, min_size %d over %s (class %q): a rule or profile of its name was there before",
			s.Name, typeOf(p.Erasure()), p.Size, p.MinSize, domain, class, a.Type, a.Size, a.MinSize, a.Domain, a.Policy.Class)
	}
	return nil
}

// set changes a pool.
type set struct {
	Set

	cluster ceph.Cluster
	works   func() // tells that the step is at work
}

var _ executor.Step = (*set)(nil)

// options are the fields of a pool that a step sets, in order, and those for when its data has come to rest: a smaller size waits for a
// min_size that it allows, and a larger min_size for the copies that it asks for.
func (s *set) options() (list, last [][2]string) {
	if s.To.MinSize < s.From.MinSize {
		list = append(list, [2]string{"min_size", strconv.Itoa(s.To.MinSize)})
	}
	if s.To.Size != s.From.Size {
		list = append(list, [2]string{"size", strconv.Itoa(s.To.Size)})
	}
	if s.To.PGs != s.From.PGs {
		list = append(list, [2]string{"pg_num", strconv.Itoa(int(s.To.PGs))})
	}
	if s.To.MinSize > s.From.MinSize {
		last = append(last, [2]string{"min_size", strconv.Itoa(s.To.MinSize)})
	}
	return list, last
}

// Check refuses a pool that is in none of the states between the plan's.
func (s *set) Check(ctx context.Context) (executor.State, error) {
	w, err := patientRead(ctx, s.cluster, s.works)
	if err != nil {
		return executor.Todo, err
	}
	switch now := w.state(s.Name); {
	case now == s.To:
		return executor.Done, nil
	case now == s.From:
		return executor.Todo, nil
	case between(now.Size, s.From.Size, s.To.Size) && between(now.MinSize, s.From.MinSize, s.To.MinSize) && between(int(now.PGs), int(s.From.PGs), int(s.To.PGs)) && now.Rule == s.From.Rule:
		return executor.Begun, nil
	default:
		return executor.Todo, fault.New(fault.Precondition, "pool %s is %+v: the plan knew it as %+v and wants %+v; plan again", s.Name, now, s.From, s.To)
	}
}

func between(n, a, b int) bool { return min(a, b) <= n && n <= max(a, b) }

// pgEvery is how often a pool is asked how many PGs it has: the manager adds them little by little.
const pgEvery = time.Second

// calm is how many looks in a row must find all PGs settled: the manager hears of a new map a moment late.
const calm = 3

// Do sets what differs, and waits for the PGs.
func (s *set) Do(ctx context.Context) error {
	list, last := s.options()
	if err := s.apply(ctx, list); err != nil {
		return err
	}
	if err := s.until(ctx, s.grown); err != nil || len(last) == 0 {
		return err
	}
	still := 0
	if err := s.until(ctx, func(ctx context.Context) (bool, error) {
		now, err := ceph.LookAtPGs(ctx, s.cluster)
		if still++; !now.Settled {
			still = 0
		}
		return still >= calm, err
	}); err != nil {
		return err
	}
	return s.apply(ctx, last)
}

func (s *set) apply(ctx context.Context, options [][2]string) error {
	for _, o := range options {
		if err := order(ctx, s.cluster, s.works, map[string]any{"prefix": "osd pool set", "pool": s.Name, "var": o[0], "val": o[1]}); err != nil {
			return fmt.Errorf("set %s of pool %s: %w", o[0], s.Name, err)
		}
	}
	return nil
}

// until waits, and tells that it does.
func (s *set) until(ctx context.Context, done func(context.Context) (bool, error)) error {
	return poll.Until(ctx, pgEvery, func() (bool, error) {
		s.works()
		ok, err := done(ctx)
		if err != nil && ceph.Passing(err) && ctx.Err() == nil {
			return false, nil
		}
		return ok, err
	})
}

// grown reports whether the pool has the PGs that it is to have.
func (s *set) grown(ctx context.Context) (bool, error) {
	w, err := read(ctx, s.cluster)
	if err != nil {
		return false, err
	}
	p := w.pool(s.Name)
	if p == nil {
		return false, fault.New(fault.NotFound, "pool %s is gone", s.Name)
	}
	return p.PGs == s.To.PGs, nil
}

// Verify finds the pool as wanted.
func (s *set) Verify(ctx context.Context) error {
	w, err := patientRead(ctx, s.cluster, s.works)
	if err != nil {
		return err
	}
	if now := w.state(s.Name); now != s.To {
		return fault.New(fault.Precondition, "pool %s is %+v, and was to be %+v", s.Name, now, s.To)
	}
	return nil
}
