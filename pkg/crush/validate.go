package crush

import "github.com/holdfast-storage/holdfast/pkg/fault"

// Validate says whether rules can be run on the map: every item exists, no bucket
// contains itself, and lengths agree. Ceph's C code takes all of this for granted and
// would crash or loop.
func (m *Map) Validate() error {
	for i, b := range m.Buckets {
		if b == nil {
			continue
		}
		if err := m.validateBucket(i, b); err != nil {
			return err
		}
	}
	for _, d := range m.Devices {
		if d.ID < 0 || d.ID >= maxDevices {
			return fault.New(fault.Invalid, "device %s has the id %d: ids of OSDs are 0 to %d", d.Name, d.ID, maxDevices-1)
		}
	}
	if err := m.validateDepth(); err != nil {
		return err
	}
	for _, set := range m.ChooseArgs {
		for _, arg := range set.Args {
			if err := m.validateChooseArg(arg); err != nil {
				return fault.New(fault.Invalid, "choose_args %d: %w", set.Index, err)
			}
		}
	}
	return nil
}

func (m *Map) validateBucket(i int, b *Bucket) error {
	switch {
	case b.ID != ItemID(-1-i):
		return fault.New(fault.Invalid, "bucket %s has the id %d in the place of %d", b.Name, b.ID, -1-i)
	case b.Algorithm < Uniform || b.Algorithm > Straw2:
		return fault.New(fault.Invalid, "bucket %s: algorithm %d is not known", b.Name, b.Algorithm)
	case b.Hash != 0:
		return fault.New(fault.Invalid, "bucket %s: hash %d is not known (0, rjenkins1, is)", b.Name, b.Hash)
	case b.Type <= 0:
		return fault.New(fault.Invalid, "bucket %s has the type %d: types of buckets start at 1", b.Name, b.Type)
	case len(b.Items) != len(b.Weights):
		return fault.New(fault.Invalid, "bucket %s has %d items and %d weights", b.Name, len(b.Items), len(b.Weights))
	}
	for _, item := range b.Items {
		if item < 0 && m.Bucket(item) == nil {
			return fault.New(fault.Invalid, "bucket %s holds bucket %d, which is not there", b.Name, item)
		}
		if item >= maxDevices {
			return fault.New(fault.Invalid, "bucket %s holds OSD %d: ids of OSDs are below %d", b.Name, item, maxDevices)
		}
	}
	return nil
}

// validateDepth walks from every bucket and refuses a circle.
func (m *Map) validateDepth() error {
	const (
		unseen = iota
		open
		done
	)
	state := make([]uint8, len(m.Buckets))
	type frame struct{ bucket, next int }
	for start, b := range m.Buckets {
		if b == nil || state[start] == done {
			continue
		}
		stack := []frame{{bucket: start}}
		state[start] = open
		for len(stack) > 0 {
			top := &stack[len(stack)-1]
			items := m.Buckets[top.bucket].Items
			if top.next == len(items) {
				state[top.bucket] = done
				stack = stack[:len(stack)-1]
				continue
			}
			item := items[top.next]
			top.next++
			if item >= 0 {
				continue
			}
			switch child := -1 - int(item); state[child] {
			case open:
				return fault.New(fault.Invalid, "bucket %s contains itself, by way of %s", m.Buckets[child].Name, m.Buckets[top.bucket].Name)
			case unseen:
				state[child] = open
				stack = append(stack, frame{bucket: child})
			}
		}
	}
	return nil
}

func (m *Map) validateChooseArg(arg ChooseArg) error {
	b := m.Bucket(arg.Bucket)
	if b == nil {
		return fault.New(fault.Invalid, "bucket %d is not there", arg.Bucket)
	}
	for _, weights := range arg.WeightSet {
		if len(weights) != len(b.Items) {
			return fault.New(fault.Invalid, "bucket %s has %d items, and the weight set %d", b.Name, len(b.Items), len(weights))
		}
	}
	if len(arg.IDs) > 0 && len(arg.IDs) != len(b.Items) {
		return fault.New(fault.Invalid, "bucket %s has %d items, and %d ids instead", b.Name, len(b.Items), len(arg.IDs))
	}
	return nil
}
