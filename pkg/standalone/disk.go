package standalone

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// A disk is taken only when everything says that nobody has anything on it: a stable
// name, a whole disk without partitions, holders or mounts, no signature that blkid
// knows, and zeros where the others have theirs. Nothing here ever writes to a disk.

// disk is a block device behind a stable name.
type disk struct {
	name string // as the user gave it
	dev  string // "/dev/sdb"
	sys  string // "/sys/dev/block/8:16"
	num  uint64
}

// zeroSpan is what must be zero at both ends: it covers MBR, GPT and its backup, LVM and
// md superblocks, the label of BlueStore, and the first superblocks of all file systems.
const zeroSpan = 4 * storage.MiB

func openDisk(name string) (disk, error) {
	d := disk{name: name}
	if dir := filepath.Dir(name); dir != "/dev/disk/by-id" && dir != "/dev/disk/by-path" {
		return d, fault.New(fault.Invalid, "--disk %s: want a name below /dev/disk/by-id or /dev/disk/by-path, because names such as sdb change from boot to boot; `ls -l /dev/disk/by-id` shows them", name)
	}
	dev, err := filepath.EvalSymlinks(name)
	if errors.Is(err, os.ErrNotExist) {
		return d, fault.New(fault.NotFound, "--disk %s: there is no such disk", name)
	}
	if err != nil {
		return d, fmt.Errorf("resolve --disk %s: %w", name, err)
	}
	var stat unix.Stat_t
	if err := unix.Stat(dev, &stat); err != nil {
		return d, fmt.Errorf("look at --disk %s: %w", name, err)
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFBLK {
		return d, fault.New(fault.Invalid, "--disk %s: %s is not a block device", name, dev)
	}
	d.dev, d.num = dev, stat.Rdev
	d.sys = fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(d.num), unix.Minor(d.num))
	return d, nil
}

// checkBlankDisks refuses disks that are not certainly free to use, and returns the
// identities of those that are.
func checkBlankDisks(ctx context.Context, runner command.Runner, names []string) ([]string, error) {
	seen := map[uint64]string{}
	identities := make([]string, 0, len(names))
	for _, name := range names {
		d, err := openDisk(name)
		if err != nil {
			return nil, err
		}
		if other, twice := seen[d.num]; twice {
			return nil, fault.New(fault.Invalid, "--disk %s and --disk %s are the same disk, %s", other, name, d.dev)
		}
		seen[d.num] = name
		if err := d.checkBlank(ctx, runner); err != nil {
			return nil, err
		}
		identities = append(identities, d.identity())
	}
	return identities, nil
}

func (d disk) checkBlank(ctx context.Context, runner command.Runner) error {
	if err := errors.Join(d.checkKernel(), d.checkContent(ctx, runner)); err != nil {
		return fmt.Errorf("--disk %s (%s) is refused, nothing was written to it: %w", d.name, d.dev, err)
	}
	return nil
}

// wholeDisk are the kernel's names of disks that are hardware, or a virtual machine's: SCSI
// and SATA, NVMe, virtio, Xen, eMMC without its boot areas. What is made of other devices
// (dm, md, zram, nbd, rbd) is none. A loop device is taken too: udev gives it no name
// below by-id, so somebody made the one that was given on purpose.
var wholeDisk = regexp.MustCompile(`^(sd[a-z]+|nvme[0-9]+n[0-9]+|vd[a-z]+|xvd[a-z]+|mmcblk[0-9]+|loop[0-9]+)$`)

// checkKind refuses devices that are no disk of this machine for good.
func (d disk) checkKind() error {
	path, err := filepath.EvalSymlinks(d.sys)
	if err != nil {
		return fmt.Errorf("find its device: %w", err)
	}
	if name := filepath.Base(path); !wholeDisk.MatchString(name) {
		return fault.New(fault.Precondition, "%s is no disk that can be taken: want SCSI, SATA, NVMe, virtio, Xen or eMMC", name)
	}
	if removable, err := os.ReadFile(d.sys + "/removable"); err == nil && strings.TrimSpace(string(removable)) == "1" {
		return fault.New(fault.Precondition, "it is removable: a disk that is to stay is wanted")
	}
	return nil
}

