package rebalance

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/holdfast-storage/holdfast/pkg/crush"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/placement"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi/coordinatorv1"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Edit is one change of the CRUSH map. What is as it says already is left as it is, so that edits may be made again.
type Edit struct {
	Do EditKind `json:"do"`
	// Item is an OSD, or for Release also a bucket.
	Item crush.ItemID `json:"item"`
	Host string       `json:"host,omitempty"` // of Place; "": where it is
	// Weight is in 1/65536 of a TiB.
	Weight crush.Weight `json:"weight,omitempty"`
}

// EditKind is what an edit does.
type EditKind string

// The kinds.
const (
	Place   EditKind = "place"   // an OSD gets its host and weight
	Release EditKind = "release" // out of the map
)

func (e Edit) apply(to *placement.Editor) error {
	switch e.Do {
	case Place:
		return to.Place(e.Item, e.Host, e.Weight)
	case Release:
		return to.Release(e.Item)
	default:
		return fault.New(fault.Invalid, "%q is no change of the CRUSH map", e.Do)
	}
}

// edited is the way of a cluster through edits.
func edited(c placement.Cluster, edits []Edit) (placement.Path, error) {
	editor := c.Edit("")
	for _, e := range edits {
		if err := e.apply(editor); err != nil {
			return placement.Path{}, err
		}
	}
	return editor.Path()
}

// split parts edits into those that give space and those that take it away, for a cluster as it is. The first are made before data
// moves, the others after it.
func split(c placement.Cluster, edits []Edit) (first, last []Edit) {
	for _, e := range edits {
		if e.Do == Release || e.Weight < weightOf(c.Crush, e.Item) {
			last = append(last, e)
		} else {
			first = append(first, e)
		}
	}
	return first, last
}

// weightOf is what an OSD weighs now, 0 for one in no bucket.
func weightOf(m *crush.Map, osd crush.ItemID) crush.Weight {
	holder := m.Holder(osd)
	if holder == nil {
		return 0
	}
	return holder.Weights[slices.Index(holder.Items, osd)]
}

// crushHash names a CRUSH map by its content.
func crushHash(m *crush.Map) (string, error) {
	data, err := m.Binary()
	if err != nil {
		return "", fmt.Errorf("encode CRUSH map: %w", err)
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]), nil
}

// placesHash names what of a CRUSH map decides where rules place data: what has weight, how it is chosen, and the tunables. Rules, names and
// OSDs without weight come and go without moving any.
func placesHash(m *crush.Map) (string, error) {
	type bucket struct {
		ID, Type  int
		Algorithm crush.Algorithm
		Items     []crush.ItemID
		Weights   []crush.Weight
	}
	var all struct {
		Tunables   crush.Tunables
		Buckets    []bucket
		ChooseArgs []crush.ChooseArgs
	}
	data, err := m.Binary()
	if err != nil {
		return "", fmt.Errorf("encode CRUSH map: %w", err)
	}
	if m, err = crush.Parse(data); err != nil { // as the monitors give it back
		return "", err
	}
	all.Tunables, all.ChooseArgs = m.Tunables, m.ChooseArgs
	for _, b := range m.Buckets {
		if b == nil || b.Weight == 0 {
			continue
		}
		of := bucket{ID: int(b.ID), Type: b.Type, Algorithm: b.Algorithm}
		for i, w := range b.Weights {
			if w > 0 {
				of.Items, of.Weights = append(of.Items, b.Items[i]), append(of.Weights, w)
			}
		}
		all.Buckets = append(all.Buckets, of)
	}
	return plan.Hash(all)
}

// editsOf says what changes of OSDs and hosts mean for a cluster as it is.
func editsOf(c placement.Cluster, changes []*coordinatorv1.OSDChange) (list []Edit, err error) {
	for _, change := range changes {
		osds, err := osdsOf(c, change)
		if err != nil {
			return nil, err
		}
		for _, osd := range osds {
			edit := Edit{Do: Place, Item: osd, Host: change.GetHost()}
			if change.GetVerb() == coordinatorv1.OSDChange_VERB_PLACE {
				if edit.Weight, err = weightFor(c, osd, storage.Bytes(change.GetBytes())); err != nil {
					return nil, err
				}
			} else {
				edit.Host = ""
			}
			list = append(list, edit)
		}
		if change.GetVerb() != coordinatorv1.OSDChange_VERB_REMOVE {
			continue
		}
		if change.Osd != nil {
			list = append(list, Edit{Do: Release, Item: crush.ItemID(change.GetOsd())})
		} else {
			list = append(list, Edit{Do: Release, Item: c.Crush.BucketNamed(change.GetHost()).ID})
		}
	}
	slices.SortStableFunc(list, func(a, b Edit) int { return cmp.Compare(order(c, a), order(c, b)) })
	return list, nil
}

// order puts what gives space before what takes it away, and that before removals.
func order(c placement.Cluster, e Edit) int {
	switch {
	case e.Do == Release:
		return 2
	case e.Weight < weightOf(c.Crush, e.Item):
		return 1
	default:
		return 0
	}
}

// osdsOf are the OSDs that a change is about.
func osdsOf(c placement.Cluster, change *coordinatorv1.OSDChange) ([]crush.ItemID, error) {
	switch change.GetVerb() {
	case coordinatorv1.OSDChange_VERB_PLACE:
		if change.Osd == nil {
			return nil, fault.New(fault.Invalid, "which OSD goes to host %s?", change.GetHost())
		}
	case coordinatorv1.OSDChange_VERB_DRAIN, coordinatorv1.OSDChange_VERB_REMOVE:
	case coordinatorv1.OSDChange_VERB_UNSPECIFIED:
		fallthrough
	default:
		return nil, fault.New(fault.Invalid, "a change of %v is none: place, drain or remove", change.GetVerb())
	}
	if change.Osd != nil {
		return []crush.ItemID{crush.ItemID(change.GetOsd())}, nil
	}
	host := c.Crush.BucketNamed(change.GetHost())
	if host == nil || change.GetHost() == "" {
		return nil, fault.New(fault.NotFound, "there is no host %q in the CRUSH map", change.GetHost())
	}
	if slices.ContainsFunc(host.Items, func(i crush.ItemID) bool { return i < 0 }) {
		return nil, fault.New(fault.Invalid, "%s holds other buckets: name hosts", change.GetHost())
	}
	return slices.Clone(host.Items), nil
}

// weightFor is the weight of an OSD by a size, or by that of its disk.
func weightFor(c placement.Cluster, osd crush.ItemID, size storage.Bytes) (crush.Weight, error) {
	if size == 0 {
		size = storage.Bytes(c.Disks[osd].Size)
	}
	if size <= 0 {
		return 0, fault.New(fault.Precondition, "osd.%d does not tell how large its disk is: start it, or say a size", osd)
	}
	return crush.WeightOf(size), nil
}

// words tells changes in a line.
func words(lines []string) string { return strings.Join(lines, "; ") }
