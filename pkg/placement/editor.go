package placement

import (
	"fmt"
	"maps"
	"slices"

	"github.com/holdfast-storage/holdfast/pkg/crush"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/placement/osdmap"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Editor makes the cluster that there would be after changes. The cluster it is made of
// stays as it is. What takes space away, or changes rules, comes last: see Path.
type Editor struct {
	osds   *osdmap.Map
	crush  *crush.Map
	disks  map[crush.ItemID]Disk
	from   Cluster
	class  string
	during *Cluster // as it was before the first change that comes last
	first  []string // what to do by hand before data moves
	last   []string // and after it
}

// Path is the way of a cluster through changes: what gives space is done first (During),
// what takes space away or changes a rule last (After), when data has moved. First and Last
// say what to do by hand; both may be empty.
type Path struct {
	Before, During, After Cluster
	First, Last           []string
}

// Edit starts with a cluster as it is. New OSDs get the class given, or if it is "", the
// one that most OSDs have.
func (c Cluster) Edit(class string) *Editor {
	m := *c.OSDs
	m.OSDs = slices.Clone(m.OSDs)
	e := &Editor{osds: &m, crush: c.Crush.Clone(), disks: maps.Clone(c.Disks), from: c, class: class}
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
	m := *e.osds
	m.OSDs = slices.Clone(m.OSDs)
	c.OSDs, c.Crush, c.Disks = &m, e.crush.Clone(), maps.Clone(e.disks)
	return c, nil
}

// Path is the way from the cluster as it was to that after the changes.
func (e *Editor) Path() (Path, error) {
	p := Path{Before: e.from, First: e.first, Last: e.last}
	if err := e.settle(); err != nil {
		return p, err
	}
	p.During = *e.during
	var err error
	p.After, err = e.Cluster()
	return p, err
}

// settle keeps the cluster as it is before the first change that comes last.
func (e *Editor) settle() error {
	if e.during != nil {
		return nil
	}
	if len(e.first) == 0 {
		e.during = &e.from
		return nil
	}
	c, err := e.Cluster()
	e.during = &c
	return err
}

// grows notes a change that comes first. It is refused after one that comes last.
func (e *Editor) grows(format string, args ...any) error {
	if e.during != nil {
		return fault.New(fault.Invalid, "what is added, or replaced by larger disks, has to be told before what is removed or gets smaller")
	}
	e.first = append(e.first, fmt.Sprintf(format, args...))
	return nil
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
	return e.grows("# add host %s with %s", name, times(len(sizes), "OSD"))
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
	return e.grows("# add osd.%d of %s to host %s", e.addTo(b, size), size.Decimal(), host)
}

// addTo gives the new OSD the first free id, as `ceph osd new` does.
func (e *Editor) addTo(b *crush.Bucket, size storage.Bytes) int {
	id := 0
	for id < len(e.osds.OSDs) && (e.osds.OSDs[id].Exists || e.crush.Holder(crush.ItemID(id)) != nil) {
		id++
	}
	for len(e.osds.OSDs) <= id {
		e.osds.OSDs = append(e.osds.OSDs, osdmap.OSD{})
	}
	e.osds.OSDs[id] = osdmap.OSD{Exists: true, Up: true, Weight: crush.One, Affinity: osdmap.FullAffinity}
	e.crush.AddDevice(crush.Device{ID: crush.ItemID(id), Name: fmt.Sprintf("osd.%d", id), Class: e.class}, b, crush.WeightOf(size))
	if e.disks != nil {
		e.disks[crush.ItemID(id)] = Disk{Size: int64(size)}
	}
	return id
}

// Replace gives an OSD a disk of another size; it keeps its id. A smaller disk takes space
// away, and so comes last.
func (e *Editor) Replace(osd crush.ItemID, size storage.Bytes) error {
	what := fmt.Sprintf("# replace the disk of osd.%d by one of %s, its data copied (ceph osd crush reweight osd.%d %.5f)", osd, size.Decimal(), osd, float64(crush.WeightOf(size))/float64(crush.One))
	if e.Shrinks(osd, size) {
		if err := e.settle(); err != nil {
			return err
		}
		e.last = append(e.last, what)
	} else if err := e.grows("%s", what); err != nil {
		return err
	}
	if disk, known := e.disks[osd]; known {
		e.disks[osd] = Disk{Size: int64(size), Used: disk.Used}
	}
	return e.crush.SetItemWeight(osd, crush.WeightOf(size))
}

// Shrinks says whether a disk of that size is smaller than the one that an OSD has, or weighs
// less.
func (e *Editor) Shrinks(osd crush.ItemID, size storage.Bytes) bool {
	if int64(size) < e.disks[osd].Size {
		return true
	}
	holder := e.crush.Holder(osd)
	return holder != nil && crush.WeightOf(size) < holder.Weights[slices.Index(holder.Items, osd)]
}

// RemoveOSD removes an OSD for good.
func (e *Editor) RemoveOSD(osd crush.ItemID) error {
	if osd < 0 || int(osd) >= len(e.osds.OSDs) || !e.osds.OSDs[osd].Exists {
		return fault.New(fault.NotFound, "there is no osd.%d", osd)
	}
	if err := e.settle(); err != nil {
		return err
	}
	e.osds.OSDs[osd] = osdmap.OSD{}
	e.purge(osd)
	return e.crush.Remove(osd)
}

// RemoveHost removes a host with its OSDs.
func (e *Editor) RemoveHost(name string) error {
	b := e.crush.BucketNamed(name)
	if b == nil {
		return fault.New(fault.NotFound, "there is no host %s", name)
	}
	if err := e.settle(); err != nil {
		return err
	}
	for _, item := range b.Items {
		if item >= 0 && int(item) < len(e.osds.OSDs) {
			e.osds.OSDs[item] = osdmap.OSD{}
			e.purge(item)
		}
	}
	e.last = append(e.last, "ceph osd crush remove "+name)
	return e.crush.Remove(b.ID)
}

// What removes an OSD for good.
const (
	stopPrefix  = "# stop "
	purgeFormat = "ceph osd purge %d --yes-i-really-mean-it"
)

// purge notes what removes an OSD for good.
func (e *Editor) purge(osd crush.ItemID) {
	e.last = append(e.last, fmt.Sprintf(stopPrefix+"osd.%d on its host", osd), fmt.Sprintf(purgeFormat, osd))
}
