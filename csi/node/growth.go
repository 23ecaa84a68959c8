package node

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// mountGrown mounts an image on its staging path and lets the file system fill it: the image of a
// restored snapshot or a clone may be larger than the source's file system, and of a volume that
// was expanded while no node had it. Nobody calls NodeExpandVolume for those.
func (s *Server) mountGrown(ctx context.Context, v *staged, flags []string, size storage.Bytes) error {
	if v.ReadOnly {
		return s.mountImage(v, flags)
	}
	device := v.Device.Path
	if err := s.fs.check(ctx, device, v.FS); err != nil {
		return err
	}
	small, err := smaller(device, v.FS, size)
	if err != nil {
		return err
	}
	if small && v.FS == "ext4" { // unmounted: online it needs CAP_SYS_RESOURCE
		if err := s.fs.growUnmounted(ctx, device); err != nil {
			return err
		}
	}
	if err := s.mountImage(v, flags); err != nil {
		return err
	}
	if small && v.FS == "xfs" { // which grows mounted alone
		if err := s.fs.grow(ctx, device, v.FS, v.Staging); err != nil {
			return errors.Join(err, s.mounts.Drop(v.Staging))
		}
	}
	return nil
}

// smaller reports whether a file system leaves 1 MiB or more of its device unused; less may be a
// rest that it cannot use.
func smaller(device, fs string, size storage.Bytes) (bool, error) {
	read := ext4Size
	if fs == "xfs" {
		read = xfsSize
	}
	have, err := read(device)
	return err == nil && have+storage.MiB <= size, err
}

// xfsSize reads the size of the file system from its superblock, big endian: the block size at
// byte 4, the number of blocks at byte 8. Growth that is still in the log alone is missed, which
// costs a needless xfs_growfs.
// https://docs.kernel.org/filesystems/xfs/ondisk-structures.html (xfs_dsb)
func xfsSize(device string) (storage.Bytes, error) {
	f, err := os.Open(device)
	if err != nil {
		return 0, fmt.Errorf("read superblock: %w", err)
	}
	defer f.Close()
	super := make([]byte, 16)
	if _, err := f.ReadAt(super, 0); err != nil {
		return 0, fmt.Errorf("read superblock of %s: %w", device, err)
	}
	if string(super[:4]) != "XFSB" {
		return 0, fault.New(fault.Precondition, "%s holds no xfs", device)
	}
	block, blocks := uint64(binary.BigEndian.Uint32(super[4:])), binary.BigEndian.Uint64(super[8:])
	if block < 512 || block > 64<<10 || blocks > 1<<47 {
		return 0, fault.New(fault.Precondition, "the superblock of %s makes no sense", device)
	}
	return storage.Bytes(blocks * block), nil
}
