package placement

import (
	"fmt"
	"slices"

	"github.com/holdfast-storage/holdfast/pkg/crush"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/placement/osdmap"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Editor makes the cluster that there would be after changes. The cluster it is made of
// stays as it is.
type Editor struct {
	osds  *osdmap.Map
	crush *crush.Map
	from  Cluster
	class string
}

// Edit starts with a cluster as it is. New OSDs get the class given, or if it is "", the
// one that most OSDs have.
func (c Cluster) Edit(class string) *Editor {
	m := *c.OSDs
	m.OSDs = slices.Clone(m.OSDs)
	e := &Editor{osds: &m, crush: c.Crush.Clone(), from: c, class: class}
	if class == "" {
		count := map[string]int{}
		for _, d := range c.Crush.Devices {
			if count[d.Class]++; count[d.Class] > count[e.class] {
				e.class = d.Class
			}
		}
	}
	return e
}

// Cluster is the cluster after the changes.
func (e *Editor) Cluster() (Cluster, error) {
	if err := e.crush.Rebuild(); err != nil {
		return Cluster{}, err
	}
	c := e.from
	c.OSDs, c.Crush = e.osds, e.crush
	return c, nil
}

// AddHost adds a host with disks of those sizes. It is put where hosts are: below the
// first root, in the lightest rack (or whatever is between) where there are racks.
func (e *Editor) AddHost(name string, sizes []storage.Bytes) error {
	kind := slices.IndexFunc(e.crush.Types, func(t crush.Type) bool { return t.Name == "host" })
	if kind < 0 {
		return fault.New(fault.Precondition, "the CRUSH map has no type host")
	}
	host := e.crush.Types[kind].ID
	below, err := e.holderOf(host)
	if err != nil {
		return err
	}
	bucket, err := e.crush.AddBucket(name, host, below)
	if err != nil {
		return err
	}
	for _, size := range sizes {
		e.addTo(bucket, size)
	}
	return nil
}

// holderOf finds the lightest bucket that holds buckets of a type.
func (e *Editor) holderOf(kind int) (*crush.Bucket, error) {
	var best *crush.Bucket
	for _, b := range e.crush.Buckets {
		if b == nil || b.Class != "" || !slices.ContainsFunc(b.Items, func(i crush.ItemID) bool {
			child := e.crush.Bucket(i)
			return child != nil && child.Type == kind
		}) {
			continue
		}
		if best == nil || b.Weight < best.Weight {
			best = b
		}
	}
	if best == nil {
		return nil, fault.New(fault.Precondition, "the CRUSH map has no bucket that holds hosts")
	}
	return best, nil
}

// AddOSD adds an OSD to a host.
func (e *Editor) AddOSD(host string, size storage.Bytes) error {
	b := e.crush.BucketNamed(host)
	if b == nil {
		return fault.New(fault.NotFound, "there is no host %s", host)
	}
	e.addTo(b, size)
	return nil
}

// addTo gives the new OSD the first free id, as `ceph osd new` does.
func (e *Editor) addTo(b *crush.Bucket, size storage.Bytes) {
	id := 0
	for id < len(e.osds.OSDs) && (e.osds.OSDs[id].Exists || e.crush.Holder(crush.ItemID(id)) != nil) {
		id++
	}
	for len(e.osds.OSDs) <= id {
		e.osds.OSDs = append(e.osds.OSDs, osdmap.OSD{})
	}
	e.osds.OSDs[id] = osdmap.OSD{Exists: true, Up: true, Weight: crush.One, Affinity: osdmap.FullAffinity}
	e.crush.AddDevice(crush.Device{ID: crush.ItemID(id), Name: fmt.Sprintf("osd.%d", id), Class: e.class}, b, crush.WeightOf(size))
}

// Replace gives an OSD a disk of another size; it keeps its id.
func (e *Editor) Replace(osd crush.ItemID, size storage.Bytes) error {
	return e.crush.SetItemWeight(osd, crush.WeightOf(size))
}

// RemoveOSD removes an OSD for good.
func (e *Editor) RemoveOSD(osd crush.ItemID) error {
	if osd < 0 || int(osd) >= len(e.osds.OSDs) || !e.osds.OSDs[osd].Exists {
		return fault.New(fault.NotFound, "there is no osd.%d", osd)
	}
	e.osds.OSDs[osd] = osdmap.OSD{}
	return e.crush.Remove(osd)
}

// RemoveHost removes a host with its OSDs.
func (e *Editor) RemoveHost(name string) error {
	b := e.crush.BucketNamed(name)
	if b == nil {
		return fault.New(fault.NotFound, "there is no host %s", name)
	}
	for _, item := range b.Items {
		if item >= 0 && int(item) < len(e.osds.OSDs) {
			e.osds.OSDs[item] = osdmap.OSD{}
		}
	}
	return e.crush.Remove(b.ID)
}
