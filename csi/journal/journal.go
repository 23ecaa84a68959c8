// Package journal reads what ceph-csi wrote down of its volumes and snapshots, and takes an entry out
// when one of them is deleted, with the count of a snapshot's volumes (tracker.go). It writes nothing
// else. An entry has two parts (ceph-csi: internal/journal/voljournal.go): a key in the directory, an
// omap with the names that were asked for, and an object of its own with the attributes. ceph-csi makes
// the object before the key and removes it before the key.
package journal

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/holdfast-storage/holdfast/csi/volumeid"
	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// DefaultInstance is the name of the directory of a ceph-csi that was given no --instanceid.
const DefaultInstance = "default"

// DefaultNamespace is the RADOS namespace of CephFS's journal in the metadata pool.
const DefaultNamespace = "csi"

// Kind is what entries are of.
type Kind struct{ directory, object, name, image string }

// Kinds of entries.
var (
	Volumes   = Kind{directory: "csi.volumes.", object: "csi.volume.", name: "csi.volname", image: "csi-vol-"}
	Snapshots = Kind{directory: "csi.snaps.", object: "csi.snap.", name: "csi.snapname", image: "csi-snap-"}
)

// Keys of an entry's attributes.
const (
	keyImage   = "csi.imagename" // older entries lack it
	keyImageID = "csi.imageid"
	keyPool    = "csi.journalpool"
	keySource  = "csi.source"
	keyKMS     = "csi.volume.encryptKMS"
	keyBacking = "csi.volume.backingsnapshotid"
)

// Entry is what the journal says of a volume or snapshot.
type Entry struct {
	Handle  string `json:"handle"` // by which CSI knows it
	UUID    string `json:"uuid"`
	Name    string `json:"name"`              // that was asked for
	Image   string `json:"image"`             // the image or subvolume; of a CephFS snapshot, the snapshot
	ImageID string `json:"imageID,omitempty"` // Ceph's, of an image
	Source  string `json:"source,omitempty"`  // the image or subvolume that a snapshot is of
	// Directory is the pool of the key, Objects are the pools in which there may be an object of the entry.
	Directory int64   `json:"directory"`
	Objects   []int64 `json:"objects"`

	KMS     string `json:"-"` // that keeps the key of an encrypted one
	Backing string `json:"-"` // UUID of the snapshot that a volume shows without a copy; CephFS
}

// SourceHandle is the handle of the volume that a snapshot with the handle f is of. The name of its image
// ends with its UUID; of another name nothing is known, and it is f itself.
func (e *Entry) SourceHandle(f volumeid.Foreign) string {
	const length = 36
	if n := len(e.Source) - length; n >= 0 && volumeid.ValidUUID(e.Source[n:]) {
		f.UUID = e.Source[n:]
	}
	return f.String()
}

// ErrDiffers is in the chain when the journal says something else than an entry that was read before:
// what the entry names may be another volume's by now, and is left alone.
var ErrDiffers = fault.New(fault.Precondition, "ceph-csi's journal says something else")

// ErrUntouched is in the chain of what kept a deletion from beginning: nothing was removed, and what was to be
// deleted is as good as before.
var ErrUntouched = errors.New("nothing was removed")

// Journal is that of one driver in one cluster.
type Journal struct {
	cluster   ceph.Cluster
	pools     map[int64]string
	namespace string
	instance  string
}

// Open returns the journal in pools, all that may hold a part of it. One that is not among them counts as deleted,
// with what was in it.
func Open(cluster ceph.Cluster, pools []ceph.PoolInfo, namespace, instance string) *Journal {
	j := &Journal{cluster: cluster, pools: map[int64]string{}, namespace: namespace, instance: instance}
	for _, p := range pools {
		j.pools[p.ID] = p.Name
	}
	return j
}

func (j *Journal) pairs(ctx context.Context, pool int64, object, prefix string) (map[string]string, error) {
	name, ok := j.pools[pool]
	if !ok {
		return nil, fault.New(fault.NotFound, "pool %d is gone", pool)
	}
	pairs, err := j.cluster.Omaps(name, j.namespace).Pairs(ctx, object, prefix)
	if errors.Is(err, fault.Denied) {
		err = fmt.Errorf("%w: to see what ceph-csi made, the Ceph user needs a right to its journal (deploy/ceph-users.md)", err)
	}
	return pairs, err
}

// Read returns the entry of a UUID whose image is in a pool: fault.NotFound without one.
func (j *Journal) Read(ctx context.Context, kind Kind, pool int64, uuid string) (*Entry, error) {
	object := kind.object + uuid
	pairs, err := j.pairs(ctx, pool, object, "csi.")
	if err != nil {
		return nil, err
	}
	e := &Entry{UUID: uuid, Directory: pool, Objects: []int64{pool}}
	if len(pairs) == 0 {
		// With a journal pool of its own, ceph-csi reserves the UUID beside the image and writes the
		// attributes to the journal pool.
		for _, other := range slices.Sorted(maps.Keys(j.pools)) {
			there, err := j.pairs(ctx, other, object, "csi.")
			if errors.Is(err, fault.NotFound) || errors.Is(err, fault.Denied) || err == nil && there[keyPool] != poolText(other) {
				continue
			}
			if err != nil {
				return nil, err
			}
			pairs, e.Objects = there, append(e.Objects, other)
		}
	}
	e.Name = pairs[kind.name]
	if e.Name == "" {
		return nil, fault.New(fault.Precondition, "ceph-csi's entry %s in pool %s has no name: its creation was cut off, or it is in a journal pool that this Ceph user may not read (deploy/ceph-users.md)", object, j.pools[pool])
	}
	e.Image, e.ImageID, e.Source = pairs[keyImage], pairs[keyImageID], pairs[keySource]
	if e.Image == "" {
		e.Image = kind.image + uuid
	}
	e.KMS, e.Backing = pairs[keyKMS], pairs[keyBacking]
	if text := pairs[keyPool]; text != "" {
		if e.Directory, err = parsePool(text); err != nil {
			return nil, err
		}
	}
	return e, nil
}

