package crush

import (
	"math"
	"slices"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// WeightOf is the weight that Ceph gives to a disk of that size: 1.0 a TiB.
func WeightOf(size storage.Bytes) Weight {
	return Weight(math.Round(float64(size) / float64(storage.TiB) * float64(One)))
}

// Clone copies a map, so that the copy can be edited.
func (m *Map) Clone() *Map {
	c := *m
	c.Devices, c.Types, c.Classes, c.Rules = slices.Clone(m.Devices), slices.Clone(m.Types), slices.Clone(m.Classes), slices.Clone(m.Rules)
	c.Buckets = make([]*Bucket, len(m.Buckets))
	for i, b := range m.Buckets {
		if b == nil {
			continue
		}
		bucket := *b
		bucket.Items, bucket.Weights, bucket.Shadows = slices.Clone(b.Items), slices.Clone(b.Weights), slices.Clone(b.Shadows)
		c.Buckets[i] = &bucket
	}
	c.ChooseArgs = make([]ChooseArgs, len(m.ChooseArgs))
	for i, set := range m.ChooseArgs {
		c.ChooseArgs[i] = ChooseArgs{Index: set.Index}
		for _, arg := range set.Args {
			sets := make([][]Weight, len(arg.WeightSet))
			for j, weights := range arg.WeightSet {
				sets[j] = slices.Clone(weights)
			}
			c.ChooseArgs[i].Args = append(c.ChooseArgs[i].Args, ChooseArg{arg.Bucket, sets, slices.Clone(arg.IDs)})
		}
	}
	return &c
}

// BucketNamed returns the bucket with that name, or nil.
func (m *Map) BucketNamed(name string) *Bucket {
	for _, b := range m.Buckets {
		if b != nil && b.Name == name {
			return b
		}
	}
	return nil
}

// Holder returns the bucket that holds an item, copies for device classes left out, or nil.
func (m *Map) Holder(item ItemID) *Bucket {
	for _, b := range m.Buckets {
		if b != nil && b.Class == "" && slices.Contains(b.Items, item) {
			return b
		}
	}
	return nil
}

// AddBucket makes an empty straw2 bucket below another, with the first free id
// (CrushWrapper::add_bucket, move_bucket).
func (m *Map) AddBucket(name string, kind int, below *Bucket) (*Bucket, error) {
	if m.BucketNamed(name) != nil {
		return nil, fault.New(fault.Exists, "there is a bucket %s already", name)
	}
	b := &Bucket{ID: -1, Name: name, Type: kind, Algorithm: Straw2}
	for m.Bucket(b.ID) != nil {
		b.ID--
	}
	if err := m.addBucket(b); err != nil {
		return nil, err
	}
	m.insert(below, b.ID, 0)
	return b, nil
}

// AddDevice puts a new OSD into a bucket. Rebuild must follow.
func (m *Map) AddDevice(d Device, in *Bucket, w Weight) {
	m.Devices = append(m.Devices, d)
	if d.Class != "" {
		m.addClass(d.Class)
	}
	m.insert(in, d.ID, w)
	sortNames(m)
}

// insert appends an item to a bucket, and to what choose_args say of it.
func (m *Map) insert(b *Bucket, item ItemID, w Weight) {
	b.Items, b.Weights, b.derived = append(b.Items, item), append(b.Weights, w), nil
	m.eachArg(b.ID, func(arg *ChooseArg) {
		for i := range arg.WeightSet {
			arg.WeightSet[i] = append(arg.WeightSet[i], w)
		}
		if len(arg.IDs) > 0 {
			arg.IDs = append(arg.IDs, item)
		}
	})
}

// eachArg calls change for all choose_args of a bucket.
func (m *Map) eachArg(bucket ItemID, change func(*ChooseArg)) {
	for i := range m.ChooseArgs {
		for j := range m.ChooseArgs[i].Args {
			if arg := &m.ChooseArgs[i].Args[j]; arg.Bucket == bucket {
				change(arg)
			}
		}
	}
}

// Remove takes an item out of its bucket; an OSD is forgotten, a bucket goes with all that
// is in it. Rebuild must follow.
func (m *Map) Remove(item ItemID) error {
	holder := m.Holder(item)
	if holder == nil {
		return fault.New(fault.NotFound, "item %d is in no bucket", item)
	}
	i := slices.Index(holder.Items, item)
	holder.Items, holder.Weights, holder.derived = slices.Delete(holder.Items, i, i+1), slices.Delete(holder.Weights, i, i+1), nil
	m.eachArg(holder.ID, func(arg *ChooseArg) {
		for j := range arg.WeightSet {
			arg.WeightSet[j] = slices.Delete(arg.WeightSet[j], i, i+1)
		}
		if len(arg.IDs) > 0 {
			arg.IDs = slices.Delete(arg.IDs, i, i+1)
		}
	})
	if b := m.Bucket(item); b != nil {
		for _, below := range slices.Clone(b.Items) {
			if err := m.Remove(below); err != nil {
				return err
			}
		}
		m.drop(item)
		return nil
	}
	m.Devices = slices.DeleteFunc(m.Devices, func(d Device) bool { return d.ID == item })
	return nil
}

// drop forgets a bucket and its choose_args.
func (m *Map) drop(bucket ItemID) {
	m.Buckets[-1-bucket] = nil
	for i := range m.ChooseArgs {
		m.ChooseArgs[i].Args = slices.DeleteFunc(m.ChooseArgs[i].Args, func(a ChooseArg) bool { return a.Bucket == bucket })
	}
}

// SetItemWeight sets what an OSD weighs, also where choose_args say otherwise
// (CrushWrapper::adjust_item_weight). Rebuild must follow.
func (m *Map) SetItemWeight(osd ItemID, w Weight) error {
	holder := m.Holder(osd)
	if holder == nil {
		return fault.New(fault.NotFound, "osd.%d is in no bucket", osd)
	}
	i := slices.Index(holder.Items, osd)
	holder.Weights[i], holder.derived = w, nil
	m.eachArg(holder.ID, func(arg *ChooseArg) {
		for j := range arg.WeightSet {
			arg.WeightSet[j][i] = w
		}
	})
	return nil
}

// Rebuild adds weights up anew from below and makes the copies for device classes anew,
// with the ids that they had (CrushWrapper::rebuild_roots_with_classes). What
// choose_args say of the copies is lost, as their items change.
func (m *Map) Rebuild() error {
	for i, b := range m.Buckets {
		if b != nil && b.Class != "" {
			m.drop(ItemID(-1 - i))
		}
	}
	done := map[ItemID]bool{}
	for _, b := range m.Buckets {
		if b != nil {
			if err := m.weigh(b, done); err != nil {
				return err
			}
		}
	}
	if err := m.buildShadows(); err != nil {
		return err
	}
	return m.Validate()
}

// weigh sums a bucket's items, those below first. A bucket's own entry in a
// weight_set follows only where it was the plain weight.
func (m *Map) weigh(b *Bucket, done map[ItemID]bool) error {
	if done[b.ID] {
		return nil
	}
	done[b.ID] = true
	var sum uint64
	for i, item := range b.Items {
		if child := m.Bucket(item); child != nil {
			if err := m.weigh(child, done); err != nil {
				return err
			}
			was := b.Weights[i]
			b.Weights[i], b.derived = child.Weight, nil
			m.eachArg(b.ID, func(arg *ChooseArg) {
				for j := range arg.WeightSet {
					if arg.WeightSet[j][i] == was {
						arg.WeightSet[j][i] = child.Weight
					}
				}
			})
		}
		sum += uint64(b.Weights[i])
	}
	if sum > math.MaxUint32 {
		return errOverflow(b)
	}
	b.Weight = Weight(sum)
	return nil
}
