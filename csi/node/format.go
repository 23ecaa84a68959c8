package node

import (
	"context"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/obs"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Keys in an image's metadata. They say how far the making of its file system came;
// "done" stands there before the first mount.
const (
	metaState = "holdfast.mkfs.state"
	metaFS    = "holdfast.mkfs.fs"
	metaNode  = "holdfast.mkfs.node"
	metaImage = "holdfast.mkfs.image" // the image that the others are about: a clone inherits them from its source

	stateStarted = "started"
	stateDone    = "done"
	stateNone    = "none" // the image was given out as a raw device
)

// formatting is one image's file system, decided and made under the image's lease.
type formatting struct {
	s        *Server
	cluster  ceph.Cluster
	pool     string
	ns       string
	image    string
	device   string
	beneath  func() (device string, from int64) // where what was never written reads as zeros
	size     storage.Bytes
	want     string // file system asked for; "" any
	options  string
	readOnly bool
}

// stateOf returns how far the making of the image's own file system came. A clone may be of
// a snapshot that is older than what its source's metadata says.
func stateOf(meta map[string]string, image string) string {
	if meta[metaImage] != image {
		return ""
	}
	return meta[metaState]
}

// ensure returns the file system that the device carries, made now if the image never
// had one. The rule (DESIGN.md): never over a signature or over data, except over what
// an unfinished mkfs of ours left on an image that was never mounted.
func (f *formatting) ensure(ctx context.Context) (string, error) {
	images := f.cluster.Images(f.pool, f.ns)
	meta, err := images.Metadata(ctx, f.image)
	if err != nil {
		return "", err
	}
	if stateOf(meta, f.image) == stateDone || f.readOnly {
		return f.existing(ctx, meta)
	}
	objects := f.cluster.Objects(f.pool, f.ns)
	fs := ""
	err = ceph.HoldImage(ctx, objects, f.image, f.s.cfg.NodeID, func(ctx context.Context) error {
		meta, err := images.Metadata(ctx, f.image) // again, now that nobody else changes it
		if err == nil {
			fs, err = f.decide(ctx, images, meta)
		}
		return err
	})
	return fs, err
}

// existing: the image has its file system, or is not ours to give one.
func (f *formatting) existing(ctx context.Context, meta map[string]string) (string, error) {
	found, err := f.s.fs.probe(ctx, f.device)
	if err != nil {
		return "", err
	}
	switch {
	case found.fs != "":
		return f.fits(found.fs)
	case found.what != "":
		return "", fault.New(fault.Precondition, "image %s/%s holds %s, no file system", f.pool, f.image, found.what)
	case stateOf(meta, f.image) == stateDone:
		return "", fault.New(fault.Precondition, "image %s/%s had a file system (%s, made by node %s) and now has none: its data is lost or overwritten; "+
			"restore it from a snapshot or backup. Holdfast makes no new file system here", f.pool, f.image, meta[metaFS], meta[metaNode])
	}
	return "", fault.New(fault.Precondition, "image %s/%s has no file system yet and is wanted read-only: mount it once for writing first", f.pool, f.image)
}

// fits refuses a file system that was not asked for.
func (f *formatting) fits(fs string) (string, error) {
	if fs != "ext4" && fs != "xfs" {
		return "", fault.New(fault.Precondition, "image %s/%s holds a file system of type %s; Holdfast mounts ext4 and xfs", f.pool, f.image, fs)
	}
	if f.want != "" && f.want != fs {
		return "", fault.New(fault.Precondition, "image %s/%s holds %s, but fs_type asks for %s", f.pool, f.image, fs, f.want)
	}
	return fs, nil
}

// decide makes the file system if that is safe. It runs under the image's lease.
func (f *formatting) decide(ctx context.Context, images ceph.Images, meta map[string]string) (string, error) {
	if stateOf(meta, f.image) == stateDone { // by whoever held the lease before
		return f.existing(ctx, meta)
	}
	found, err := f.s.fs.probe(ctx, f.device)
	if err != nil {
		return "", err
	}
	redo := stateOf(meta, f.image) == stateStarted
	switch {
	case redo && (found.what == "" || found.fs == meta[metaFS]):
		// An mkfs that was begun and never mounted: what is there is what it left.
		return f.make(ctx, images, true)
	case found.fs != "":
		fs, err := f.fits(found.fs)
		if err != nil {
			return "", err
		}
		return fs, images.SetMetadata(ctx, f.image, map[string]string{metaState: stateDone, metaFS: fs, metaNode: f.s.cfg.NodeID, metaImage: f.image})
	case found.what != "":
		return "", fault.New(fault.Precondition, "image %s/%s holds %s: Holdfast makes no file system over it", f.pool, f.image, found.what)
	}
	empty, err := blank(f.beneath())
	if err != nil {
		return "", err
	}
	if !empty {
		return "", fault.New(fault.Precondition, "image %s/%s carries no known signature, but it holds data: Holdfast makes no file system over it", f.pool, f.image)
	}
	return f.make(ctx, images, false)
}

func (f *formatting) make(ctx context.Context, images ceph.Images, force bool) (string, error) {
	fs := f.want
	if fs == "" {
		fs = defaultFS(f.size)
	}
	if fs == "xfs" && f.size < xfsMinimum {
		return "", fault.New(fault.Invalid, "fs_type xfs needs a volume of %s or more, this one has %s; take ext4", xfsMinimum, f.size)
	}
	if err := images.SetMetadata(ctx, f.image, map[string]string{metaState: stateStarted, metaFS: fs, metaNode: f.s.cfg.NodeID, metaImage: f.image}); err != nil {
		return "", err
	}
	start := time.Now()
	err := f.s.fs.make(ctx, f.device, fs, f.options, force)
	f.s.cfg.Observer.Formatted(fs, time.Since(start), err)
	if err != nil {
		return "", err
	}
	if err := images.SetMetadata(ctx, f.image, map[string]string{metaState: stateDone}); err != nil {
		return "", err
	}
	f.s.cfg.Log.Info("file system made", obs.KeyPool, f.pool, "image", f.image, "fs", fs, obs.KeyTook, time.Since(start))
	return fs, nil
}
