package crush

import (
	"math"

	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// Mapper runs a map's rules. It keeps scratch memory, so that a mapping allocates
// nothing, and serves one goroutine at a time: Fork makes one for another goroutine.
// It takes from the map what it needs; later changes of the map do not reach it.
type Mapper struct {
	*compiled
	weights []Weight // of OSDs: reweights, 0 for out
	x       uint32
	perms   []permutation // by bucket, for uniform buckets and local fallback tries
	scratch [3][]ItemID
	hashes  []uint32 // of the draws of the largest bucket
	tracing bool
	trace   []Draw
}

// compiled is what mappers of one map share, read only.
type compiled struct {
	tunables   Tunables
	rules      []*Rule
	buckets    []bucket
	present    []bool
	maxDevices int
	coarse     *coarseCosts
	largest    int // length of the longest ids
}

// bucket is a Bucket made ready for drawing.
type bucket struct {
	id        ItemID
	kind      int
	algorithm Algorithm
	items     []ItemID
	weights   []Weight
	derived   []uint32
	draws     []straw2Draw // straw2: what to draw with for each position, the last for all after it
}

// straw2Draw is what a straw2 bucket draws with: its own ids and weights, or those of a
// choose_args entry. inverse holds 1/weight, rounded down, and +Inf for weight 0. The ids are
// followed by zeros up to a whole number of groups of hashItems.
type straw2Draw struct {
	ids     []ItemID
	weights []Weight
	inverse []float32
}

// permutation is the start of a pseudo-random order of a bucket's items, for one input.
type permutation struct {
	x     uint32
	n     int
	order []uint32
}

// NewMapper prepares a map for drawing with the choose_args of that index, or where it
// has none, with DefaultChooseArgs, or without (choose_args_get_with_fallback in
// CrushWrapper.h). The map is validated first. All OSDs in the tree are in.
func NewMapper(m *Map, chooseArgs int64) (*Mapper, error) {
	if err := m.Validate(); err != nil {
		return nil, err
	}
	c := &compiled{tunables: m.Tunables, rules: m.Rules, maxDevices: m.MaxDevices(), coarse: sharedCoarseCosts()}
	args := m.chooseArgsFor(chooseArgs)
	c.buckets, c.present = make([]bucket, len(m.Buckets)), make([]bool, len(m.Buckets))
	for i, b := range m.Buckets {
		if b == nil {
			continue
		}
		derived, err := m.derive(b)
		if err != nil {
			return nil, err
		}
		c.present[i] = true
		c.buckets[i] = bucket{id: b.ID, kind: b.Type, algorithm: b.Algorithm, items: b.Items, weights: b.Weights, derived: derived}
		if b.Algorithm == Straw2 {
			c.buckets[i].draws = straw2Draws(b, args[b.ID])
			c.largest = max(c.largest, len(c.buckets[i].draws[0].ids))
		}
	}
	mapper := c.fork()
	mapper.weights = make([]Weight, c.maxDevices)
	for osd, in := range m.InTree() {
		if in {
			mapper.weights[osd] = One
		}
	}
	return mapper, nil
}

func (m *Map) chooseArgsFor(index int64) map[ItemID]ChooseArg {
	byBucket := map[ItemID]ChooseArg{}
	for _, want := range []int64{index, DefaultChooseArgs} {
		for _, set := range m.ChooseArgs {
			if set.Index != want {
				continue
			}
			for _, arg := range set.Args {
				byBucket[arg.Bucket] = arg
			}
			return byBucket
		}
	}
	return byBucket
}

func straw2Draws(b *Bucket, arg ChooseArg) []straw2Draw {
	ids, sets := b.Items, arg.WeightSet
	if len(arg.IDs) > 0 {
		ids = arg.IDs
	}
	padded := make([]ItemID, (len(ids)+hashGroup-1)/hashGroup*hashGroup)
	copy(padded, ids)
	if len(sets) == 0 {
		sets = [][]Weight{b.Weights}
	}
	draws := make([]straw2Draw, len(sets))
	for i, weights := range sets {
		inverse := make([]float32, len(weights))
		for j, w := range weights {
			inverse[j] = float32(math.Inf(1))
			if w > 0 {
				inverse[j] = roundDown(1 / float64(w))
			}
		}
		draws[i] = straw2Draw{ids: padded, weights: weights, inverse: inverse}
	}
	return draws
}

func (c *compiled) fork() *Mapper {
	return &Mapper{compiled: c, perms: make([]permutation, len(c.buckets)), hashes: make([]uint32, c.largest)}
}

// Fork returns a mapper of the same map and with the same weights, for another goroutine.
func (m *Mapper) Fork() *Mapper {
	f := m.fork()
	f.weights = append([]Weight(nil), m.weights...)
	return f
}

// SetWeight sets how much of its share an OSD takes: 1.0 (or more) all of it, 0 none,
// which is what `ceph osd reweight` sets and `ceph osd out` sets to 0. An OSD that the
// map does not know is left alone.
func (m *Mapper) SetWeight(osd ItemID, w Weight) {
	if osd >= 0 && int(osd) < len(m.weights) {
		m.weights[osd] = w
	}
}

// AllOut says whether no OSD takes any data, where `crushtool --test` maps nothing.
func (m *Mapper) AllOut() bool {
	for _, w := range m.weights {
		if w > 0 {
			return false
		}
	}
	return true
}

// isOut decides for one input whether an OSD that is in for a part only is in.
func (m *Mapper) isOut(item ItemID) bool {
	if int(item) >= len(m.weights) {
		return true
	}
	w := m.weights[item]
	if w >= One {
		return false
	}
	return w == 0 || Hash2(m.x, uint32(item))&0xffff >= uint32(w)
}

// kindOf returns the type of an item, 0 for OSDs.
func (m *Mapper) kindOf(item ItemID) int {
	if item >= 0 {
		return 0
	}
	return m.buckets[-1-item].kind
}

// maxReplicas bounds the size of a result. Pools have a few, erasure-coded ones a few dozen.
const maxReplicas = 1 << 16

// Do runs a rule for input x and appends the OSDs to out: at most replicas of them, for
// erasure-coded rules with None where there was none (crush_do_rule in mapper.c).
func (m *Mapper) Do(out []ItemID, rule int, x int32, replicas int) ([]ItemID, error) {
	if rule < 0 || rule >= len(m.rules) || m.rules[rule] == nil {
		return out, fault.New(fault.NotFound, "the map has no rule %d", rule)
	}
	if replicas < 0 || replicas > maxReplicas {
		return out, fault.New(fault.Invalid, "%d replicas: 0 to %d are possible", replicas, maxReplicas)
	}
	for i := range m.scratch {
		if len(m.scratch[i]) < replicas {
			m.scratch[i] = make([]ItemID, replicas)
		}
	}
	m.x = uint32(x)
	r := newRun(m, replicas)
	start := len(out)
	for _, step := range m.rules[rule].Steps {
		switch step.Op {
		case OpTake:
			r.take(ItemID(step.Arg1))
		case OpChooseFirstN, OpChooseIndep, OpChooseleafFirstN, OpChooseleafIndep:
			r.choose(step)
		case OpEmit:
			room := replicas - (len(out) - start)
			out = append(out, r.working[:min(r.size, room)]...)
			r.size = 0
		default:
			r.set(step)
		}
	}
	return out, nil
}
