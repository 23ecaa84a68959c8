// Package layoutdisks gives a guest SCSI disks with serial numbers out of files or other disks, by the kernel's target and its
// loopback fabric: disks that can be pulled and put back, that break, and whose cache is lost in a power cut.
package layoutdisks

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/filesystem"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/poll"
	"github.com/holdfast-storage/holdfast/pkg/stack/live"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

const target = "/sys/kernel/config/target"

// Disks are the disks of a guest, by the identity that plans have for them.
type Disks struct {
	list []*disk
}

type disk struct {
	id     plan.DiskID
	number int
	size   storage.Bytes
	device string // that it is a part of, if it is
}

var _ live.Devices = (*Disks)(nil)

// Setup loads the target.
func Setup() error {
	for _, argv := range [][]string{
		{"modprobe", "-a", "sd_mod", "tcm_loop", "target_core_file", "target_core_iblock"}, {"mount", "-t", "configfs", "none", "/sys/kernel/config"},
	} {
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%v: %w: %s", argv, err, out)
		}
	}
	return nil
}

// store is where the files of cached disks are.
const store = "/mnt/store"

// OpenStore mounts the file system that cached disks are files of, making it on a device that has none. What is written there
// and not flushed is in the guest's memory alone. (A file of the host would not do: hostfs passes every write on.)
func OpenStore(device string) error {
	if err := os.MkdirAll(store, 0o755); err != nil {
		return err
	}
	if info, err := filesystem.Probe(device); err != nil || info.Type == "" {
		if out, err := exec.Command("mkfs.ext4", "-q", device).CombinedOutput(); err != nil {
			return fmt.Errorf("mkfs: %w: %s", err, out)
		}
	}
	if out, err := exec.Command("mount", "-o", "data=writeback", device, store).CombinedOutput(); err != nil {
		return fmt.Errorf("mount %s: %w: %s", device, err, out)
	}
	return nil
}

// AddCached makes a disk of a file in the store. Its cache is the guest's memory: what was not flushed is lost with the guest.
func (d *Disks) AddCached(id plan.DiskID, size storage.Bytes) error {
	path := filepath.Join(store, string(id))
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err == nil {
		err = errors.Join(unix.Fallocate(int(f.Fd()), 0, 0, int64(size)), f.Sync(), f.Close())
	}
	if err != nil {
		return err
	}
	if err := d.add(id, "fileio_0", fmt.Sprintf("fd_dev_name=%s,fd_dev_size=%d,fd_buffered_io=1", path, size), size); err != nil {
		return err
	}
	return d.caches(id)
}

// caches confirms that a disk says that it has a cache. Without one nobody would flush it, and a power cut would prove nothing.
func (d *Disks) caches(id plan.DiskID) error {
	found, err := d.Find(context.Background(), id)
	if err != nil {
		return err
	}
	kind, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(found.Path), "queue", "write_cache"))
	if err != nil || strings.TrimSpace(string(kind)) != "write back" {
		return fmt.Errorf("disk %s has the cache %q: %w", id, kind, err)
	}
	return nil
}

// AddBreakable makes a disk of a device by way of a device-mapper table, which Break changes.
func (d *Disks) AddBreakable(id plan.DiskID, device string, size storage.Bytes) error {
	return d.addPart(id, device, 0, size)
}

// addPart makes a disk of a part of a device.
func (d *Disks) addPart(id plan.DiskID, device string, start, size storage.Bytes) error {
	if err := dmsetup("create", under(id), "--table", fmt.Sprintf("0 %d linear %s %d", size/512, device, start/512)); err != nil {
		return err
	}
	if err := d.add(id, "iblock_0", "udev_path=/dev/mapper/"+under(id), size); err != nil {
		return err
	}
	d.list[len(d.list)-1].device = device
	return nil
}

func dmsetup(args ...string) error {
	_, err := ask(args...)
	return err
}

// ask runs dmsetup and returns what it says.
func ask(args ...string) (string, error) {
	out, err := exec.Command("dmsetup", args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("dmsetup %v: %w: %s", args, err, out)
	}
	return string(out), nil
}

// under is what device-mapper calls what lies under a disk.
func under(id plan.DiskID) string { return "under-" + string(id) }

// swap puts another table under a disk.
func (d *Disks) swap(id plan.DiskID, table func(*disk) string) error {
	for _, one := range d.list {
		if one.id != id {
			continue
		}
		for _, args := range [][]string{{"suspend", "--nolockfs", "--noflush", under(id)}, {"load", under(id), "--table", table(one)}, {"resume", under(id)}} {
			if err := dmsetup(args...); err != nil {
				return err
			}
		}
	}
	return nil
}

// Break lets every request to the disk fail from now on.
func (d *Disks) Break(id plan.DiskID) error {
	return d.swap(id, func(one *disk) string { return fmt.Sprintf("0 %d error", one.size/512) })
}

