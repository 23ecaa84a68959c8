package crush

import "math"

// textItem is an item of a bucket as it is written.
type textItem struct {
	id     ItemID
	weight Weight
	pos    int // -1 where none is given
}

// bucket reads `TYPE NAME { ... }`; TYPE is taken already.
func (r *textReader) bucket(kind string) error {
	id, ok := r.types[kind]
	if !ok {
		return r.errorf("%q is neither a type defined above here nor a statement", kind)
	}
	b := &Bucket{Type: id, Algorithm: 0}
	var err error
	if b.Name, err = r.name("name of a bucket"); err != nil {
		return err
	}
	if _, taken := r.items[b.Name]; taken {
		return r.errorf("%s is defined twice", b.Name)
	}
	if err := r.expect("{"); err != nil {
		return err
	}
	var items []textItem
	for !r.skip("}") {
		if items, err = r.bucketLine(b, items); err != nil {
			return err
		}
	}
	if b.Algorithm == 0 {
		return r.errorf("bucket %s has no alg", b.Name)
	}
	if err := r.place(b, items); err != nil {
		return err
	}
	if b.ID == 0 {
		for b.ID = -1; r.used[b.ID]; b.ID-- {
		}
		r.used[b.ID] = true
	}
	r.sizes[b.ID] = b.Weight
	if err := r.define(b.Name, b.ID); err != nil {
		return err
	}
	if err := r.m.addBucket(b); err != nil {
		return r.errorf("%w", err)
	}
	return nil
}

func (r *textReader) bucketLine(b *Bucket, items []textItem) ([]textItem, error) {
	word, err := r.next("'}' of bucket " + b.Name)
	if err != nil {
		return nil, err
	}
	switch word {
	case "id":
		return items, r.bucketID(b)
	case "alg":
		name, err := r.name("algorithm")
		if err != nil {
			return nil, err
		}
		if b.Algorithm, _ = parseAlgorithm(name); b.Algorithm == 0 {
			return nil, r.errorf("the algorithm %s is not known", name)
		}
		return items, nil
	case "hash":
		if r.skip("rjenkins1") {
			return items, nil
		}
		hash, err := r.integer("hash", 0, math.MaxUint8)
		b.Hash = uint8(hash)
		return items, err
	case "item":
		item, err := r.bucketItem()
		return append(items, item), err
	default:
		return nil, r.errorf("%q in bucket %s: id, alg, hash, item or } can stand here", word, b.Name)
	}
}

func (r *textReader) bucketID(b *Bucket) error {
	id, err := r.integer("id of a bucket", -maxBuckets, -1)
	if err != nil {
		return err
	}
	if !r.skip("class") {
		b.ID = ItemID(id)
		return nil
	}
	class, err := r.name("class")
	if err != nil {
		return err
	}
	for _, s := range b.Shadows {
		if s.Class == class {
			return r.errorf("bucket %s has two ids for the class %s", b.Name, class)
		}
	}
	r.m.addClass(class)
	b.Shadows = append(b.Shadows, Shadow{Class: class, ID: ItemID(id)})
	return nil
}

func (r *textReader) bucketItem() (textItem, error) {
	id, err := r.item()
	if err != nil {
		return textItem{}, err
	}
	item := textItem{id: id, weight: One, pos: -1}
	if w, ok := r.sizes[id]; ok {
		item.weight = w
	}
	if r.skip("weight") {
		if item.weight, err = r.weight(MaxWeight); err != nil {
			return item, err
		}
	}
	if r.skip("pos") {
		pos, err := r.integer("position", 0, maxDevices)
		if err != nil {
			return item, err
		}
		item.pos = int(pos)
	}
	return item, nil
}

// place puts the items in the order that their positions ask for.
func (r *textReader) place(b *Bucket, items []textItem) error {
	b.Items, b.Weights = make([]ItemID, len(items)), make([]Weight, len(items))
	taken := make([]bool, len(items))
	for _, item := range items {
		if item.pos >= len(items) {
			return r.errorf("bucket %s: position %d of %d items", b.Name, item.pos, len(items))
		}
		if item.pos >= 0 {
			if taken[item.pos] {
				return r.errorf("bucket %s: two items have position %d", b.Name, item.pos)
			}
			taken[item.pos] = true
		}
	}
	var sum uint64
	at := 0
	for _, item := range items {
		pos := item.pos
		if pos < 0 {
			for taken[at] {
				at++
			}
			pos = at
			at++
		}
		b.Items[pos], b.Weights[pos] = item.id, item.weight
		sum += uint64(item.weight)
		if b.Algorithm == Uniform && item.weight != items[0].weight {
			return r.errorf("bucket %s is uniform, but its items' weights differ", b.Name)
		}
	}
	if sum > math.MaxUint32 {
		return r.errOverflowAt(b.Name)
	}
	b.Weight = Weight(sum)
	return nil
}
