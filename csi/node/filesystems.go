package node

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// filesystems runs the tools of ext4 and xfs.
type filesystems struct{ run command.Runner }

// xfsMinimum is the smallest file system that mkfs.xfs makes (xfsprogs 5.19 and later).
const xfsMinimum = 300 * storage.MiB

// signature is what a device carries.
type signature struct {
	fs   string // "ext4", "xfs" or another type of file system; "" if it is none
	what string // for messages: any signature at all, "" on an empty device
}

// blkid's exit codes in low-level probing (blkid(8)): 0 something was found, 2 nothing
// was (or the device cannot be read), 8 several things that exclude each other.
const blkidNothing = 2

// probe looks for any signature: file system, RAID, partition table, encryption.
// Everything but a certain "nothing" counts as a signature or is an error.
func (f *filesystems) probe(ctx context.Context, device string) (signature, error) {
	result, err := f.run.Run(ctx, command.Cmd{Name: "blkid", Args: []string{"-p", "-o", "export", device}})
	switch code := command.ExitCode(err); {
	case err == nil:
	case code == blkidNothing:
		if err := readable(device); err != nil {
			return signature{}, err
		}
		return signature{}, nil
	case code == 8:
		return signature{what: "several signatures that contradict each other"}, nil
	default:
		return signature{}, fmt.Errorf("probe %s: %w", device, err)
	}
	s := signature{what: "data of an unknown kind"}
	values := map[string]string{}
	for _, line := range strings.Split(string(result.Stdout), "\n") {
		if key, value, ok := strings.Cut(line, "="); ok {
			values[key] = value
		}
	}
	switch {
	case values["USAGE"] == "filesystem":
		s.fs, s.what = values["TYPE"], "a file system of type "+values["TYPE"]
	case values["TYPE"] != "":
		s.what = values["TYPE"]
	case values["PTTYPE"] != "":
		s.what = "a partition table (" + values["PTTYPE"] + ")"
	}
	return s, nil
}

// readable tells an empty device from one that cannot be read: blkid has one code for both.
func readable(device string) error {
	f, err := os.Open(device)
	if err != nil {
		return fmt.Errorf("probe %s: %w", device, err)
	}
	defer f.Close()
	if _, err := f.ReadAt(make([]byte, 4096), 0); err != nil {
		return fmt.Errorf("probe %s: %w", device, err)
	}
	return nil
}

// blank reports whether the first and the last 4 MiB are zero, read from the device
// itself: what blkid does not know is no reason to overwrite it.
func blank(device string, from int64) (bool, error) {
	f, err := os.Open(device)
	if err != nil {
		return false, fmt.Errorf("read %s: %w", device, err)
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return false, fmt.Errorf("read %s: %w", device, err)
	}
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) // not what a cache remembers
	const window = 4 << 20
	zero := make([]byte, 1<<20)
	buffer := make([]byte, len(zero))
	for _, start := range []int64{from, max(from, size-window)} {
		for off := start; off < min(start+window, size); off += int64(len(buffer)) {
			n, err := f.ReadAt(buffer[:min(int64(len(buffer)), size-off)], off)
			if err != nil && !errors.Is(err, io.EOF) {
				return false, fmt.Errorf("read %s: %w", device, err)
			}
			if !bytes.Equal(buffer[:n], zero[:n]) {
				return false, nil
			}
		}
	}
	return true, nil
}

// defaultFS: xfs grows online everywhere, ext4 needs CAP_SYS_RESOURCE for that, which
// containers often lack; below xfs's minimum there is only ext4.
func defaultFS(size storage.Bytes) string {
	if size >= xfsMinimum {
		return "xfs"
	}
	return "ext4"
}

// make makes a file system; force overwrites an earlier attempt.
func (f *filesystems) make(ctx context.Context, device, fs, options string, force bool) error {
	cmd := command.Cmd{Name: "mkfs." + fs}
	switch fs {
	case "ext4":
		// -F: a whole device; no discard, a fresh image holds nothing to give back.
		cmd.Args = []string{"-q", "-F", "-m0", "-Enodiscard,lazy_itable_init=1,lazy_journal_init=1"}
	case "xfs":
		cmd.Args = []string{"-q", "-K"}
		if force {
			cmd.Args = append(cmd.Args, "-f")
		}
	default:
		return fault.New(fault.Invalid, "file system %q: want ext4 or xfs", fs)
	}
	cmd.Args = append(append(cmd.Args, strings.Fields(options)...), device)
	if _, err := f.run.Run(ctx, cmd); err != nil {
		return fmt.Errorf("make %s on %s: %w", fs, device, err)
	}
	return nil
}

