package crush

import (
	"cmp"
	"math"
	"slices"
)

// buildShadows makes, for every root and every device class, a copy of the tree that
// holds the OSDs of that class alone (CrushWrapper::populate_classes). Buckets may say
// which ids their copies have; others get the first free ones, in Ceph's order: by rising
// id of the root, then by class, children before parents. The order matters, as ids are
// what straw2 draws with.
func (m *Map) buildShadows() error {
	s := shadowBuilder{m: m, reserved: map[ItemID]bool{}, class: map[ItemID]string{}, made: map[shadowKey]*Bucket{}}
	contained := map[ItemID]bool{}
	for _, b := range m.Buckets {
		if b == nil {
			continue
		}
		for _, shadow := range b.Shadows {
			s.reserved[shadow.ID] = true
		}
		for _, item := range b.Items {
			contained[item] = true
		}
	}
	for _, d := range m.Devices {
		s.class[d.ID] = d.Class
	}
	originals := slices.Clone(m.Buckets)
	for i := len(originals) - 1; i >= 0; i-- {
		b := originals[i]
		if b == nil || contained[b.ID] {
			continue
		}
		for _, class := range m.Classes {
			if _, err := s.copy(b, class); err != nil {
				return err
			}
		}
	}
	m.sortShadows(originals)
	return nil
}

// sortShadows puts each bucket's copies in the order of the classes' ids, without those
// that were asked for but not made.
func (m *Map) sortShadows(originals []*Bucket) {
	for _, b := range originals {
		if b == nil {
			continue
		}
		b.Shadows = slices.DeleteFunc(b.Shadows, func(s Shadow) bool { return m.Bucket(s.ID) == nil })
		slices.SortFunc(b.Shadows, func(x, y Shadow) int {
			return cmp.Compare(slices.Index(m.Classes, x.Class), slices.Index(m.Classes, y.Class))
		})
	}
}

type shadowKey struct {
	bucket ItemID
	class  string
}

type shadowBuilder struct {
	m        *Map
	reserved map[ItemID]bool
	class    map[ItemID]string
	made     map[shadowKey]*Bucket
}

// copy makes the copy of b for one class, and those of its children first.
func (s *shadowBuilder) copy(b *Bucket, class string) (*Bucket, error) {
	key := shadowKey{b.ID, class}
	if made := s.made[key]; made != nil {
		return made, nil
	}
	shadow := &Bucket{Name: b.Name + "~" + class, Type: b.Type, Algorithm: b.Algorithm, Hash: b.Hash, ShadowOf: b.ID, Class: class}
	var sum uint64
	for i, item := range b.Items {
		weight := b.Weights[i]
		if item >= 0 && s.class[item] != class {
			continue
		}
		if item < 0 {
			child, err := s.copy(s.m.Bucket(item), class)
			if err != nil {
				return nil, err
			}
			item, weight = child.ID, child.Weight
		}
		shadow.Items, shadow.Weights = append(shadow.Items, item), append(shadow.Weights, weight)
		sum += uint64(weight)
	}
	if sum > math.MaxUint32 {
		return nil, errOverflow(shadow)
	}
	shadow.Weight = Weight(sum)
	i := slices.IndexFunc(b.Shadows, func(x Shadow) bool { return x.Class == class })
	if i >= 0 {
		shadow.ID = b.Shadows[i].ID
	} else {
		for shadow.ID = -1; s.m.Bucket(shadow.ID) != nil || s.reserved[shadow.ID]; shadow.ID-- {
		}
		b.Shadows = append(b.Shadows, Shadow{Class: class, ID: shadow.ID})
	}
	s.made[key] = shadow
	return shadow, s.m.addBucket(shadow)
}

// sortNames puts devices and types in the order of their ids.
func sortNames(m *Map) {
	slices.SortStableFunc(m.Devices, func(a, b Device) int { return cmp.Compare(a.ID, b.ID) })
	slices.SortStableFunc(m.Types, func(a, b Type) int { return cmp.Compare(a.ID, b.ID) })
	slices.SortStableFunc(m.ChooseArgs, func(a, b ChooseArgs) int { return cmp.Compare(a.Index, b.Index) })
}
