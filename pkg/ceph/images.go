package ceph

import (
	"context"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// ImageSpec describes an RBD image to be made. Zero values mean the cluster's defaults.
type ImageSpec struct {
	Size        storage.Bytes
	DataPool    string
	Features    []string // as `rbd create --image-feature` names them
	ObjectSize  storage.Bytes
	StripeUnit  storage.Bytes
	StripeCount uint64
	Metadata    map[string]string
}

// ImageInfo is an image's state.
type ImageInfo struct {
	ID       string // Ceph's internal id; its header object is "rbd_header."+ID
	Size     storage.Bytes
	Features []string
	DataPool int64            // id of the pool that holds the data
	Parent   ImageSnapshotRef // of a clone; zero for an image of its own
}

// ImageSnapshotRef names a snapshot of an image anywhere in the cluster. An image that was
// renamed since is named as it is now.
type ImageSnapshotRef struct {
	Pool, Namespace, Image string
	Snapshot               string
}

// ImageSnapshot is a snapshot of an image.
type ImageSnapshot struct {
	Name string
	ID   uint64        // Ceph's, which no other snapshot of the pool ever has
	Size storage.Bytes // of the image when it was taken
	// Removed: out of sight, and kept by Ceph for as long as clones need it. Name is Ceph's own then.
	Removed bool
}

// TrashedImage is an image that was moved to the trash.
type TrashedImage struct {
	ID    string // Ceph's; two images of one name may lie in the trash
	Name  string // that it had
	Since time.Time
}

// Extent is a part of an image, in bytes.
type Extent struct {
	Offset, Length uint64
	Zero           bool // it reads as zeros now
}

// Watcher is a client that has the image open.
type Watcher struct {
	Address string // "10.0.0.1:0/123456"
	Client  int64
}

// OpenImage is an image that is kept open, for many reads and writes. It is safe for concurrent use. Close it, once; its watch ends
// then, and with it the connection if that is of no use any more.
type OpenImage interface {
	// Size is what it was when it was opened.
	Size() storage.Bytes
	// ReadAt fills p from byte offset on; what was never written is zeros. fault.Range behind the end. After an
	// error the call may still be writing to p.
	ReadAt(ctx context.Context, p []byte, offset uint64) error
	// WriteAt returns when p is on the OSDs. fault.Range behind the end, fault.Unsupported of a snapshot. After an error the call may
	// still be reading p, and any part of it may be written.
	WriteAt(ctx context.Context, p []byte, offset uint64) error
	Close() error
}

// Images are the RBD images of one pool and RADOS namespace.
type Images interface {
	// Create fails with fault.Exists and fault.Invalid (a feature or a size that Ceph
	// refuses).
	Create(ctx context.Context, name string, spec ImageSpec) error
	Info(ctx context.Context, name string) (ImageInfo, error)
	// Size is Info's Size for a tenth of its cost: the header is asked, the image is not opened. What a
	// cut off creation left may have a size, too.
	Size(ctx context.Context, name string) (storage.Bytes, error)
	Resize(ctx context.Context, name string, size storage.Bytes) error
	// Grow is Resize for an image that is smaller; a larger one stays as it is.
	Grow(ctx context.Context, name string, size storage.Bytes) error
	// Remove deletes an image: fault.Busy while a client watches it (for up to half a minute after
	// it died) or it has snapshots, those included that only clones still need.
	Remove(ctx context.Context, name string) error
	// Watchers lists the clients that have the image open, other than this connection.
	Watchers(ctx context.Context, name string) ([]Watcher, error)
	// Unwatched refuses an image that a client other than this connection has open (fault.Busy), and has the cluster
	// forget clients that it lists though they died.
	Unwatched(ctx context.Context, name string) error
	Metadata(ctx context.Context, name string) (map[string]string, error)
	SetMetadata(ctx context.Context, name string, pairs map[string]string) error
	List(ctx context.Context) ([]string, error)
	// Open opens an image for reads and writes, or a snapshot of it for reads. Who writes takes the image's exclusive lock, where it has
	// that feature, and waits for up to half a minute for one whose owner died.
	Open(ctx context.Context, name, snapshot string) (OpenImage, error)
	// Write writes data at offset (bytes) of an image's content.
	Write(ctx context.Context, name string, offset uint64, data []byte) error

	// Rename gives an image another name; its snapshots and clones stay with it.
	// fault.Exists if the name is taken by another image; a renaming that was cut off, and left both names, is
	// finished.
	Rename(ctx context.Context, name, to string) error
	// CreateSnapshot fails with fault.Exists if the image has a snapshot of that name. Like all that
	// takes the image's exclusive lock (Resize, Rename, RemoveSnapshot, Trash) it waits for up to half a minute
	// for one whose owner died or hangs, and then breaks it, for which librbd blocklists that client.
	CreateSnapshot(ctx context.Context, name, snapshot string) error
	// RemoveSnapshot makes a snapshot disappear; one that clones need is freed with the last of them.
	// fault.NotFound when image or snapshot are gone; the answer is that too where another call was cut
	// off and this one has finished it.
	RemoveSnapshot(ctx context.Context, name, snapshot string) error
	// Snapshots lists the snapshots of an image, those included that only clones still need.
	Snapshots(ctx context.Context, name string) ([]ImageSnapshot, error)
	// Clone makes an image of these Images from a snapshot, which may be of another pool or namespace
	// and needs no protection (clone format 2). Of spec, Size and Metadata do not count: a clone has the
	// snapshot's size and the parent's metadata; nor does it inherit the data pool. fault.NotFound without
	// the snapshot, fault.Exists if the name is taken. Not atomic: cut off, it leaves an image that cannot
	// be opened, one without the parent (all zeros), or one whose snapshot does not know of it and can go
	// from under it. So one that is there after an unknown outcome is to be removed and made again.
	Clone(ctx context.Context, name string, from ImageSnapshotRef, spec ImageSpec) error
	// Flatten copies what a clone shares with its parent, so that it needs none; for an
	// image without a parent there is nothing to do. Cut off, it goes on where it was when
	// called again. progress, unless nil, is told objects done and objects in all.
	Flatten(ctx context.Context, name string, progress func(done, total uint64)) error
	// Sparsify gives zeroed blocks back to the pool.
	Sparsify(ctx context.Context, name string) error
	// Diff calls fn for each extent between from and to (bytes; 0: the end) that differs between two
	// snapshots; snapshot "" means the image as it is now, since "" from nothing, so all that is allocated, a clone's share of its parent
	// included. Ascending, unless the image is striped in its own way. An error of fn ends it and is returned.
	Diff(ctx context.Context, name, since, snapshot string, from, to uint64, fn func(Extent) error) error

	// Trash moves an image out of sight, which takes as long for a large one as for a small
	// one: fault.Busy while a client watches it.
	Trash(ctx context.Context, name string) error
	// Trashed lists the trash; RemoveTrashed frees an image in it: fault.Busy while it is watched or clones need it,
	// fault.Precondition while it has snapshots in sight.
	Trashed(ctx context.Context) ([]TrashedImage, error)
	RemoveTrashed(ctx context.Context, id string) error
	// Restore takes an image out of the trash under a name: fault.Exists if that is taken, fault.NotFound if it
	// is not in the trash.
	Restore(ctx context.Context, id, name string) error
}
