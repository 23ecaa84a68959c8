package crush

import (
	"math"

	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// textReader reads the language of `crushtool -c` and `crushtool -d` (src/crush/grammar.h,
// CrushCompiler.cc). Its weights have three decimals, so a map that has been through text
// can differ from the one it was written from; that is so for crushtool, too.
type textReader struct {
	*scanner
	m       *Map
	items   map[string]ItemID
	types   map[string]int
	sizes   map[ItemID]Weight // what each bucket weighs, for items without a weight
	used    map[ItemID]bool   // ids that buckets of the file ask for
	shadows bool
}

// ParseText reads a text map. Errors name the line.
func ParseText(data []byte) (*Map, error) {
	r := textReader{
		scanner: newScanner(data), m: &Map{Tunables: Legacy()},
		items: map[string]ItemID{}, types: map[string]int{}, sizes: map[ItemID]Weight{}, used: map[ItemID]bool{},
	}
	r.findUsedIDs(data)
	for r.peek() != "" {
		if err := r.statement(); err != nil {
			return nil, err
		}
	}
	if err := r.makeShadows(); err != nil {
		return nil, err
	}
	sortNames(r.m)
	return r.m, r.m.Validate()
}

// findUsedIDs notes the ids that buckets are given, so that others get none of them.
func (r *textReader) findUsedIDs(data []byte) {
	s := newScanner(data)
	for s.peek() != "" {
		if word, _ := s.next("a word"); word == "id" {
			if n, err := s.integer("an id", -maxBuckets, -1); err == nil {
				r.used[ItemID(n)] = true
			}
		}
	}
}

func (r *textReader) statement() error {
	word, err := r.name("statement")
	if err != nil {
		return err
	}
	switch word {
	case "tunable":
		return r.tunable()
	case "device":
		return r.device()
	case "type":
		return r.typeName()
	case "rule":
		return r.rule()
	case "choose_args":
		return r.chooseArgs()
	default:
		return r.bucket(word)
	}
}

func (r *textReader) tunable() error {
	name, err := r.name("tunable")
	if err != nil {
		return err
	}
	most := int64(math.MaxInt32)
	switch name {
	case "chooseleaf_vary_r", "chooseleaf_stable", "straw_calc_version":
		most = math.MaxUint8
	}
	n, err := r.integer("value of "+name, 0, most)
	if err != nil {
		return err
	}
	if !r.m.Tunables.set(name, n) {
		return r.errorf("the tunable %s is not known", name)
	}
	return nil
}

// set gives a tunable its value, which is known to fit; false if there is no such tunable.
func (t *Tunables) set(name string, n int64) bool {
	switch name {
	case "choose_local_tries":
		t.ChooseLocalTries = uint32(n)
	case "choose_local_fallback_tries":
		t.ChooseLocalFallbackTries = uint32(n)
	case "choose_total_tries":
		t.ChooseTotalTries = uint32(n)
	case "chooseleaf_descend_once":
		t.ChooseleafDescendOnce = uint32(min(n, 1))
	case "chooseleaf_vary_r":
		t.ChooseleafVaryR = uint8(n)
	case "chooseleaf_stable":
		t.ChooseleafStable = uint8(n)
	case "straw_calc_version":
		t.StrawCalcVersion = uint8(n)
	case "allowed_bucket_algs":
		t.AllowedBucketAlgs = uint32(n)
	default:
		return false
	}
	return true
}

func (r *textReader) device() error {
	id, err := r.integer("id of a device", 0, maxDevices-1)
	if err != nil {
		return err
	}
	d := Device{ID: ItemID(id)}
	if d.Name, err = r.name("name of a device"); err != nil {
		return err
	}
	if err := r.define(d.Name, d.ID); err != nil {
		return err
	}
	if r.skip("class") {
		if d.Class, err = r.name("class"); err != nil {
			return err
		}
		r.m.addClass(d.Class)
	}
	r.m.Devices = append(r.m.Devices, d)
	return nil
}

// define gives a name to an item.
func (r *textReader) define(name string, id ItemID) error {
	if _, taken := r.items[name]; taken {
		return r.errorf("%s is defined twice", name)
	}
	r.items[name] = id
	return nil
}

func (r *textReader) typeName() error {
	id, err := r.integer("id of a type", 0, math.MaxUint16)
	if err != nil {
		return err
	}
	name, err := r.name("name of a type")
	if err != nil {
		return err
	}
	if _, taken := r.types[name]; taken {
		return r.errorf("the type %s is defined twice", name)
	}
	r.types[name] = int(id)
	r.m.Types = append(r.m.Types, Type{ID: int(id), Name: name})
	return nil
}

// kind reads the name of a type.
func (r *textReader) kind() (int, error) {
	name, err := r.name("type")
	if err != nil {
		return 0, err
	}
	id, ok := r.types[name]
	if !ok {
		return 0, r.errorf("the type %s is not defined", name)
	}
	return id, nil
}

// item reads the name of an OSD or a bucket.
func (r *textReader) item() (ItemID, error) {
	name, err := r.name("item")
	if err != nil {
		return 0, err
	}
	id, ok := r.items[name]
	if !ok {
		return 0, r.errorf("the item %s is not defined (above here)", name)
	}
	return id, nil
}

// makeShadows builds the copies for device classes, once all buckets are known.
func (r *textReader) makeShadows() error {
	if r.shadows {
		return nil
	}
	r.shadows = true
	if err := r.m.Validate(); err != nil {
		return err
	}
	return r.m.buildShadows()
}

// errOverflowAt refuses a bucket whose weights do not fit.
func (r *textReader) errOverflowAt(name string) error {
	return fault.New(fault.Range, "line %d: %w", r.taken.line, errOverflow(&Bucket{Name: name}))
}