// checkKernel asks the kernel who uses the disk.
func (d disk) checkKernel() error {
	if _, err := os.Stat(d.sys + "/partition"); err == nil {
		return fault.New(fault.Precondition, "it is a partition: whole disks alone are taken")
	}
	if err := d.checkKind(); err != nil {
		return err
	}
	if ro, err := os.ReadFile(d.sys + "/ro"); err != nil || strings.TrimSpace(string(ro)) != "0" {
		return fault.New(fault.Precondition, "it is read-only")
	}
	for what, pattern := range map[string]string{"has partitions": "/*/partition", "is used by another device": "/holders/*", "is made of other devices": "/slaves/*"} {
		found, err := filepath.Glob(d.sys + pattern)
		if err != nil || len(found) > 0 {
			return fault.New(fault.Busy, "it %s: %s", what, strings.Join(found, ", "))
		}
	}
	mounts, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		return unix.Mkdev(uint32(m.Major), uint32(m.Minor)) != d.num && m.Source != d.dev && m.Source != d.name, false
	})
	if err != nil {
		return fmt.Errorf("read mounts: %w", err)
	}
	if len(mounts) > 0 {
		return fault.New(fault.Busy, "it is mounted at %s", mounts[0].Mountpoint)
	}
	return nil
}

// openExclusively opens for reading what nobody else has: the kernel refuses a disk in use
// (swap, LVM, md, a mount in another namespace).
func (d disk) openExclusively() (*os.File, error) {
	f, err := os.OpenFile(d.dev, os.O_RDONLY|unix.O_EXCL, 0)
	if errors.Is(err, unix.EBUSY) {
		return nil, fault.New(fault.Busy, "something has it open exclusively (swap, LVM, md, a mount)")
	}
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	return f, nil
}

// checkContent looks for signatures, and for zeros where others have their data.
func (d disk) checkContent(ctx context.Context, runner command.Runner) error {
	f, err := d.openExclusively()
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Errorf("read size: %w", err)
	}
	if storage.Bytes(size) < MinOSDSize {
		return fault.New(fault.Range, "it has %s: want at least %s", storage.Bytes(size), MinOSDSize)
	}
	result, err := runner.Run(ctx, command.Cmd{Name: "blkid", Args: []string{"--probe", "--output", "export", d.dev}})
	// blkid(8): 2 means that nothing was found; everything else is a reason to keep away
	if code := command.ExitCode(err); code != 2 {
		if err != nil {
			return fmt.Errorf("look for signatures: %w", err)
		}
		return fault.New(fault.Precondition, "it carries a signature: %s; %s", strings.Join(strings.Fields(string(result.Stdout)), " "), d.advice(size))
	}
	for _, at := range []int64{0, size - int64(zeroSpan)} {
		span := make([]byte, zeroSpan)
		if _, err := f.ReadAt(span, at); err != nil {
			return fmt.Errorf("read at %d: %w", at, err)
		}
		if len(bytes.Trim(span, "\x00")) > 0 {
			return fault.New(fault.Precondition, "it is not blank: there is data in the %s at byte %d; %s", zeroSpan, at, d.advice(size))
		}
	}
	return nil
}

// advice says how a disk of size bytes becomes blank.
func (d disk) advice(size int64) string {
	return fmt.Sprintf("if nothing on it is needed any more, make it blank, which destroys all that is on it:\n"+
		"  wipefs --all %[1]s\n  blkdiscard --zeroout --length %[2]d %[1]s\n  blkdiscard --zeroout --offset %[3]d --length %[2]d %[1]s",
		d.name, int64(zeroSpan), size-int64(zeroSpan))
}

// blueStoreMagic begins the label of an OSD's disk; its UUID follows
// (bluestore_bdev_label_t and BlueStore::_write_bdev_label, os/bluestore).
const blueStoreMagic = "bluestore block device\n"

// checkOurs accepts a disk on which a mkfs of ours was begun: with the label of this
// very OSD, which is the first thing that a mkfs writes, or blank still.
func (d disk) checkOurs(ctx context.Context, runner command.Runner, uuid string) error {
	refuse := func(err error) error {
		return fmt.Errorf("--disk %s (%s) is refused, nothing was written to it: %w", d.name, d.dev, err)
	}
	if err := d.checkKernel(); err != nil {
		return refuse(err)
	}
	labelled, err := d.labelled(uuid)
	if err != nil {
		return refuse(err)
	}
	if labelled {
		return nil
	}
	return d.checkBlank(ctx, runner)
}

// labelled reports whether the disk has the label of the OSD with this UUID.
func (d disk) labelled(uuid string) (bool, error) {
	f, err := d.openExclusively()
	if err != nil {
		return false, err
	}
	defer f.Close()
	head := make([]byte, len(blueStoreMagic)+len(uuid))
	if _, err := io.ReadFull(f, head); err != nil {
		return false, fmt.Errorf("read its label: %w", err)
	}
	return string(head) == blueStoreMagic+uuid, nil
}
