package placement

import (
	"fmt"
	"math"
	"math/bits"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Profile is what a pool is for.
type Profile string

// The profiles.
const (
	RBD    Profile = "rbd"
	CephFS Profile = "cephfs"
	Search Profile = "search"
	Backup Profile = "backup"
)

// Policy is what is wanted of a pool. Fields that are zero are inherited: see Inherit.
type Policy struct {
	Profile  Profile       `json:"profile,omitempty"`
	Bytes    storage.Bytes `json:"bytes,omitempty"`   // to be stored, before replication
	Objects  int64         `json:"objects,omitempty"` // 0: not known
	Failures int           `json:"failures,omitempty"`
	// Domain is the failure domain wanted; where there are not enough of it, the next
	// lower level serves.
	Domain string `json:"failure_domain,omitempty"`
	Class  string `json:"device_class,omitempty"`
	// PGBytes is what a PG should hold at most, and PGsPerOSD how many an OSD may have.
	PGBytes   storage.Bytes `json:"pg_bytes,omitempty"`
	PGsPerOSD int           `json:"pgs_per_osd,omitempty"`
	// OSDMemory is osd_memory_target; an OSD needs some for each of its PGs.
	OSDMemory storage.Bytes `json:"osd_memory,omitempty"`
}

// DefaultPolicy is what is taken where nobody says anything: one failure, hosts, PGs of at
// most 50 GB (the shard size that Elasticsearch's guide gives as the upper end), 100 PGs an
// OSD (mon_target_pg_per_osd) and 4 GiB an OSD (osd_memory_target).
func DefaultPolicy() Policy {
	return Policy{Profile: RBD, Failures: 1, Domain: "host", PGBytes: 50e9, PGsPerOSD: 100, OSDMemory: 4 * storage.GiB}
}

// Inherit fills what a policy leaves open from the one above it: a pool's from its device
// class's, that from the cluster's, that from DefaultPolicy.
func (p Policy) Inherit(above Policy) Policy {
	set(&p.Profile, above.Profile)
	set(&p.Bytes, above.Bytes)
	set(&p.Objects, above.Objects)
	set(&p.Failures, above.Failures)
	set(&p.Domain, above.Domain)
	set(&p.Class, above.Class)
	set(&p.PGBytes, above.PGBytes)
	set(&p.PGsPerOSD, above.PGsPerOSD)
	set(&p.OSDMemory, above.OSDMemory)
	return p
}

func set[T comparable](to *T, from T) {
	var zero T
	if *to == zero {
		*to = from
	}
}

// Level is how many buckets of a type there are.
type Level struct {
	Type  string `json:"type"`
	Count int    `json:"count"`
}

// Inventory is what a pool can be made of: levels from the widest ("rack") to "osd".
type Inventory struct {
	Levels []Level `json:"levels"`
}

// OSDs is how many there are.
func (v Inventory) OSDs() int {
	for _, l := range v.Levels {
		if l.Type == "osd" {
			return l.Count
		}
	}
	return 0
}

// Advice is the pool that a policy asks for. It keeps what it was made from.
type Advice struct {
	Policy    Policy    `json:"policy"`
	Inventory Inventory `json:"inventory"`

	Type    string `json:"type"` // replicated or erasure
	Size    int    `json:"size"`
	MinSize int    `json:"min_size"`
	K       int    `json:"k,omitempty"`
	M       int    `json:"m,omitempty"`
	Domain  string `json:"failure_domain"`
	PGs     int    `json:"pg_num"`
	// Rule has the steps of the CRUSH rule, ECProfile what the erasure-code profile sets.
	Rule      []string          `json:"rule"`
	ECProfile map[string]string `json:"erasure_code_profile,omitempty"`
	Raw       storage.Bytes     `json:"raw_bytes"`
	// PGHolds is what a PG will hold, and PGsOnOSD how many shards an OSD will have.
	PGHolds  storage.Bytes `json:"bytes_per_pg"`
	PGsOnOSD float64       `json:"pgs_per_osd"`
	// Binding is the constraint that decided pg_num, and Reasons say why all is as it is.
	Binding string   `json:"binding_constraint"`
	Reasons []string `json:"reasons"`
	// Index is set for the search profile.
	Index *Index `json:"index,omitempty"`
}

// Index is how a search index that replicates itself should be cut.
type Index struct {
	Shards   int           `json:"primary_shards"`
	Replicas int           `json:"replicas"`
	Shard    storage.Bytes `json:"bytes_per_shard"`
	Reasons  []string      `json:"reasons"`
}

// What is known of PGs' memory and of objects: a PG costs an OSD about 2 MiB beside its
// cache (its log of up to 10,000 entries of some 200 bytes: osd_max_pg_log_entries), of
// which PGs may have a quarter of the target; a PG of more than some 250,000 objects
// takes long to scrub and to list.
const (
	pgMemory     = 2 * storage.MiB
	pgMemoryPart = 4
	pgObjects    = 250_000
	maxPGNum     = 65536 // mon_max_pool_pg_num
)

// Advise turns a policy into a pool.
func Advise(p Policy, v Inventory) (*Advice, error) {
	p = p.Inherit(DefaultPolicy())
	switch {
	case p.Bytes <= 0:
		return nil, fault.New(fault.Invalid, "say how many bytes there will be, such as 30TB")
	case v.OSDs() < 1:
		return nil, fault.New(fault.Invalid, "say how many OSDs there are")
	case p.Failures < 1 || p.Failures > 4:
		return nil, fault.New(fault.Invalid, "%d failures: 1 to 4 can be survived", p.Failures)
	}
	a := &Advice{Policy: p, Inventory: v}
	if err := a.redundancy(); err != nil {
		return nil, err
	}
	a.makeRule()
	a.placementGroups()
	if p.Profile == Search {
		a.index()
	}
	return a, nil
}

func (a *Advice) because(format string, args ...any) {
	a.Reasons = append(a.Reasons, fmt.Sprintf(format, args...))
}

// redundancy decides type, size and failure domain.
func (a *Advice) redundancy() error {
	p := a.Policy
	switch p.Profile {
	case RBD, CephFS, Search:
	case Backup:
		if a.erasure() {
			return nil
		}
	default:
		return fault.New(fault.Invalid, "the profile %q is none of rbd, cephfs, search, backup", p.Profile)
	}
	a.Type = "replicated"
	a.copies()
	return a.domain(a.Size)
}

// safeCopies is the least size with which writes go on after a failure and are never
// acknowledged by a single copy: a min_size of 2 and one more. Ceph's own defaults are the
// same (osd_pool_default_size 3, min_size 2), and its documentation warns of min_size 1.
const safeCopies = 3

// copies decides size and min_size of a replicated pool.
func (a *Advice) copies() {
	least := a.Policy.Failures + 1
	a.Size = max(least, safeCopies)
	if a.Policy.Profile == Search {
		a.Size, a.MinSize = 2, 1
		a.because("size 2, min_size 1: the store keeps a whole copy in another volume for each of its replicas, and makes a lost volume anew from those")
		return
	}
	level, n := a.widest(a.Size)
	if wider, _ := a.widest(least); n < a.Size || level != wider {
		a.Size = least // a wide failure domain comes before the copy to spare
	}
	a.MinSize = max(1, a.Size-1)
	if a.Size == least {
		a.because("size %d: a copy more than the %s to survive", a.Size, times(a.Policy.Failures, "failure"))
	} else {
		a.because("size %d: %d would hold the data after %s, but then writes would have to stop (min_size 2) or go to a single copy (min_size 1), which the next fault loses", a.Size, least, times(a.Policy.Failures, "failure"))
	}
	a.because("min_size %d: writes go on after 1 failure", a.MinSize)
	if a.MinSize == 1 {
		a.because("beware: after a failure writes go to a single copy, and the next fault loses them; with a third of the failure domain it would be size 3 and min_size 2")
	}
}

// erasure chooses k+m where there are enough of the failure domain: m for the failures,
// and one bucket to spare to rebuild in. False: too few.
func (a *Advice) erasure() bool {
	m := a.Policy.Failures + 1
	level, n := a.widest(m + 2)
	k := 0
	for _, try := range []int{8, 4, 2} {
		if n >= try+m {
			k = try
			break
		}
	}
	if k == 0 {
		a.because("replicated: erasure coding that writes after %s needs %d of a failure domain, and there are %d", times(a.Policy.Failures, "failure"), m+2, n)
		return false
	}
	a.Type, a.K, a.M, a.Size, a.MinSize, a.Domain = "erasure", k, m, k+m, k+1, level
	a.because("erasure coding %d+%d: backups are written once in large pieces, and take %.2f times their size instead of %d", k, m, float64(k+m)/float64(k), m+1)
	a.because("m is %d, a failure more than is to be survived: writes need min_size %d shards", m, k+1)
	if a.Domain != a.Policy.Domain {
		a.because("failure domain %s: there are not enough of %s", a.Domain, a.Policy.Domain)
	}
	return true
}

// domain chooses the failure domain: that of the policy, or the next lower level that has
// enough.
func (a *Advice) domain(need int) error {
	level, n := a.widest(need)
	if n < need {
		return fault.New(fault.Precondition, "%d OSDs are too few for %d copies", n, need)
	}
	if a.Domain = level; level != a.Policy.Domain {
		a.because("failure domain %s: there are not %d of %s; it rises by itself when there are", level, need, a.Policy.Domain)
	} else {
		a.because("failure domain %s: there are %d, and %d are needed", level, n, need)
	}
	return nil
}

// widest is the first level from the policy's domain down that has that many buckets, or
// the last one.
func (a *Advice) widest(need int) (level string, count int) {
	open := false
	for _, l := range a.Inventory.Levels {
		if open = open || l.Type == a.Policy.Domain; open {
			if level, count = l.Type, l.Count; count >= need {
				return level, count
			}
		}
	}
	if level == "" {
		return "osd", a.Inventory.OSDs()
	}
	return level, count
}

// placementGroups decides pg_num: as many as bytes and objects ask for, within what OSDs
// can have, a power of two.
func (a *Advice) placementGroups() {
	p, osds := a.Policy, float64(a.Inventory.OSDs())
	shards := max(1, a.K)
	stored := float64(p.Bytes)
	if p.Profile == Search {
		stored *= float64(1 + p.Failures) // the index writes its replicas itself
	}
	bySize := stored / float64(shards) / float64(p.PGBytes)
	byObjects := float64(p.Objects) / pgObjects
	byEven := osds * 32 / float64(a.Size)
	byBudget := osds * float64(p.PGsPerOSD) / float64(a.Size)
	byMemory := osds * float64(p.OSDMemory) / pgMemoryPart / float64(pgMemory) / float64(a.Size)
	want, binding := bySize, fmt.Sprintf("PG size: at most %s a shard", p.PGBytes.Decimal())
	if byObjects > want {
		want, binding = byObjects, fmt.Sprintf("objects: at most %d a PG", pgObjects)
	}
	if byEven > want {
		want, binding = byEven, "evenness: some 32 shards an OSD, or single PGs show in how full OSDs are"
	}
	if byBudget < want {
		want, binding = byBudget, fmt.Sprintf("PG budget: %d an OSD", p.PGsPerOSD)
	}
	if byMemory < want {
		want, binding = byMemory, fmt.Sprintf("memory: a quarter of %s for PGs of %s", p.OSDMemory, pgMemory)
	}
	a.PGs, a.Binding = powerOfTwo(want, min(byBudget, byMemory)*1.5), binding
	a.PGHolds = storage.Bytes(stored / float64(a.PGs))
	a.PGsOnOSD = math.Round(float64(a.PGs)*float64(a.Size)/osds*10) / 10
	a.Raw = storage.Bytes(stored * float64(a.Size) / float64(shards))
	a.because("pg_num %d, a power of two: bytes ask for %.0f, objects for %.0f, evenness for %.0f; the PG budget allows %.0f, memory %.0f", a.PGs, bySize, byObjects, byEven, byBudget, byMemory)
}

// powerOfTwo is the least power of two that is at least want, or if that is beyond most, the one
// below; within what monitors take.
func powerOfTwo(want, most float64) int {
	n := 1 << bits.Len(uint(max(0, math.Ceil(want)-1)))
	if float64(n) > most {
		n /= 2
	}
	return min(max(n, 1), maxPGNum)
}

// Sizes of an index's shards: Elasticsearch's guide says 10 to 50 GB, and at most 200
// million documents in one. Older rules by heap (20 a GB) were retired in 8.3.
const (
	indexShard     = 40e9
	indexDocuments = 200_000_000
)

// index says how a search index should be cut.
func (a *Advice) index() {
	p := a.Policy
	byBytes := math.Ceil(float64(p.Bytes) / indexShard)
	byDocuments := math.Ceil(float64(p.Objects) / indexDocuments)
	i := &Index{Shards: int(max(1, byBytes, byDocuments)), Replicas: p.Failures}
	i.Shard = storage.Bytes(float64(p.Bytes) / float64(i.Shards))
	i.Reasons = append(i.Reasons,
		fmt.Sprintf("%d primary shards of %s: 10 to 50 GB are what search and recovery go well with; by documents (at most %d a shard) it would take %.0f", i.Shards, i.Shard.Decimal(), indexDocuments, byDocuments),
		fmt.Sprintf("%s: as many as nodes that may fail at once; each costs its part of every write", times(i.Replicas, "replica")),
		"the bytes are those of the primaries; the store itself writes them once more for each replica, so the pool has to hold all of them",
		fmt.Sprintf("of its pool such a store should ask the least: it survives the loss of a volume by itself, so that size %d keeps %d copies of everything. A pool a host of size 1, with each node's volumes on its own, keeps %d, but every lost disk then means copying its shards anew over the network", a.Size, a.Size*(1+i.Replicas), 1+i.Replicas))
	a.Index = i
}

func times(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
