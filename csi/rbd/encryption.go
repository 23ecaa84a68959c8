package rbd

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/holdfast-storage/holdfast/csi/clustermap"
	"github.com/holdfast-storage/holdfast/csi/kms"
	"github.com/holdfast-storage/holdfast/csi/luks"
	"github.com/holdfast-storage/holdfast/csi/record"
	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// An encrypted volume's image begins with a LUKS2 header, which is added to its size. The key
// is random, one a volume, and known to no one but by what wraps it: see csi/kms. Nodes
// find it in the image's metadata.

// imageSize is the size of the image of a volume of size bytes.
func imageSize(r *record.Record, size storage.Bytes) storage.Bytes {
	if r.Encryption != nil {
		return size + luks.HeaderSize
	}
	return size
}

// planEncryption gives a new volume its key, if it is to have one. A copy has its source's.
func planEncryption(ctx context.Context, site clustermap.Site, r *record.Record) error {
	wanted := r.Parameters["encrypted"] == "true"
	switch {
	case r.Origin != nil && wanted != (r.Encryption != nil):
		return fault.New(fault.Invalid, "parameter \"encrypted\": the source is encrypted: %v, asked for is %v; a copy shares its source's data, so copy it through a pod that mounts both",
			r.Encryption != nil, wanted)
	case r.Origin != nil || !wanted:
		return nil
	}
	var key [32]byte
	_, _ = rand.Read(key[:]) // crypto/rand never fails (it ends the program)
	wrapped, err := site.Keys.Wrap(ctx, r.Parameters["encryptionKMSID"], storage.NewSecret(hex.EncodeToString(key[:])))
	if err != nil {
		return err
	}
	r.Encryption = &wrapped
	return nil
}

// seal writes the header. The volume is not Ready yet: nothing was written under an earlier one.
func (b *Backend) seal(ctx context.Context, site clustermap.Site, images ceph.Images, r *record.Record) error {
	key, err := site.Keys.Unwrap(ctx, *r.Encryption)
	if err != nil {
		return err
	}
	if err := noteKey(ctx, images, r); err != nil {
		return err
	}
	header, err := luks.Header(ctx, b.Runner, key)
	if err != nil {
		return err
	}
	return images.Write(ctx, r.BackendName(), 0, header)
}

// noteKey puts the wrapped key where nodes find it.
func noteKey(ctx context.Context, images ceph.Images, r *record.Record) error {
	data, err := json.Marshal(r.Encryption)
	if err != nil {
		return fmt.Errorf("encode the wrapped key: %w", err)
	}
	return images.SetMetadata(ctx, r.BackendName(), map[string]string{kms.ImageMetadata: string(data)})
}

// Rewrap wraps the key of a volume or snapshot anew: by the KMS of the StorageClass as it is now. The data
// stays as it is, under the same key; a key that somebody may have seen is changed only by copying
// the data to a new volume.
func (b *Backend) Rewrap(ctx context.Context, site clustermap.Site, r *record.Record) error {
	if r.Encryption == nil {
		return fault.New(fault.Precondition, "%s %q is not encrypted", r.Kind, r.Name)
	}
	key, err := site.Keys.Unwrap(ctx, *r.Encryption)
	if err != nil {
		return err
	}
	wrapped, err := site.Keys.Wrap(ctx, r.Encryption.KMS, key)
	if err != nil {
		return err
	}
	r.Encryption = &wrapped
	if r.Kind == record.KindSnapshot {
		return nil // volumes made from it take the key from its record
	}
	images, err := images(ctx, site, r)
	if err != nil {
		return err
	}
	return noteKey(ctx, images, r)
}

// fillSeam gives a copy that is larger than its source objects where the source ends. librbd
// (16.2) opens an encrypted image with its header cut off, but still compares offsets with the size
// of the whole parent: it asks the parent for objects up to a header's length behind the parent's
// end, and answers EINVAL. An object of its own is not asked for. Nobody uses the volume yet; zeros
// are as good a content as what a fresh encrypted device shows.
// source is the size of the parent's image, its header included.
func fillSeam(ctx context.Context, images ceph.Images, r *record.Record, source storage.Bytes) error {
	length := min(luks.HeaderSize, imageSize(r, r.Size)-source)
	return images.Write(ctx, r.BackendName(), uint64(source), make([]byte, length))
}

// growable refuses to grow an encrypted copy that still shares its source's data: see fillSeam.
// Zeros cannot be written there any more, since a node may have the volume.
func growable(ctx context.Context, images ceph.Images, r *record.Record) error {
	if r.Encryption == nil || r.Origin == nil {
		return nil
	}
	info, err := images.Info(ctx, r.BackendName())
	if err != nil || info.Parent.Image == "" {
		return err
	}
	return fault.New(fault.Precondition, "volume %q is an encrypted copy that still shares its source's data, and librbd fails behind that data's end: "+
		"run `rbd flatten` on image %s while no pod uses it, then it grows; or restore to the larger size at once", r.Name, r.BackendName())
}
