package standalone

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// fakeDisk is a disk with a directory of sysfs; files are below it.
func fakeDisk(t *testing.T, kernelName string, files map[string]string) disk {
	t.Helper()
	dir := filepath.Join(t.TempDir(), kernelName)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return disk{name: "/dev/disk/by-path/x", dev: "/dev/no-such-disk", sys: dir, num: unix.Mkdev(4095, 4095)}
}

func TestOnlyWholeDisksThatNobodyUsesAreTaken(t *testing.T) {
	cases := []struct {
		name, kernel string
		files        map[string]string
		refusal      string // "": taken
	}{
		{"a SATA disk", "sdb", map[string]string{"ro": "0\n", "removable": "0\n"}, ""},
		{"an NVMe disk", "nvme0n1", map[string]string{"ro": "0\n"}, ""},
		{"a virtio disk", "vdb", map[string]string{"ro": "0\n"}, ""},
		{"a removable disk", "sdb", map[string]string{"ro": "0\n", "removable": "1\n"}, "removable"},
		{"a read-only disk", "sdb", map[string]string{"ro": "1\n"}, "read-only"},
		{"a partition", "sdb1", map[string]string{"ro": "0\n", "partition": "1\n"}, "partition"},
		{"a disk with partitions", "sdb", map[string]string{"ro": "0\n", "sdb1/partition": "1\n"}, "has partitions"},
		{"a disk below LVM", "sdb", map[string]string{"ro": "0\n", "holders/dm-0": ""}, "used by another device"},
		{"an LVM volume", "dm-0", map[string]string{"ro": "0\n", "slaves/sdb": ""}, "no disk that can be taken"},
		{"a disk made of others", "nvme0n1", map[string]string{"ro": "0\n", "slaves/sdb": ""}, "made of other devices"},
		{"an md array", "md127", map[string]string{"ro": "0\n"}, "no disk that can be taken"},
		{"a network block device", "nbd0", map[string]string{"ro": "0\n"}, "no disk that can be taken"},
		{"an image of a Ceph cluster", "rbd0", map[string]string{"ro": "0\n"}, "no disk that can be taken"},
		{"compressed memory", "zram0", map[string]string{"ro": "0\n"}, "no disk that can be taken"},
		{"an eMMC's boot area", "mmcblk0boot0", map[string]string{"ro": "0\n"}, "no disk that can be taken"},
	}
	for _, test := range cases {
		t.Run(test.name, func(t *testing.T) {
			err := fakeDisk(t, test.kernel, test.files).checkKernel()
			if test.refusal == "" && err != nil || test.refusal != "" && (err == nil || !strings.Contains(err.Error(), test.refusal)) {
				t.Errorf("got %v, want %q", err, test.refusal)
			}
		})
	}
}

func TestAnotherDiskInTheSamePlaceIsRefused(t *testing.T) {
	chosen := fakeDisk(t, "sdb", map[string]string{"device/wwid": "naa.5000c500a1b2c3d4\n"}).identity()
	if chosen != "device/wwid=naa.5000c500a1b2c3d4" {
		t.Fatalf("identity %q", chosen)
	}
	cases := []struct {
		name  string
		files map[string]string
		same  bool
	}{
		{"the same disk", map[string]string{"device/wwid": "naa.5000c500a1b2c3d4\n"}, true},
		{"the same disk with one more source", map[string]string{"wwid": "eui.01\n", "device/wwid": "naa.5000c500a1b2c3d4\n"}, true},
		{"another disk", map[string]string{"device/wwid": "naa.5000c500ffffffff\n"}, false},
		{"a disk that says nothing", nil, false},
	}
	for _, test := range cases {
		t.Run(test.name, func(t *testing.T) {
			err := fakeDisk(t, "sdc", test.files).checkIdentity(chosen)
			if (err == nil) != test.same || !test.same && !errors.Is(err, fault.Precondition) {
				t.Errorf("got %v", err)
			}
		})
	}
	if err := fakeDisk(t, "sdc", nil).checkIdentity(""); err != nil {
		t.Errorf("a disk that never said anything: %v", err)
	}
}

// TestADiskBegunOnAndUsedAgainIsRefused puts on a loop device what others put on disks
// whose first bytes stay zero.
func TestADiskBegunOnAndUsedAgainIsRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	const uuid = "0d7b1c2e-5a8f-4c7e-9d2b-1f3a5c7e9b0d"
	write := func(at int64, text string) func(*testing.T, string) {
		return func(t *testing.T, dev string) {
			t.Helper()
			f, err := os.OpenFile(dev, os.O_WRONLY, 0)
			if err == nil {
				_, err = f.WriteAt([]byte(text), at)
				err = errors.Join(err, f.Close())
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	run := func(argv ...string) func(*testing.T, string) {
		return func(t *testing.T, dev string) {
			t.Helper()
			if out, err := exec.Command(argv[0], append(argv[1:], dev)...).CombinedOutput(); err != nil {
				t.Fatalf("%v: %v\n%s", argv, err, out)
			}
		}
	}
	cases := []struct {
		name    string
		use     func(*testing.T, string)
		refusal string
	}{
		{"still blank", func(*testing.T, string) {}, ""},
		{"with the label of this OSD", write(0, blueStoreMagic+uuid+"\n"), ""},
		{"with the label of another OSD", write(0, blueStoreMagic+strings.ToUpper(uuid)+"\n"), "signature"},
		{"with ext4", run("mkfs.ext4", "-q"), "ext4"},
		{"with swap", run("mkswap"), "swap"},
		{"with an LVM label", write(512, "LABELONE\x01\x00\x00\x00"), "data in the 4 MiB at byte 0"},
		{"with md's superblock", write(4096, "\xfc\x4e\x2b\xa9\x01\x00\x00\x00"), "data in the 4 MiB at byte 0"},
	}
	for _, test := range cases {
		t.Run(test.name, func(t *testing.T) {
			d := loopDevice(t)
			test.use(t, d.dev)
			err := d.checkOurs(t.Context(), command.System{}, uuid)
			if test.refusal == "" && err != nil || test.refusal != "" && (err == nil || !strings.Contains(err.Error(), test.refusal)) {
				t.Errorf("got %v, want %q", err, test.refusal)
			}
		})
	}
	t.Run("with its label, but held by another program", func(t *testing.T) {
		d := loopDevice(t)
		write(0, blueStoreMagic+uuid+"\n")(t, d.dev)
		f, err := os.OpenFile(d.dev, os.O_RDONLY|unix.O_EXCL, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := d.checkOurs(t.Context(), command.System{}, uuid); !errors.Is(err, fault.Busy) {
			t.Errorf("got %v", err)
		}
	})
}

func loopDevice(t *testing.T) disk {
	t.Helper()
	file := filepath.Join(t.TempDir(), "disk")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Truncate(file, int64(MinOSDSize))); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("losetup", "--find", "--show", file).CombinedOutput()
	if err != nil {
		t.Skipf("needs loop devices: %v: %s", err, out)
	}
	dev := strings.TrimSpace(string(out))
	t.Cleanup(func() { _ = exec.Command("losetup", "--detach", dev).Run() })
	var stat unix.Stat_t
	if err := unix.Stat(dev, &stat); err != nil {
		t.Fatal(err)
	}
	return disk{name: dev, dev: dev, num: stat.Rdev, sys: "/sys/block/" + filepath.Base(dev)}
}
