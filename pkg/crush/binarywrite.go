package crush

import (
	"encoding/binary"
	"maps"
	"slices"
)

// binaryWriter writes what CrushWrapper::encode does, for releases from Luminous on.
type binaryWriter struct {
	out []byte
	m   *Map
}

// Binary writes a map in Ceph's binary form. A map that was read from that form comes out
// byte by byte.
func (m *Map) Binary() ([]byte, error) {
	if err := m.Validate(); err != nil {
		return nil, err
	}
	w := &binaryWriter{m: m}
	w.u32(binaryMagic)
	buckets := m.bucketSlots()
	w.u32(uint32(buckets))
	w.u32(uint32(len(m.Rules)))
	w.u32(uint32(m.MaxDevices()))
	for i := range buckets {
		if i >= len(m.Buckets) || m.Buckets[i] == nil {
			w.u32(0)
			continue
		}
		if err := w.bucket(m.Buckets[i]); err != nil {
			return nil, err
		}
	}
	for _, r := range m.Rules {
		w.rule(r)
	}
	w.names()
	w.tunables()
	w.classes()
	w.chooseArgs()
	return w.out, nil
}

// bucketSlots is how many places for buckets Ceph would have: 8, doubled as often as it
// takes (crush_add_bucket in builder.c).
func (m *Map) bucketSlots() int {
	slots := 0
	for slots < len(m.Buckets) {
		slots = max(8, 2*slots)
	}
	return slots
}

func (w *binaryWriter) u8(v uint8)   { w.out = append(w.out, v) }
func (w *binaryWriter) u16(v uint16) { w.out = binary.LittleEndian.AppendUint16(w.out, v) }
func (w *binaryWriter) u32(v uint32) { w.out = binary.LittleEndian.AppendUint32(w.out, v) }

func (w *binaryWriter) bucket(b *Bucket) error {
	w.u32(uint32(b.Algorithm))
	w.u32(uint32(b.ID))
	w.u16(uint16(b.Type))
	w.u8(uint8(b.Algorithm))
	w.u8(b.Hash)
	w.u32(uint32(b.Weight))
	w.u32(uint32(len(b.Items)))
	for _, item := range b.Items {
		w.u32(uint32(item))
	}
	derived, err := w.m.derive(b)
	if err != nil {
		return err
	}
	switch b.Algorithm {
	case Uniform:
		var weight Weight
		if len(b.Weights) > 0 {
			weight = b.Weights[0]
		}
		w.u32(uint32(weight))
	case List, Straw:
		for i, weight := range b.Weights {
			w.u32(uint32(weight))
			w.u32(derived[i])
		}
	case Tree:
		w.u8(uint8(len(derived)))
		for _, node := range derived[:uint8(len(derived))] {
			w.u32(node)
		}
	case Straw2:
		for _, weight := range b.Weights {
			w.u32(uint32(weight))
		}
	}
	return nil
}

func (w *binaryWriter) rule(r *Rule) {
	if r == nil {
		w.u32(0)
		return
	}
	w.u32(1)
	w.u32(uint32(len(r.Steps)))
	w.out = append(w.out, r.Ruleset, r.Type, r.MinSize, r.MaxSize)
	for _, s := range r.Steps {
		w.u32(uint32(s.Op))
		w.u32(uint32(s.Arg1))
		w.u32(uint32(s.Arg2))
	}
}

// strings writes a map of names, by rising id.
func (w *binaryWriter) strings(names map[int32]string) {
	w.u32(uint32(len(names)))
	for _, id := range slices.Sorted(maps.Keys(names)) {
		w.u32(uint32(id))
		w.u32(uint32(len(names[id])))
		w.out = append(w.out, names[id]...)
	}
}

func (w *binaryWriter) names() {
	types, items, rules := map[int32]string{}, map[int32]string{}, map[int32]string{}
	for _, t := range w.m.Types {
		types[int32(t.ID)] = t.Name
	}
	for _, d := range w.m.Devices {
		items[int32(d.ID)] = d.Name
	}
	for _, b := range w.m.Buckets {
		if b != nil && b.Name != "" {
			items[int32(b.ID)] = b.Name
		}
	}
	for _, r := range w.m.Rules {
		if r != nil && r.Name != "" {
			rules[int32(r.ID)] = r.Name
		}
	}
	w.strings(types)
	w.strings(items)
	w.strings(rules)
}

func (w *binaryWriter) tunables() {
	t := w.m.Tunables
	w.u32(t.ChooseLocalTries)
	w.u32(t.ChooseLocalFallbackTries)
	w.u32(t.ChooseTotalTries)
	w.u32(t.ChooseleafDescendOnce)
	w.u8(t.ChooseleafVaryR)
	w.u8(t.StrawCalcVersion)
	w.u32(t.AllowedBucketAlgs)
	w.u8(t.ChooseleafStable)
}

// classes writes which class an OSD or a copy has, the classes, and the copies.
func (w *binaryWriter) classes() {
	number, names := map[string]int32{}, map[int32]string{}
	for i, name := range w.m.Classes {
		if name != "" {
			number[name], names[int32(i)] = int32(i), name
		}
	}
	of := map[int32]int32{}
	for _, d := range w.m.Devices {
		if d.Class != "" {
			of[int32(d.ID)] = number[d.Class]
		}
	}
	copies := map[int32]map[int32]int32{}
	for _, b := range w.m.Buckets {
		if b == nil {
			continue
		}
		if b.Class != "" {
			of[int32(b.ID)] = number[b.Class]
		}
		for _, s := range b.Shadows {
			if copies[int32(b.ID)] == nil {
				copies[int32(b.ID)] = map[int32]int32{}
			}
			copies[int32(b.ID)][number[s.Class]] = int32(s.ID)
		}
	}
	w.numbers(of)
	w.strings(names)
	w.u32(uint32(len(copies)))
	for _, id := range slices.Sorted(maps.Keys(copies)) {
		w.u32(uint32(id))
		w.numbers(copies[id])
	}
}

func (w *binaryWriter) numbers(m map[int32]int32) {
	w.u32(uint32(len(m)))
	for _, id := range slices.Sorted(maps.Keys(m)) {
		w.u32(uint32(id))
		w.u32(uint32(m[id]))
	}
}

func (w *binaryWriter) chooseArgs() {
	w.u32(uint32(len(w.m.ChooseArgs)))
	for _, set := range w.m.ChooseArgs {
		w.out = binary.LittleEndian.AppendUint64(w.out, uint64(set.Index))
		args := slices.DeleteFunc(slices.Clone(set.Args), func(a ChooseArg) bool { return len(a.WeightSet)+len(a.IDs) == 0 })
		w.u32(uint32(len(args)))
		for _, arg := range args {
			w.u32(uint32(-1 - arg.Bucket))
			w.u32(uint32(len(arg.WeightSet)))
			for _, weights := range arg.WeightSet {
				w.u32(uint32(len(weights)))
				for _, weight := range weights {
					w.u32(uint32(weight))
				}
			}
			w.u32(uint32(len(arg.IDs)))
			for _, id := range arg.IDs {
				w.u32(uint32(id))
			}
		}
	}
}