func poolText(id int64) string { return fmt.Sprintf("%016x", id) }

func parsePool(text string) (int64, error) {
	data, err := hex.DecodeString(text)
	id, numberErr := strconv.ParseInt(text, 16, 64)
	if err != nil || len(data) != 8 || numberErr != nil {
		return 0, fault.New(fault.Precondition, "ceph-csi's journal names the pool %q, which is no id", text)
	}
	return id, nil
}

// Place is where an entry is found.
type Place struct {
	Pool int64 // of the image; CephFS: the metadata pool
	UUID string
}

// List returns the places of all entries that directories in the journal's pools have, sorted. Keys of other
// kinds (ceph-csi's maps of mirrored volumes) are passed over.
func (j *Journal) List(ctx context.Context, kind Kind) ([]Place, error) {
	var places []Place
	for _, pool := range slices.Sorted(maps.Keys(j.pools)) {
		keys, err := j.pairs(ctx, pool, kind.directory+j.instance, kind.object)
		if errors.Is(err, fault.NotFound) || errors.Is(err, fault.Denied) && len(j.pools) > 1 {
			continue // of many pools some may be none of this user's
		}
		if err != nil {
			return nil, err
		}
		for _, value := range keys {
			if p, ok := placeOf(pool, value); ok {
				places = append(places, p)
			}
		}
	}
	slices.SortFunc(places, func(a, b Place) int {
		return strings.Compare(poolText(a.Pool)+a.UUID, poolText(b.Pool)+b.UUID)
	})
	return slices.Compact(places), nil
}

// placeOf reads the value of a directory's key: a UUID, after a pool's id and a slash if the image
// is not in the directory's pool.
func placeOf(directory int64, value string) (Place, bool) {
	p := Place{Pool: directory, UUID: value}
	if pool, uuid, found := strings.Cut(value, "/"); found {
		id, err := parsePool(pool)
		if err != nil {
			return p, false
		}
		p = Place{Pool: id, UUID: uuid}
	}
	return p, volumeid.ValidUUID(p.UUID)
}

// Confirm reads an entry again: false when its attributes are gone, ErrDiffers when they, or the
// directory, name something else.
func (j *Journal) Confirm(ctx context.Context, kind Kind, e *Entry) (bool, error) {
	now, err := j.Read(ctx, kind, e.Objects[0], e.UUID)
	if errors.Is(err, fault.NotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if now.Name != e.Name || now.Image != e.Image || now.Source != e.Source || e.ImageID != "" && now.ImageID != e.ImageID {
		return false, fmt.Errorf("%w: of %s it has %q on %s, and had %q on %s", ErrDiffers, e.Handle, now.Name, now.Image, e.Name, e.Image)
	}
	value, err := j.directed(ctx, kind, e)
	if err != nil {
		return false, err
	}
	if p, ok := placeOf(e.Directory, value); !ok || p.UUID != e.UUID || p.Pool != e.Objects[0] {
		return false, fmt.Errorf("%w: its directory %s%s has %q for the name %q, not %s (is ceph-csi's --instanceid in the cluster map?)", ErrDiffers, kind.directory, j.instance, value, e.Name, e.UUID)
	}
	return true, nil
}

// directed is what the directory has for the entry's name, "" for nothing.
func (j *Journal) directed(ctx context.Context, kind Kind, e *Entry) (string, error) {
	key := kind.object + e.Name
	keys, err := j.pairs(ctx, e.Directory, kind.directory+j.instance, key)
	if errors.Is(err, fault.NotFound) {
		return "", nil
	}
	return keys[key], err
}

// Remove takes an entry out, in ceph-csi's order; cut off, it is to be called again with the same entry. A name
// that belongs to another UUID by now stays.
func (j *Journal) Remove(ctx context.Context, kind Kind, e *Entry) error {
	// Without the object beside the image Confirm finds no entry, whatever is left of it.
	for _, pool := range e.Objects {
		name, ok := j.pools[pool]
		if !ok {
			continue
		}
		err := j.cluster.Omaps(name, j.namespace).Remove(ctx, kind.object+e.UUID)
		if err != nil && !errors.Is(err, fault.NotFound) {
			return fmt.Errorf("remove ceph-csi's entry of %q: %w", e.Name, err)
		}
	}
	value, err := j.directed(ctx, kind, e)
	if err != nil {
		return err
	}
	if p, ok := placeOf(e.Directory, value); !ok || p.UUID != e.UUID {
		return nil
	}
	return j.cluster.Omaps(j.pools[e.Directory], j.namespace).RemoveKey(ctx, kind.directory+j.instance, kind.object+e.Name)
}