// check repairs what is safe to repair without asking. The exit codes are e2fsck(8)'s:
// 1 and 2 mean corrected, 4 errors left. xfs checks its log at mount and has nothing to do here.
func (f *filesystems) check(ctx context.Context, device, fs string) error {
	if fs != "ext4" {
		return nil
	}
	_, err := f.run.Run(ctx, command.Cmd{Name: "e2fsck", Args: []string{"-p", device}})
	switch code := command.ExitCode(err); {
	case err == nil, code == 1, code == 2, code == 3:
		return nil
	case code > 0 && code&4 != 0:
		return fault.New(fault.Precondition, "the file system on %s has errors that need a decision: "+
			"take a snapshot of the image, then run `e2fsck -f` on it by hand: %w", device, err)
	}
	return fmt.Errorf("check %s: %w", device, err)
}

// mountError adds advice to what mount(2) says.
func mountError(fs, device string, err error) error {
	if errors.Is(err, unix.EUCLEAN) && fs == "xfs" {
		return fault.As(fault.Precondition, fmt.Errorf("%w: the xfs on %s is damaged: take a snapshot of the image, then run `xfs_repair` on it by hand", err, device))
	}
	if errors.Is(err, unix.ENODEV) {
		return fault.As(fault.Unsupported, fmt.Errorf("%w: the kernel of this node does not know %s (modprobe %s)", err, fs, fs))
	}
	return err
}

// grow makes a mounted file system as large as its device.
func (f *filesystems) grow(ctx context.Context, device, fs, mountpoint string) error {
	if fs == "xfs" {
		if _, err := f.run.Run(ctx, command.Cmd{Name: "xfs_growfs", Args: []string{"-d", mountpoint}}); err != nil {
			return fmt.Errorf("grow xfs at %s: %w", mountpoint, err)
		}
		return nil
	}
	_, err := f.run.Run(ctx, command.Cmd{Name: "resize2fs", Args: []string{device}})
	if err != nil && !mayGrowOnline() {
		return fault.New(fault.Precondition, "grow ext4 on %s: the kernel refuses online growth because this process lacks CAP_SYS_RESOURCE; "+
			"the device is grown already, and the file system grows when the volume is staged next: restart the pod (or use xfs): %w", device, err)
	}
	if err != nil {
		return fmt.Errorf("grow ext4 on %s: %w", device, err)
	}
	return nil
}

// mayGrowOnline reports whether the process has CAP_SYS_RESOURCE, which ext4's resize
// ioctl wants (fs/ext4/ioctl.c, ext4_resize_begin).
func mayGrowOnline() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if unix.Capget(&header, &data[0]) != nil {
		return true // not known: let the kernel's own answer stand
	}
	return data[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0
}

// growUnmounted grows an ext4 before it is mounted.
func (f *filesystems) growUnmounted(ctx context.Context, device string) error {
	if _, err := f.run.Run(ctx, command.Cmd{Name: "e2fsck", Args: []string{"-f", "-p", device}}); err != nil && command.ExitCode(err) > 3 || command.ExitCode(err) < 0 {
		return fmt.Errorf("check %s before growing: %w", device, err)
	}
	if _, err := f.run.Run(ctx, command.Cmd{Name: "resize2fs", Args: []string{device}}); err != nil {
		return fmt.Errorf("grow ext4 on %s: %w", device, err)
	}
	return nil
}

// ext4Size reads the size of the file system from the superblock, which begins at byte
// 1024: blocks at 0x4 and (high half) 0x150, log2 of the block size less 10 at 0x18.
// https://docs.kernel.org/filesystems/ext4/super.html
func ext4Size(device string) (storage.Bytes, error) {
	f, err := os.Open(device)
	if err != nil {
		return 0, fmt.Errorf("read superblock: %w", err)
	}
	defer f.Close()
	super := make([]byte, 1024)
	if _, err := f.ReadAt(super, 1024); err != nil {
		return 0, fmt.Errorf("read superblock of %s: %w", device, err)
	}
	const magic = 0xEF53
	if binary.LittleEndian.Uint16(super[0x38:]) != magic {
		return 0, fault.New(fault.Precondition, "%s holds no ext4", device)
	}
	blocks := uint64(binary.LittleEndian.Uint32(super[0x4:]))
	const incompat64bit = 0x80
	if binary.LittleEndian.Uint32(super[0x60:])&incompat64bit != 0 {
		blocks |= uint64(binary.LittleEndian.Uint32(super[0x150:])) << 32
	}
	shift := binary.LittleEndian.Uint32(super[0x18:]) + 10
	if shift > 16 || blocks > 1<<47 {
		return 0, fault.New(fault.Precondition, "the superblock of %s makes no sense", device)
	}
	return storage.Bytes(blocks << shift), nil
}
