package osd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Situation is what a plan for OSDs was made from: disks with what lies on them, and OSDs with what the cluster has of them. It is the
// plan's state, so that it can be looked at again.
type Situation struct {
	Disks []Found `json:"disks"`
	OSDs  []Known `json:"osds"`
}

// Found is a disk as it was found.
type Found struct {
	Disk     storage.DiskID    `json:"disk"`
	Size     storage.Bytes     `json:"size_bytes"`
	Contents []storage.Content `json:"contents,omitempty"`
}

// Known is an OSD as the cluster knows it; UUID is "" where it knows none.
type Known struct {
	ID        int    `json:"id"`
	UUID      string `json:"uuid,omitempty"`
	Destroyed bool   `json:"destroyed,omitempty"`
}

// look finds the situation of disks and OSDs.
func (n *Node) look(ctx context.Context, disks []storage.DiskID, osds []int) (Situation, error) {
	var s Situation
	for _, id := range disks {
		d, err := n.Disks.Find(ctx, id)
		if err != nil {
			return s, err
		}
		s.Disks = append(s.Disks, Found{d.ID, d.Size, d.Contents})
	}
	for _, id := range osds {
		e, err := n.byID(ctx, id)
		if err != nil && !errors.Is(err, fault.NotFound) {
			return s, err
		}
		s.OSDs = append(s.OSDs, Known{id, e.UUID, e.destroyed()})
	}
	return s, nil
}

// Now finds what a plan was made from, and what there is of that now.
func (n *Node) Now(ctx context.Context, p plan.Plan) (before, now Situation, err error) {
	if err := json.Unmarshal(p.State, &before); err != nil {
		return before, now, fault.New(fault.Invalid, "read what the plan was made from: %w", err)
	}
	var disks []storage.DiskID
	var osds []int
	for _, d := range before.Disks {
		disks = append(disks, d.Disk)
	}
	for _, o := range before.OSDs {
		osds = append(osds, o.ID)
	}
	now, err = n.look(ctx, disks, osds)
	return before, now, err
}

// Fresh refuses a plan whose disks or OSDs are not any more what it was made from: fault.Precondition with the difference.
func (n *Node) Fresh(ctx context.Context, p plan.Plan) error {
	before, now, err := n.Now(ctx, p)
	if err != nil {
		return err
	}
	hash, err := plan.Hash(now)
	if err != nil || hash == p.Parent {
		return err
	}
	return fault.New(fault.Precondition, "it was made from %s, and now there is %s: plan again", before, now)
}

// String says a situation to a person.
func (s Situation) String() string {
	var list []string
	for _, d := range s.Disks {
		text := fmt.Sprintf("disk %s of %s, blank", d.Disk, d.Size)
		if len(d.Contents) > 0 {
			text = fmt.Sprintf("disk %s of %s with %s", d.Disk, d.Size, d.Contents[0].Kind)
		}
		list = append(list, text)
	}
	for _, o := range s.OSDs {
		switch {
		case o.UUID == "":
			list = append(list, "no "+name(o.ID))
		case o.Destroyed:
			list = append(list, name(o.ID)+", destroyed")
		default:
			list = append(list, fmt.Sprintf("%s with UUID %s", name(o.ID), o.UUID))
		}
	}
	return fmt.Sprint(list)
}
