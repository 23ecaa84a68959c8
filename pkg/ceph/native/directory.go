package native

import (
	"encoding/binary"
	"errors"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
)

// The pool's list of images, an omap with "name_NAME" -> id and "id_ID" -> name, both
// values led by their length (Ceph: src/cls/rbd/cls_rbd.cc, dir_add_image).
const (
	directoryObject = "rbd_directory"
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
	if _, there := ioctx.Stat("rbd_id." + name); !errors.Is(there, rados.ErrNotFound) {
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
	value := pairs[key]
	if err != nil || len(value) < 4 || uint64(len(value)) != 4+uint64(binary.LittleEndian.Uint32(value)) {
		return "", false
	}
	return string(value[4:]), true
}
