package crush

import (
	"encoding/binary"

	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// binaryMagic starts every binary map (CRUSH_MAGIC in crush.h).
const binaryMagic = 0x00010000

// binaryReader reads what CrushWrapper::encode writes: little endian, no padding, and
// sections that older releases did not know at the end. Nothing is allocated by a
// length before as many bytes are known to be there.
type binaryReader struct {
	data []byte
	at   int
	err  error
	m    *Map

	names     map[int32]string
	ruleNames map[int32]string
	classes   map[int32]int32
	className map[int32]string
}

// ParseBinary reads a binary map. Errors name the offset.
func ParseBinary(data []byte) (*Map, error) {
	r := binaryReader{data: data, m: &Map{Tunables: Legacy()}}
	if magic := r.u32(); r.err == nil && magic != binaryMagic {
		return nil, fault.New(fault.Invalid, "offset 0: 0x%08x is not the start of a CRUSH map (0x%08x is)", magic, binaryMagic)
	}
	buckets, rules := r.count(4, maxBuckets, "buckets"), r.count(4, maxRules, "rules")
	at := r.at
	if r.m.maxDevices = int(r.i32()); r.m.maxDevices < 0 || r.m.maxDevices > maxDevices {
		r.fail(at, "max_devices is %d: 0 to %d are possible", r.m.maxDevices, maxDevices)
		return nil, r.err
	}
	r.m.Buckets = make([]*Bucket, buckets)
	for i := range buckets {
		r.bucket(i)
	}
	r.m.Rules = make([]*Rule, rules)
	for i := range rules {
		r.rule(i)
	}
	types := r.strings()
	r.names, r.ruleNames = r.strings(), r.strings()
	for id, name := range types {
		r.m.Types = append(r.m.Types, Type{ID: int(id), Name: name})
	}
	r.tunables()
	if r.more() {
		r.deviceClasses()
	}
	if r.more() {
		r.chooseArgs()
	}
	if r.err != nil {
		return nil, r.err
	}
	r.applyNames()
	sortNames(r.m)
	return r.m, r.m.Validate()
}

func (r *binaryReader) more() bool { return r.err == nil && r.at < len(r.data) }

// take returns the next n bytes, or zeros after an error.
func (r *binaryReader) take(n int) []byte {
	if r.err == nil && n > len(r.data)-r.at {
		r.err = fault.New(fault.Invalid, "offset %d: the map ends where %d more bytes should be", r.at, n)
	}
	if r.err != nil {
		return make([]byte, min(n, 8))
	}
	r.at += n
	return r.data[r.at-n : r.at]
}

func (r *binaryReader) u8() uint8   { return r.take(1)[0] }
func (r *binaryReader) u16() uint16 { return binary.LittleEndian.Uint16(r.take(2)) }
func (r *binaryReader) u32() uint32 { return binary.LittleEndian.Uint32(r.take(4)) }
func (r *binaryReader) i32() int32  { return int32(r.u32()) }

// count reads how many things of at least that many bytes follow.
func (r *binaryReader) count(size, most int, what string) int {
	at := r.at
	n := int(r.u32())
	if r.err == nil && (n > most || n*size > len(r.data)-r.at) {
		r.err = fault.New(fault.Invalid, "offset %d: %d %s are more than the map can hold", at, n, what)
	}
	if r.err != nil {
		return 0
	}
	return n
}

func (r *binaryReader) bucket(i int) {
	at := r.at
	if r.u32() == 0 || r.err != nil {
		return
	}
	b := &Bucket{ID: ItemID(r.i32()), Type: int(r.u16()), Algorithm: Algorithm(r.u8()), Hash: r.u8(), Weight: Weight(r.u32())}
	size := r.count(4, maxDevices+maxBuckets, "items")
	b.Items, b.Weights = make([]ItemID, size), make([]Weight, size)
	for j := range b.Items {
		b.Items[j] = ItemID(r.i32())
	}
	switch b.Algorithm {
	case Uniform:
		weight := Weight(r.u32())
		for j := range b.Weights {
			b.Weights[j] = weight
		}
	case List, Straw:
		b.derived = make([]uint32, size)
		for j := range b.Weights {
			b.Weights[j], b.derived[j] = Weight(r.u32()), r.u32()
		}
	case Tree:
		r.treeNodes(b)
	case Straw2:
		for j := range b.Weights {
			b.Weights[j] = Weight(r.u32())
		}
	default:
		r.fail(at, "bucket %d: algorithm %d is not known", b.ID, b.Algorithm)
	}
	if b.ID != ItemID(-1-i) {
		r.fail(at, "bucket %d stands in the place of %d", b.ID, -1-i)
	}
	r.m.Buckets[i] = b
}

// treeNodes reads the nodes of a tree. Their number is a byte, so Ceph itself cannot
// store trees of more than 64 items.
func (r *binaryReader) treeNodes(b *Bucket) {
	at := r.at
	b.derived = make([]uint32, r.u8())
	for j := range b.derived {
		b.derived[j] = r.u32()
	}
	n := len(b.derived)
	if n&(n-1) != 0 || n < 2*len(b.Items) || n > 0 && len(b.Items) == 0 {
		r.fail(at, "bucket %d: a tree of %d nodes for %d items", b.ID, n, len(b.Items))
		return
	}
	for j := range b.Weights {
		b.Weights[j] = Weight(b.derived[2*j+1])
	}
}

func (r *binaryReader) fail(at int, format string, args ...any) {
	if r.err == nil {
		r.err = fault.New(fault.Invalid, "offset %d: %w", at, fault.New(fault.Invalid, format, args...))
	}
}

func (r *binaryReader) rule(i int) {
	if r.u32() == 0 || r.err != nil {
		return
	}
	steps := r.count(12, len(r.data), "steps")
	rule := &Rule{ID: i, Ruleset: r.u8(), Type: r.u8(), MinSize: r.u8(), MaxSize: r.u8()}
	for range steps {
		rule.Steps = append(rule.Steps, Step{Op: Op(r.u32()), Arg1: r.i32(), Arg2: r.i32()})
	}
	r.m.Rules[i] = rule
}

func (r *binaryReader) strings() map[int32]string {
	n := r.count(8, len(r.data), "names")
	names := make(map[int32]string, n)
	for range n {
		id := r.i32()
		names[id] = string(r.take(r.count(1, len(r.data), "bytes of a name")))
	}
	return names
}

// tunables reads what each release added at the end.
func (r *binaryReader) tunables() {
	t := &r.m.Tunables
	if r.more() {
		t.ChooseLocalTries, t.ChooseLocalFallbackTries, t.ChooseTotalTries = r.u32(), r.u32(), r.u32()
	}
	if r.more() {
		t.ChooseleafDescendOnce = r.u32()
	}
	if r.more() {
		t.ChooseleafVaryR = r.u8()
	}
	if r.more() {
		t.StrawCalcVersion = r.u8()
	}
	if r.more() {
		t.AllowedBucketAlgs = r.u32()
	}
	if r.more() {
		t.ChooseleafStable = r.u8()
	}
}

func (r *binaryReader) deviceClasses() {
	n := r.count(8, len(r.data), "classes of items")
	r.classes = make(map[int32]int32, n)
	for range n {
		id := r.i32()
		r.classes[id] = r.i32()
	}
	r.className = r.strings()
	for range r.count(8, len(r.data), "buckets with copies") {
		b := r.m.Bucket(ItemID(r.i32()))
		for range r.count(8, len(r.data), "copies") {
			at := r.at
			class, id := r.className[r.i32()], ItemID(r.i32())
			shadow := r.m.Bucket(id)
			if b == nil || shadow == nil {
				r.fail(at, "a copy for the class %s, of or as a bucket that is not there", class)
				return
			}
			b.Shadows = append(b.Shadows, Shadow{Class: class, ID: id})
			shadow.ShadowOf, shadow.Class = b.ID, class
		}
	}
}

func (r *binaryReader) chooseArgs() {
	for range r.count(12, len(r.data), "choose_args") {
		set := ChooseArgs{Index: int64(binary.LittleEndian.Uint64(r.take(8)))}
		for range r.count(12, len(r.data), "buckets of choose_args") {
			arg := ChooseArg{Bucket: ItemID(-1 - r.i32())}
			for range r.count(4, len(r.data), "positions") {
				weights := make([]Weight, r.count(4, len(r.data), "weights"))
				for i := range weights {
					weights[i] = Weight(r.u32())
				}
				arg.WeightSet = append(arg.WeightSet, weights)
			}
			for range r.count(4, len(r.data), "ids") {
				arg.IDs = append(arg.IDs, ItemID(r.i32()))
			}
			set.Args = append(set.Args, arg)
		}
		r.m.ChooseArgs = append(r.m.ChooseArgs, set)
	}
}

// applyNames gives items and rules the names that stand behind them.
func (r *binaryReader) applyNames() {
	for id, name := range r.names {
		switch b := r.m.Bucket(ItemID(id)); {
		case b != nil:
			b.Name = name
		case id >= 0:
			d := Device{ID: ItemID(id), Name: name}
			if class, ok := r.classes[id]; ok {
				d.Class = r.className[class]
			}
			r.m.Devices = append(r.m.Devices, d)
		}
	}
	for id, name := range r.ruleNames {
		if id >= 0 && int(id) < len(r.m.Rules) && r.m.Rules[id] != nil {
			r.m.Rules[id].Name = name
		}
	}
	for id := int32(0); len(r.className) > 0 && id < maxRules; id++ {
		if name, ok := r.className[id]; ok {
			for len(r.m.Classes) < int(id) {
				r.m.Classes = append(r.m.Classes, "")
			}
			r.m.Classes = append(r.m.Classes, name)
		}
	}
}
