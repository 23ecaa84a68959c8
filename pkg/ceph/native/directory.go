package native

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
)

// The pool's list of images, an omap with "name_NAME" -> id and "id_ID" -> name, both
// values led by their length (Ceph: src/cls/rbd/cls_rbd.cc, dir_add_image).
const (
	directoryObject = ceph.ImageDirectory
	directoryName   = "name_"
)

// remove removes an image, and a name without one. Two clients at work on one image, one
// creating and one removing it, can leave a name in the directory alone: librbd finds no
// image by it and leaves it there for ever.
func remove(ioctx *rados.IOContext, name string) error {
	err := rbd.RemoveImage(ioctx, name)
	if !errors.Is(err, rbd.ErrNotFound) {
		return err
	}
	id, found := directoryEntry(ioctx, name)
	if !found {
		return err
	}
	if _, there := ioctx.Stat(ceph.ImageObject(name)); !errors.Is(there, rados.ErrNotFound) {
		return err // in the making
	}
	var e encoder
	e.text(name)
	e.text(id)
	op := rados.CreateWriteOp()
	defer op.Release()
	op.Exec("rbd", "dir_remove_image", e.body)
	return op.Operate(ioctx, directoryObject, rados.OperationNoFlag)
}

// directoryEntry returns the id that the directory has for a name.
func directoryEntry(ioctx *rados.IOContext, name string) (id string, found bool) {
	key := directoryName + name
	pairs, err := ioctx.GetOmapValues(directoryObject, "", key, 1)
	if err != nil {
		return "", false
	}
	return decodeText(pairs[key])
}

// decodeText reads a text that is led by its length, and nothing else.
func decodeText(value []byte) (text string, ok bool) {
	if len(value) < 4 || uint64(len(value)) != 4+uint64(binary.LittleEndian.Uint32(value)) {
		return "", false
	}
	return string(value[4:]), true
}

// finishRename finishes a renaming that was cut off: librbd (16.2, operation/RenameRequest.cc) writes the new name's
// object, then the directory, and removes the old name's object last. From the first step on it refuses to
// begin again. exists is returned where the new name is another image's.
func finishRename(ioctx *rados.IOContext, name, to string, exists error) error {
	old, err := idObject(ioctx, name)
	if err != nil {
		return err
	}
	taken, err := idObject(ioctx, to)
	if err != nil {
		return err
	}
	id, ok := decodeText(old)
	if !ok || !bytes.Equal(old, taken) {
		return exists
	}
	if listed, found := directoryEntry(ioctx, to); !found || listed != id {
		var e encoder
		e.text(name)
		e.text(to)
		e.text(id)
		op := rados.CreateWriteOp()
		defer op.Release()
		op.Exec("rbd", "dir_rename_image", e.body)
		if err := op.Operate(ioctx, directoryObject, rados.OperationNoFlag); err != nil {
			return fmt.Errorf("list it under its new name: %w", err)
		}
	}
	op := rados.CreateWriteOp()
	defer op.Release()
	op.CmpExt(old, 0)
	op.Remove()
	if err := op.Operate(ioctx, ceph.ImageObject(name), rados.OperationNoFlag); err != nil && !errors.Is(err, rados.ErrNotFound) {
		return fmt.Errorf("remove its old name: %w", err)
	}
	return nil
}

// idObject reads what leads from a name to an image.
func idObject(ioctx *rados.IOContext, name string) ([]byte, error) {
	data := make([]byte, 1024)
	n, err := ioctx.Read(ceph.ImageObject(name), data, 0)
	if err != nil {
		return nil, fmt.Errorf("read the id behind %s: %w", name, err)
	}
	return data[:n], nil
}
