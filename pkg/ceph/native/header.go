package native

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/ceph/go-ceph/rados"

	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// The OSD class "rbd" answers questions on an image's header "rbd_header.ID" (Ceph:
// src/include/rbd_types.h, src/cls/rbd/cls_rbd.cc).
const (
	headerObject = "rbd_header."
	// head is what the class calls the image as it is now, no snapshot of it (CEPH_NOSNAP).
	head = ^uint64(1)
)

// Size asks the class's get_size (u64 snapshot -> u8 order, u64 bytes).
func (i *images) Size(ctx context.Context, name string) (storage.Bytes, error) {
	return call(ctx, i.cluster, "ask the size of image "+i.path(name), func() (size storage.Bytes, err error) {
		err = i.cluster.withPool(i.pool, i.namespace, func(ioctx *rados.IOContext) error {
			data, err := idObject(ioctx, name)
			if err != nil {
				return err
			}
			id, ok := decodeText(data)
			if !ok {
				return fmt.Errorf("object rbd_id.%s holds no image id", name)
			}
			op := rados.CreateReadOp()
			defer op.Release()
			step := op.Exec("rbd", "get_size", binary.LittleEndian.AppendUint64(nil, head))
			if err := op.Operate(ioctx, headerObject+id, rados.OperationNoFlag); err != nil {
				return err
			}
			answer, err := step.Bytes()
			if err != nil {
				return fmt.Errorf("read the answer: %w", err)
			}
			if len(answer) < 9 {
				return fmt.Errorf("%s%s: the size has %d bytes, not 9", headerObject, id, len(answer))
			}
			size = storage.Bytes(binary.LittleEndian.Uint64(answer[1:]))
			return nil
		})
		return size, err
	})
}
