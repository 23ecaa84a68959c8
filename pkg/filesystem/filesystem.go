// Package filesystem makes, mounts and grows ext4 and xfs on a block device, and reads their size from the
// file system itself.
//
// It must not import the other node adapters.
package filesystem

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"unsafe"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// The file systems.
const (
	Ext4 = "ext4"
	XFS  = "xfs"
)

// Tool is the programs of e2fsprogs and xfsprogs.
type Tool struct{ Run command.Runner }

// superblocks is how much of a device's start holds the superblocks of both.
const superblocks = 4096

// Info is a file system as its superblock says.
type Info struct {
	Type string // "" for none that is known here
	Size storage.Bytes
	// Group is that of ext4: what the end of a device may lack when it would be too short a group. 0 for xfs.
	Group storage.Bytes
}

// Probe reads the superblock on a device. The size of a mounted xfs lags behind: see MountedSize.
func Probe(device string) (Info, error) {
	f, err := os.Open(device)
	if err != nil {
		return Info{}, fmt.Errorf("read superblock: %w", err)
	}
	defer f.Close()
	buf := make([]byte, superblocks)
	if n, err := f.ReadAt(buf, 0); err != nil && (!errors.Is(err, io.EOF) || n == 0) {
		return Info{}, fmt.Errorf("read superblock of %s: %w", device, err)
	}
	return parse(buf), nil
}

// parse knows ext4's superblock (Documentation/filesystems/ext4/super.rst: at 1024; s_blocks_count_lo at 4,
// s_log_block_size at 0x18, s_blocks_per_group at 0x20, s_magic at 0x38, s_blocks_count_hi at 0x150) and xfs's
// (xfs_format.h, struct xfs_dsb: big endian; sb_blocksize at 4, sb_dblocks at 8, sb_inprogress at 126: mkfs has not ended).
func parse(buf []byte) Info {
	if len(buf) < superblocks {
		return Info{}
	}
	if string(buf[:4]) == "XFSB" && buf[126] == 0 {
		return sized(XFS, binary.BigEndian.Uint64(buf[8:]), uint64(binary.BigEndian.Uint32(buf[4:])))
	}
	ext := buf[1024:]
	if binary.LittleEndian.Uint16(ext[0x38:]) == 0xef53 {
		blocks := uint64(binary.LittleEndian.Uint32(ext[4:])) | uint64(binary.LittleEndian.Uint32(ext[0x150:]))<<32
		block := uint64(1024) << min(binary.LittleEndian.Uint32(ext[0x18:]), 16)
		info := sized(Ext4, blocks, block)
		info.Group = storage.Bytes(uint64(binary.LittleEndian.Uint32(ext[0x20:])) * block)
		return info
	}
	return Info{}
}

// sized is blocks times size, nothing where that is more than a device can have.
func sized(kind string, blocks, size uint64) Info {
	if size == 0 || blocks > 1<<62/size {
		return Info{}
	}
	return Info{Type: kind, Size: storage.Bytes(blocks * size)}
}

// Make makes a file system.
func (t Tool) Make(ctx context.Context, kind, device string) error {
	args := map[string][]string{Ext4: {"-q", "-F", device}, XFS: {"-q", "-f", device}}[kind]
	if args == nil {
		return fault.New(fault.Invalid, "file system %q: want ext4 or xfs", kind)
	}
	if _, err := t.Run.Run(ctx, command.Cmd{Name: "mkfs." + kind, Args: args}); err != nil {
		return fmt.Errorf("make %s on %s: %w", kind, device, err)
	}
	return nil
}

// MountedFrom reports whether a device is mounted at a path: fault.Precondition if something else is.
func MountedFrom(device, path string) (bool, error) {
	resolved, err := filepath.EvalSymlinks(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look at mount point: %w", err)
	}
	mounts, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) { return m.Mountpoint != resolved, false })
	if err != nil || len(mounts) == 0 {
		return false, err
	}
	var stat unix.Stat_t
	if err := unix.Stat(device, &stat); err != nil {
		return false, fmt.Errorf("look at %s: %w", device, err)
	}
	if m := mounts[len(mounts)-1]; m.Major != int(unix.Major(stat.Rdev)) || m.Minor != int(unix.Minor(stat.Rdev)) {
		return false, fault.New(fault.Precondition, "%s is mounted at %s, not %s", m.Source, path, device)
	}
	return true, nil
}

// Mount mounts a device, making the directory.
func Mount(kind, device, path string) error {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return fmt.Errorf("mount %s: %w", device, err)
	}
	if err := unix.Mount(device, path, kind, unix.MS_NOATIME, ""); err != nil {
		return fmt.Errorf("mount %s at %s: %w", device, path, err)
	}
	return nil
}

// Unmount ends a mount.
func Unmount(path string) error {
	if err := unix.Unmount(path, 0); err != nil {
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	return nil
}

// Grow makes a mounted file system as large as its device (resize2fs(8), xfs_growfs(8): both work online, xfs only so).
func (t Tool) Grow(ctx context.Context, kind, device, path string) error {
	cmd := command.Cmd{Name: "resize2fs", Args: []string{device}}
	if kind == XFS {
		cmd = command.Cmd{Name: "xfs_growfs", Args: []string{"-d", path}}
	}
	if _, err := t.Run.Run(ctx, cmd); err != nil {
		return fmt.Errorf("grow %s on %s: %w", kind, device, err)
	}
	return nil
}

// geometry is XFS_IOC_FSGEOMETRY_V1 (xfs_fs.h): _IOR('X', 100, struct xfs_fsop_geom_v1), 112 bytes; blocksize is its
// first field, datablocks lies at 32.
const geometry = 2<<30 | 112<<16 | 'X'<<8 | 100

// MountedSize is the size of the file system that is mounted at a path, as the kernel has it now; device is what it
// lies on.
func MountedSize(kind, device, path string) (storage.Bytes, error) {
	if kind != XFS {
		info, err := Probe(device) // ext4 changes its superblock in the device's cache
		return info.Size, err
	}
	f, err := os.Open(path)
	if err != nil {
		return 0, fmt.Errorf("read size of xfs: %w", err)
	}
	defer f.Close()
	var buf [112]byte
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), geometry, uintptr(unsafe.Pointer(&buf[0]))); errno != 0 { //nolint:gosec // the form that ioctl(2) has, as package unix documents it
		return 0, fmt.Errorf("read size of xfs at %s: %w", path, errno)
	}
	return sized(XFS, binary.NativeEndian.Uint64(buf[32:]), uint64(binary.NativeEndian.Uint32(buf[:]))).Size, nil
}
