package native

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"github.com/ceph/go-ceph/rados"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// The OSD class "rbd" answers questions on an image's header "rbd_header.ID" (Ceph:
// src/include/rbd_types.h, src/cls/rbd/cls_rbd.cc).
const (
	headerObject = "rbd_header."
	// head is what the class calls the image as it is now, no snapshot of it (CEPH_NOSNAP).
	head = ^uint64(1)
)

// header returns the name of the image's header object.
func header(ioctx *rados.IOContext, name string) (string, error) {
	data, err := idObject(ioctx, name)
	if err != nil {
		return "", err
	}
	id, ok := decodeText(data)
	if !ok {
		return "", fmt.Errorf("object %s holds no image id", ceph.ImageObject(name))
	}
	return headerObject + id, nil
}

// askHeader calls a method of the class that only reads.
func askHeader(ioctx *rados.IOContext, object, method string, in []byte) ([]byte, error) {
	op := rados.CreateReadOp()
	defer op.Release()
	step := op.Exec("rbd", method, in)
	if err := op.Operate(ioctx, object, rados.OperationNoFlag); err != nil {
		return nil, err
	}
	return step.Bytes()
}

// Size asks get_size (u64 snapshot -> u8 order, u64 bytes).
func (i *images) Size(ctx context.Context, name string) (storage.Bytes, error) {
	return call(ctx, i.cluster, "ask the size of image "+i.path(name), func() (size storage.Bytes, err error) {
		err = i.cluster.withPool(i.pool, i.namespace, func(ioctx *rados.IOContext) error {
			object, err := header(ioctx, name)
			if err != nil {
				return err
			}
			answer, err := askHeader(ioctx, object, "get_size", binary.LittleEndian.AppendUint64(nil, head))
			if err != nil {
				return err
			}
			if len(answer) < 9 {
				return fmt.Errorf("%s: the size has %d bytes, not 9", object, len(answer))
			}
			size = storage.Bytes(binary.LittleEndian.Uint64(answer[1:]))
			return nil
		})
		return size, err
	})
}

// metadataPage is how many pairs are asked for at once; the class itself reads 64 at a time.
const metadataPage = 64

// Metadata asks metadata_list (text last key, u64 how many -> pairs in the order of their keys).
func (i *images) Metadata(ctx context.Context, name string) (map[string]string, error) {
	return call(ctx, i.cluster, "read metadata of image "+i.path(name), func() (pairs map[string]string, err error) {
		err = i.cluster.withPool(i.pool, i.namespace, func(ioctx *rados.IOContext) error {
			object, err := header(ioctx, name)
			if err != nil {
				return err
			}
			pairs = map[string]string{}
			for last := ""; ; {
				var in encoder
				in.text(last)
				in.body = binary.LittleEndian.AppendUint64(in.body, metadataPage)
				answer, err := askHeader(ioctx, object, "metadata_list", in.body)
				if err != nil {
					return err
				}
				page, ok := decodePairs(answer)
				if !ok {
					return fmt.Errorf("%s: metadata that cannot be read", object)
				}
				for key, value := range page {
					pairs[key], last = value, max(last, key)
				}
				if len(page) < metadataPage {
					return nil
				}
			}
		})
		return pairs, err
	})
}

// SetMetadata calls metadata_set, which takes all pairs in one write. librbd, opening the image, would
// write them one by one and tell all who have it open, of whom none cares: only keys that begin with
// "conf_" are settings of librbd's own.
func (i *images) SetMetadata(ctx context.Context, name string, pairs map[string]string) error {
	return i.do(ctx, "set metadata of", name, func(ioctx *rados.IOContext) error {
		return setMetadata(ioctx, name, pairs)
	})
}

func setMetadata(ioctx *rados.IOContext, name string, pairs map[string]string) error {
	if len(pairs) == 0 {
		return nil
	}
	object, err := header(ioctx, name)
	if err != nil {
		return err
	}
	op := rados.CreateWriteOp()
	defer op.Release()
	op.AssertExists()
	op.Exec("rbd", "metadata_set", encodePairs(pairs))
	return op.Operate(ioctx, object, rados.OperationNoFlag)
}

// encodePairs and decodePairs are Ceph's form of a map: a u32 count, then each key and each value
// led by its length.
func encodePairs(pairs map[string]string) []byte {
	var e encoder
	e.u32(uint32(len(pairs)))
	for _, key := range slices.Sorted(maps.Keys(pairs)) {
		e.text(key)
		e.text(pairs[key])
	}
	return e.body
}

func decodePairs(data []byte) (pairs map[string]string, ok bool) {
	all := decoder{rest: data}
	pairs = map[string]string{}
	for range all.u32() {
		key, value := all.text(), all.text()
		if all.err != nil {
			break
		}
		pairs[key] = value
	}
	return pairs, all.err == nil
}