// Rot makes sectors of a disk unreadable until they are written again, as a disk does that remaps them (dm-dust).
func (d *Disks) Rot(id plan.DiskID, at []storage.Bytes) error {
	err := d.swap(id, func(one *disk) string { return fmt.Sprintf("0 %d dust %s 0 512", one.size/512, one.device) })
	for _, place := range at {
		if err == nil {
			err = dmsetup("message", under(id), "0", "addbadblock", fmt.Sprintf("%d", place/512))
		}
	}
	if err != nil {
		return err
	}
	return dmsetup("message", under(id), "0", "enable")
}

// Rotten is how many sectors of a disk are unreadable.
func (d *Disks) Rotten(id plan.DiskID) (n int, err error) {
	out, err := ask("message", under(id), "0", "countbadblocks")
	if err == nil {
		_, err = fmt.Sscanf(out, "countbadblocks: %d", &n)
	}
	return n, err
}

func write(path, text string) error {
	if err := os.WriteFile(path, []byte(text), 0o200); err != nil {
		return fmt.Errorf("write %q: %w", text, err)
	}
	return nil
}

// wwn is the name of a disk's target port.
func wwn(number int) string { return fmt.Sprintf("naa.5001405%09d", number) }

func (d *Disks) add(id plan.DiskID, kind, control string, size storage.Bytes) error {
	n := len(d.list) + 1
	core := filepath.Join(target, "core", kind, string(id))
	port := filepath.Join(target, "loopback", wwn(n), "tpgt_1")
	if err := os.MkdirAll(core, 0o755); err != nil {
		return err
	}
	if err := write(filepath.Join(core, "control"), control); err != nil {
		return err
	}
	if err := write(filepath.Join(core, "wwn", "vpd_unit_serial"), string(id)); err != nil {
		return err
	}
	if err := write(filepath.Join(core, "enable"), "1"); err != nil {
		return err
	}
	if err := os.MkdirAll(port, 0o755); err != nil {
		return err
	}
	if err := write(filepath.Join(port, "nexus"), fmt.Sprintf("naa.6001405%09d", n)); err != nil {
		return err
	}
	lun := filepath.Join(port, "lun", "lun_0")
	if err := os.MkdirAll(lun, 0o755); err != nil {
		return err
	}
	if err := os.Symlink(core, filepath.Join(lun, "disk")); err != nil {
		return err
	}
	d.list = append(d.list, &disk{id: id, number: n, size: size})
	return d.await(id)
}

// serial reads what a SCSI disk says of itself (page 0x80: four bytes of header).
func serial(block string) string {
	data, err := os.ReadFile(filepath.Join(block, "device", "vpd_pg80"))
	if err != nil || len(data) < 4 {
		return ""
	}
	return strings.Trim(string(data[4:]), " \x00")
}

// Find implements live.Devices by the serial numbers of SCSI disks.
func (d *Disks) Find(_ context.Context, id plan.DiskID) (live.Device, error) {
	blocks, err := filepath.Glob("/sys/block/sd*")
	if err != nil {
		return live.Device{}, err
	}
	for _, block := range blocks {
		if serial(block) != string(id) {
			continue
		}
		state, _ := os.ReadFile(filepath.Join(block, "device", "state"))
		if strings.TrimSpace(string(state)) != "running" {
			continue // it was pulled, and something still holds it
		}
		for _, one := range d.list {
			if one.id == id {
				return live.Device{Path: "/dev/" + filepath.Base(block), Size: one.size}, nil
			}
		}
	}
	return live.Device{}, notThere(id)
}

// await waits until a disk is there.
func (d *Disks) await(id plan.DiskID) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	err := poll.Until(ctx, 20*time.Millisecond, func() (bool, error) {
		found, err := d.Find(ctx, id)
		if err != nil {
			return false, nil //nolint:nilerr // not yet
		}
		_, err = os.Stat(found.Path)
		return err == nil, nil
	})
	if err != nil {
		return fmt.Errorf("disk %s does not come: %w", id, err)
	}
	return nil
}

// Pull takes a disk away while it is in use.
func (d *Disks) Pull(id plan.DiskID) error {
	found, err := d.Find(context.Background(), id)
	if err != nil {
		return err
	}
	return write(filepath.Join("/sys/block", filepath.Base(found.Path), "device", "delete"), "1")
}

// PutBack puts a disk that was pulled into its bay again.
func (d *Disks) PutBack(id plan.DiskID) error {
	hosts, err := filepath.Glob("/sys/class/scsi_host/host*/scan")
	if err != nil {
		return err
	}
	for _, scan := range hosts {
		if err := write(scan, "- - -"); err != nil {
			return err
		}
	}
	return d.await(id)
}

// Written is how much was written to a disk since it came, in bytes.
func (d *Disks) Written(id plan.DiskID) (storage.Bytes, error) {
	found, err := d.Find(context.Background(), id)
	if err != nil {
		return 0, err
	}
	data, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(found.Path), "stat"))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(data)) // Documentation/block/stat.rst: the seventh is sectors written
	var sectors storage.Bytes
	if len(fields) > 6 {
		_, err = fmt.Sscan(fields[6], &sectors)
	}
	return sectors * 512, err
}

func notThere(id plan.DiskID) error { return fault.New(fault.NotFound, "disk %s is not there", id) }
