// Package crush computes where CRUSH puts data, exactly as Ceph does (src/crush/mapper.c),
// and reads and writes CRUSH maps. Given one map, one rule and one input, the result is
// that of every Ceph client and daemon, to the bit. It is pure: it reads no file and asks
// no cluster, and it must not import os, net or any source of time or chance.
package crush

import (
	"slices"

	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// ItemID names what a bucket holds: an OSD (0 and up) or a bucket (below 0).
type ItemID int32

// None is what an erasure-coded rule leaves where it finds no OSD (CRUSH_ITEM_NONE).
const None ItemID = 0x7fffffff

// undefined is a position that indep has not filled yet (CRUSH_ITEM_UNDEF).
const undefined ItemID = 0x7ffffffe

// Weight is a 16.16 fixed-point number: 0x10000 is 1.0. For items of a bucket 1.0 stands
// for 1 TiB by convention; for reweights of OSDs 1.0 is in and 0 is out.
type Weight uint32

// One is the weight 1.0.
const One Weight = 0x10000

// MaxWeight is the largest weight of an item in a text map (CRUSH_MAX_BUCKET_WEIGHT in
// crush.h). Ceph's compiler stops at 100.0 for OSDs, also in maps that crushtool wrote
// itself; clusters hold larger ones, and they are read here.
const MaxWeight = 65535 * One

// The largest ids that a map may use. Ceph has no such bound, but it allocates by the
// largest id, and so does this package.
const (
	maxDevices = 1 << 20
	maxBuckets = 1 << 20
	maxRules   = 1 << 8 // CRUSH_MAX_RULES
)

// Algorithm is how a bucket picks an item (CRUSH_BUCKET_* in crush.h).
type Algorithm uint8

// The algorithms, by the numbers that binary maps have for them.
const (
	Uniform Algorithm = iota + 1
	List
	Tree
	Straw
	Straw2
)

// algorithmNames are in the order of the numbers, from 1.
var algorithmNames = [...]string{"uniform", "list", "tree", "straw", "straw2"}

func (a Algorithm) String() string {
	if a < Uniform || a > Straw2 {
		return "unknown"
	}
	return algorithmNames[a-1]
}

func parseAlgorithm(name string) (Algorithm, bool) {
	i := slices.Index(algorithmNames[:], name)
	return Algorithm(i + 1), i >= 0
}

// Tunables change how rules search. The zero value is no profile of Ceph's: see Legacy.
type Tunables struct {
	ChooseLocalTries         uint32
	ChooseLocalFallbackTries uint32
	ChooseTotalTries         uint32
	ChooseleafDescendOnce    uint32
	ChooseleafVaryR          uint8
	ChooseleafStable         uint8
	StrawCalcVersion         uint8
	AllowedBucketAlgs        uint32 // a bit an algorithm, by its number; Ceph enforces it when buckets are made, not when they are used
}

// Legacy are the tunables of a map that says nothing (argonaut; set_legacy_crush_map in
// builder.c): what a text map starts from.
func Legacy() Tunables {
	return Tunables{
		ChooseLocalTries: 2, ChooseLocalFallbackTries: 5, ChooseTotalTries: 19,
		AllowedBucketAlgs: 1<<Uniform | 1<<List | 1<<Straw,
	}
}

// Device is an OSD that the map names.
type Device struct {
	ID    ItemID
	Name  string
	Class string // "" for none
}

// Type is a level of the hierarchy; 0 is that of OSDs.
type Type struct {
	ID   int
	Name string
}

// Bucket is an inner node of the hierarchy.
type Bucket struct {
	ID        ItemID
	Name      string
	Type      int
	Algorithm Algorithm
	Hash      uint8 // 0, rjenkins1, is all there is
	Items     []ItemID
	Weights   []Weight // as long as Items
	Weight    Weight   // what the map says the bucket weighs in all
	// Shadows are the copies of this bucket that hold one device class alone.
	Shadows []Shadow
	// ShadowOf is set in such a copy: it is the bucket copied, and Class is the class.
	ShadowOf ItemID
	Class    string

	// derived is what the algorithm draws with beside the weights: the sums of a list,
	// the nodes of a tree, the straws of a straw bucket. A binary map brings its own.
	derived []uint32
}

// Shadow names a bucket's copy for one device class.
type Shadow struct {
	Class string
	ID    ItemID
}

// Op is what a step of a rule does (CRUSH_RULE_* in crush.h).
type Op uint32

// The operations, by the numbers that binary maps have for them.
const (
	OpNoop Op = iota
	OpTake
	OpChooseFirstN
	OpChooseIndep
	OpEmit
	_
	OpChooseleafFirstN
	OpChooseleafIndep
	OpSetChooseTries
	OpSetChooseleafTries
	OpSetChooseLocalTries
	OpSetChooseLocalFallbackTries
	OpSetChooseleafVaryR
	OpSetChooseleafStable
)

// Step is one step of a rule. Arg1 is the item taken, the number to choose or the value
// set; Arg2 the type to choose.
type Step struct {
	Op         Op
	Arg1, Arg2 int32
}

// Rule types (pg_pool_t::TYPE_* in osd_types.h).
const (
	Replicated = 1
	Erasure    = 3
)

// Rule says how an input becomes a list of OSDs.
type Rule struct {
	ID               int
	Name             string
	Type             uint8
	Ruleset          uint8 // equal to ID in every map of this decade
	MinSize, MaxSize uint8
	Steps            []Step
}

// ChooseArg overrides what one straw2 bucket draws with: weights, one set a position of
// the result (the last one serves all positions after it), and ids.
type ChooseArg struct {
	Bucket    ItemID
	WeightSet [][]Weight
	IDs       []ItemID
}

// ChooseArgs is a named set of overrides. Index is a pool's id, or DefaultChooseArgs.
type ChooseArgs struct {
	Index int64
	Args  []ChooseArg
}

// DefaultChooseArgs is the set that serves pools without one of their own
// (CrushWrapper::DEFAULT_CHOOSE_ARGS), where `ceph osd crush weight-set` and the
// balancer's crush-compat mode write.
const DefaultChooseArgs int64 = -1

// Map is a CRUSH map. Buckets and Rules have nil where a number is not in use.
type Map struct {
	Tunables   Tunables
	Devices    []Device  // by rising id
	Types      []Type    // by rising id
	Classes    []string  // by class id; "" where an id is not in use
	Buckets    []*Bucket // Buckets[i] has the id -1-i
	Rules      []*Rule   // by id
	ChooseArgs []ChooseArgs

	maxDevices int // what a binary map says; it can be more than its buckets and names need
}

// Bucket returns the bucket with that id, or nil.
func (m *Map) Bucket(id ItemID) *Bucket {
	if i := -1 - int(id); i >= 0 && i < len(m.Buckets) {
		return m.Buckets[i]
	}
	return nil
}

// MaxDevices is one more than the largest OSD that the map holds or names.
func (m *Map) MaxDevices() int {
	most := m.maxDevices
	for _, d := range m.Devices {
		most = max(most, int(d.ID)+1)
	}
	for _, b := range m.Buckets {
		if b == nil {
			continue
		}
		for _, item := range b.Items {
			most = max(most, int(item)+1)
		}
	}
	return most
}

// InTree returns for each OSD below MaxDevices whether any bucket holds it.
func (m *Map) InTree() []bool {
	in := make([]bool, m.MaxDevices())
	for _, b := range m.Buckets {
		if b == nil {
			continue
		}
		for _, item := range b.Items {
			if item >= 0 {
				in[item] = true
			}
		}
	}
	return in
}

// addBucket puts a bucket at its place.
func (m *Map) addBucket(b *Bucket) error {
	i := -1 - int(b.ID)
	if i < 0 || i >= maxBuckets {
		return fault.New(fault.Invalid, "bucket %s has the id %d: ids of buckets are -1 to %d", b.Name, b.ID, -maxBuckets)
	}
	for len(m.Buckets) <= i {
		m.Buckets = append(m.Buckets, nil)
	}
	if m.Buckets[i] != nil {
		return fault.New(fault.Invalid, "buckets %s and %s have the same id, %d", m.Buckets[i].Name, b.Name, b.ID)
	}
	m.Buckets[i] = b
	return nil
}

// addRule puts a rule at its place.
func (m *Map) addRule(r *Rule) error {
	if r.ID < 0 || r.ID >= maxRules {
		return fault.New(fault.Invalid, "rule %s has the id %d: ids of rules are 0 to %d", r.Name, r.ID, maxRules-1)
	}
	for len(m.Rules) <= r.ID {
		m.Rules = append(m.Rules, nil)
	}
	if m.Rules[r.ID] != nil {
		return fault.New(fault.Invalid, "rules %s and %s have the same id, %d", m.Rules[r.ID].Name, r.Name, r.ID)
	}
	m.Rules[r.ID] = r
	return nil
}

// addClass gives the class a number, if it has none.
func (m *Map) addClass(name string) {
	if !slices.Contains(m.Classes, name) {
		m.Classes = append(m.Classes, name)
	}
}
