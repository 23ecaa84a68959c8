//go:build umlguest

package disks

import (
	"bytes"
	"fmt"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// trap is a disk that must not be offered.
type trap struct {
	name string
	make func(l *lab) []drive
	want storage.ReasonCode // the first reason
	says string             // a part of all reasons, as told
}

func one(d drive) []drive { return []drive{d} }

// written is a disk that a program made something on; PATH stands for the disk.
func written(s spec, argvs ...[]string) func(l *lab) []drive {
	return func(l *lab) []drive {
		d := l.add(s)
		for _, argv := range argvs {
			for i := range argv {
				if argv[i] == "PATH" {
					argv[i] = d.path()
				}
			}
			l.run(argv...)
		}
		return one(d)
	}
}

// poked is a disk with bytes at places, negative ones from its end.
func poked(places map[int64]string) func(l *lab) []drive {
	return func(l *lab) []drive {
		d := l.add(spec{})
		for at, data := range places {
			l.poke(d, at, []byte(data))
		}
		return one(d)
	}
}

const big = 400 << 20 // what xfs and btrfs want at least

var (
	osdOwn, osdForeign = image("osd-own"), image("osd-foreign")
	lvmConfig          = `backup{backup=0 archive=0} devices{use_devicesfile=0 scan=["/dev"]} activation{udev_sync=0 udev_rules=0} global{event_activation=0}`
)

func image(name string) string { return filepath.Join(os.Getenv("HOLDFAST_UML_KEEP"), name+".img") }

// contents are traps that lie in the bytes alone.
func contents() []trap {
	return []trap{
		{"ext4 on the whole disk", written(spec{}, []string{"mkfs.ext4", "-q", "-L", "daten", "PATH"}), storage.ReasonContent, `ext4 "daten"`},
		{"ext2", written(spec{}, []string{"mkfs.ext2", "-q", "PATH"}), storage.ReasonContent, "ext2"},
		{"xfs on the whole disk", written(spec{size: big}, []string{"mkfs.xfs", "-q", "-K", "-L", "한국", "PATH"}), storage.ReasonContent, `xfs "한국"`},
		{"a btrfs member", written(spec{size: big}, []string{"mkfs.btrfs", "-q", "-L", "pool", "PATH"}), storage.ReasonContent, `btrfs "pool"`},
		{"btrfs whose first superblock is gone", func(l *lab) []drive {
			d := written(spec{size: big}, []string{"mkfs.btrfs", "-q", "PATH"})(l)
			l.poke(d[0], 0, make([]byte, 1<<20))
			return d
		}, storage.ReasonContent, "btrfs"},
		{"FAT32", written(spec{}, []string{"mkfs.vfat", "-F", "32", "--mbr=n", "PATH"}), storage.ReasonContent, "vfat"},
		{"swap space, not in use", written(spec{}, []string{"mkswap", "PATH"}), storage.ReasonContent, "swap"},
		{"LUKS1", written(spec{}, luksFormat("luks1")), storage.ReasonContent, "crypto_LUKS (version 1"},
		{"LUKS2 with the tags of a foreign OSD", written(spec{}, append(luksFormat("luks2"), "--subsystem", "ceph_fsid="+foreignFSID)), storage.ReasonCeph, "which is a foreign one"},
		{"LUKS2 whose first header is gone", func(l *lab) []drive {
			d := written(spec{}, luksFormat("luks2"))(l)
			l.poke(d[0], 0, make([]byte, 4096))
			return d
		}, storage.ReasonContent, "crypto_LUKS"},
		{"ZFS, by its last label", poked(map[int64]string{-256<<10 + 16<<10: zfsPairs}), storage.ReasonContent, `zfs_member "tank"`},
		{"bcache", poked(map[int64]string{4096 + 24: "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf7\xf5\x7f\x48\xba\x6d"}), storage.ReasonContent, "bcache"},
		{"DRBD's metadata at the end", poked(map[int64]string{-4096 + 60: "\x83\x74\x02\x6d"}), storage.ReasonContent, "drbd"},
		{"an ISO image", poked(map[int64]string{32769: "CD001"}), storage.ReasonContent, "iso9660"},
		{"random bytes, such as plain dm-crypt leaves", func(l *lab) []drive {
			d := l.add(spec{})
			noise := make([]byte, 1<<20)
			_, _ = rand.New(rand.NewSource(1)).Read(noise)
			l.poke(d, 0, noise)
			return one(d)
		}, storage.ReasonData, "data of an unknown kind at byte"},
		{"a byte near the end", poked(map[int64]string{-100: "x"}), storage.ReasonData, "data of an unknown kind at byte"},
		{"a file system where a first partition was", func(l *lab) []drive {
			d := l.add(spec{})
			l.run("mkfs.ext4", "-q", "-E", "offset=1048576", d.path(), "32M")
			return one(d)
		}, storage.ReasonContent, "ext4"},
	}
}

func luksFormat(kind string) []string {
	return []string{"sh", "-c", `printf key | cryptsetup luksFormat --batch-mode --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file - "$@"`, "sh", "--type", kind, "PATH"}
}

// zfsPairs is the beginning of a pool's name-value list: version, and the name "tank".
var zfsPairs = "\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01" +
	"\x00\x00\x00\x24\x00\x00\x00\x20\x00\x00\x00\x07version\x00\x00\x00\x00\x08\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x13\x88" +
	"\x00\x00\x00\x20\x00\x00\x00\x20\x00\x00\x00\x04name\x00\x00\x00\x09\x00\x00\x00\x01\x00\x00\x00\x04tank"

// tables are traps of partition tables.
func tables() []trap {
	partitioned := spec{image: image("gpt")}
	return []trap{
		{"a GPT with partitions", func(l *lab) []drive { return one(l.add(partitioned)) }, storage.ReasonTable, "gpt: 2 partitions"},
		{"an empty GPT", func(l *lab) []drive { return one(l.add(spec{image: image("gpt-empty")})) }, storage.ReasonTable, "gpt: 0 partitions"},
		{"a damaged primary GPT, an intact backup", func(l *lab) []drive {
			d := l.add(partitioned)
			l.poke(d, 600, []byte{0xff})
			return one(d)
		}, storage.ReasonTable, "2 partitions in the backup; the primary is damaged"},
		{"nothing but the backup GPT", func(l *lab) []drive {
			d := l.add(partitioned)
			l.poke(d, 0, make([]byte, 64<<10))
			return one(d)
		}, storage.ReasonTable, "2 partitions in the backup; the primary is absent"},
		{"a GPT on a disk that grew", func(l *lab) []drive { return one(l.add(spec{image: image("gpt"), size: 96 << 20})) }, storage.ReasonTable, "the backup is absent"},
		{"a damaged primary GPT on a disk that grew", func(l *lab) []drive {
			d := l.add(spec{image: image("gpt"), size: 96 << 20})
			l.poke(d, 600, []byte{0xff})
			return one(d)
		}, storage.ReasonTable, "gpt: the primary is damaged, the backup is absent"},
		{"a DOS table", func(l *lab) []drive { return one(l.add(spec{image: image("dos")})) }, storage.ReasonTable, "dos: 1 primary"},
		{"an MBR that protects no GPT any more", func(l *lab) []drive {
			d := l.add(partitioned)
			l.poke(d, 512, make([]byte, 64<<10))
			l.poke(d, -64<<10, make([]byte, 64<<10))
			return one(d)
		}, storage.ReasonTable, "it protects a GPT, and there is none"},
		{"a GPT of 4Kn sectors", func(l *lab) []drive {
			d := l.add(spec{sectors: 4096})
			l.run("parted", "-s", d.path(), "mklabel", "gpt", "mkpart", "x", "1MiB", "8MiB")
			return one(d)
		}, storage.ReasonTable, "gpt: 1 partitions"},
	}
}

// arrays are traps of md and LVM.
func arrays() []trap {
	md := func(metadata string) func(l *lab) []drive {
		return func(l *lab) []drive {
			a, b := l.add(spec{}), l.add(spec{})
			device := fmt.Sprintf("/dev/md%d", 100+l.next)
			l.run("mdadm", "--create", device, "--run", "--level=1", "--raid-devices=2", "--assume-clean", "--bitmap=none", "--homehost=any", "--metadata="+metadata, a.path(), b.path())
			l.run("mdadm", "--stop", device)
			return []drive{a, b}
		}
	}
	return []trap{
		{"md 0.90, left over", md("0.90"), storage.ReasonContent, "md (version 0.90, level 1, 2 disks)"},
		{"md 1.0, left over", md("1.0"), storage.ReasonContent, "(version 1.0, level 1, 2 disks)"},
		{"md 1.1, left over", md("1.1"), storage.ReasonContent, "(version 1.1, level 1, 2 disks)"},
		{"md 1.2, left over", md("1.2"), storage.ReasonContent, "(version 1.2, level 1, 2 disks)"},
		{"a DDF container", func(l *lab) []drive {
			a, b := l.add(spec{}), l.add(spec{})
			l.run("mdadm", "--create", "/dev/md99", "--run", "--metadata=ddf", "--raid-devices=2", a.path(), b.path())
			l.run("mdadm", "--stop", "/dev/md99")
			return []drive{a, b}
		}, storage.ReasonContent, "ddf"},
		{"members of a running array", func(l *lab) []drive {
			a, b := l.add(spec{}), l.add(spec{})
			l.run("mdadm", "--create", "/dev/md10", "--run", "--level=1", "--raid-devices=2", "--assume-clean", "--bitmap=none", "--homehost=any", a.path(), b.path())
			return []drive{a, b}
		}, storage.ReasonContent, "used by md10 (raid1)"},
		{"an LVM physical volume without a group", written(spec{}, lvm("pvcreate", "-q", "PATH")), storage.ReasonContent, "lvm2"},
		{"LVM, left over", func(l *lab) []drive {
			d := l.add(spec{})
			l.run(lvm("vgcreate", "altbestand", d.path())...)
			return one(d)
		}, storage.ReasonContent, `lvm2 "altbestand"`},
		{"LVM in use", func(l *lab) []drive {
			d := l.add(spec{})
			l.run(lvm("vgcreate", "vg0", d.path())...)
			l.run(lvm("lvcreate", "-q", "-Wn", "-Zn", "-n", "lv0", "-L", "16M", "vg0")...)
			return one(d)
		}, storage.ReasonContent, "(LVM vg0-lv0)"},
		{"an OSD of ceph-volume's on LVM, of a foreign cluster", func(l *lab) []drive {
			d := l.add(spec{})
			l.run(lvm("vgcreate", "ceph-1", d.path())...)
			l.run(lvm("lvcreate", "-q", "-an", "-Wn", "-Zn", "-n", "osd-block-1", "-L", "16M", "ceph-1",
				"--addtag", "ceph.cluster_fsid="+foreignFSID, "--addtag", "ceph.osd_id=12", "--addtag", "ceph.osd_fsid=22222222-2222-4333-8444-555555555555")...)
			return one(d)
		}, storage.ReasonCeph, "OSD 12 of Ceph cluster " + foreignFSID + ", which is a foreign one"},
	}
}

func lvm(args ...string) []string {
	return append([]string{"lvm", args[0], "--config", lvmConfig}, args[1:]...)
}

// stores are traps of BlueStore.
func stores() []trap {
	return []trap{
		{"an OSD of this cluster", func(l *lab) []drive { return one(l.add(spec{image: osdOwn})) }, storage.ReasonCeph, "OSD 7 of Ceph cluster " + ownFSID + ", which is this one"},
		{"an OSD of a foreign cluster", func(l *lab) []drive { return one(l.add(spec{image: osdForeign})) }, storage.ReasonCeph, "OSD 7 of Ceph cluster " + foreignFSID + ", which is a foreign one"},
		{"phantom partitions on BlueStore", func(l *lab) []drive {
			d := l.add(spec{image: osdForeign})
			l.addPartition(d, 1, 8<<20, 16<<20)
			l.addPartition(d, 2, 32<<20, 16<<20)
			return one(d)
		}, storage.ReasonCeph, "that no table explains: it took BlueStore's data for one"},
		{"BlueStore with nothing left but a spare label", func(l *lab) []drive {
			d := l.add(spec{size: 2 << 30})
			label := make([]byte, 4096)
			f, err := os.Open(osdForeign)
			if err == nil {
				_, err = f.Read(label)
				f.Close()
			}
			if err != nil {
				l.t.Fatal(err)
			}
			l.poke(d, 1<<30, label)
			return one(d)
		}, storage.ReasonCeph, foreignFSID},
		{"a BlueStore label that is damaged", func(l *lab) []drive {
			d := l.add(spec{image: osdForeign})
			l.poke(d, 0x158, []byte("??"))
			return one(d)
		}, storage.ReasonCeph, "checksum is wrong"},
	}
}

// addPartition tells the kernel of a partition as its parsers would (BLKPG, linux/blkpg.h).
func (l *lab) addPartition(d drive, number int32, start, length int64) {
	l.t.Helper()
	partition := struct {
		start, length int64
		number        int32
		_             [128]byte
	}{start: start, length: length, number: number}
	argument := struct {
		op, flags, size int32
		data            unsafe.Pointer
	}{op: 1, size: int32(unsafe.Sizeof(partition)), data: unsafe.Pointer(&partition)}
	f, err := os.Open(d.path())
	if err != nil {
		l.t.Fatal(err)
	}
	defer f.Close()
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.BLKPG, uintptr(unsafe.Pointer(&argument))); errno != 0 {
		l.t.Fatalf("add a partition to %s: %v", d.name, errno)
	}
}

// uses are blank disks that the kernel or a program uses.
func uses() []trap {
	return []trap{
		{"mounted", func(l *lab) []drive {
			d := written(spec{}, []string{"mkfs.ext4", "-q", "PATH"})(l)
			l.mount(d[0].path(), "/mnt/whole")
			return d
		}, storage.ReasonContent, "mounted at /mnt/whole"},
		{"a mounted partition, as on the system disk", func(l *lab) []drive {
			d := l.add(spec{image: image("gpt")})
			l.run("mkfs.ext4", "-q", d.path()+"1")
			l.mount(d.path()+"1", "/mnt/system")
			return one(d)
		}, storage.ReasonTable, "mounted at /mnt/system"},
		{"mounted, and its superblock wiped since", func(l *lab) []drive {
			d := written(spec{}, []string{"mkfs.ext2", "-q", "PATH"})(l)
			l.run("mkdir", "/mnt/wiped")
			l.run("mount", "-o", "ro", d[0].path(), "/mnt/wiped")
			l.poke(d[0], 0, make([]byte, 2<<20))
			return d
		}, storage.ReasonMounted, "mounted at /mnt/wiped"},
		{"mounted in another namespace, superblock wiped", func(l *lab) []drive {
			d := written(spec{}, []string{"mkfs.ext2", "-q", "PATH"})(l)
			l.background("unshare", "--mount", "sh", "-c", "mount -o ro "+d[0].path()+" /mnt && echo ready && exec sleep 600")
			l.poke(d[0], 0, make([]byte, 2<<20))
			l.poke(d[0], -1<<20, make([]byte, 1<<20))
			return d
		}, storage.ReasonBusy, "open exclusively"},
		{"swap in use", func(l *lab) []drive {
			d := written(spec{}, []string{"mkswap", "PATH"}, []string{"swapon", "PATH"})(l)
			return d
		}, storage.ReasonContent, "swap in use"},
		{"a partition that LVM uses", func(l *lab) []drive {
			d := l.add(spec{image: image("gpt")})
			l.run(lvm("vgcreate", "vgpart", d.path()+"1")...)
			l.run(lvm("lvcreate", "-q", "-Wn", "-Zn", "-n", "lv0", "-l", "1", "vgpart")...)
			return one(d)
		}, storage.ReasonTable, "(LVM vgpart-lv0)"},
		{"a blank disk below device-mapper", func(l *lab) []drive {
			d := l.add(spec{})
			l.run("dmsetup", "create", "plain", "--noudevsync", "--noudevrules", "--table", "0 2048 linear "+d.path()+" 0")
			return one(d)
		}, storage.ReasonHeld, "(plain)"},
		{"an open LUKS volume", func(l *lab) []drive {
			d := written(spec{}, luksFormat("luks2"))(l)
			l.run("sh", "-c", "printf key | cryptsetup open --disable-external-tokens --key-file - "+d[0].path()+" secret")
			return d
		}, storage.ReasonContent, "(CRYPT secret)"},
		{"opened exclusively by a program", func(l *lab) []drive {
			d := l.add(spec{})
			l.keepOpen(d, os.O_RDWR|unix.O_EXCL)
			return one(d)
		}, storage.ReasonBusy, "open exclusively"},
		{"locked by a program", func(l *lab) []drive {
			d := l.add(spec{})
			f := l.keepOpen(d, os.O_RDWR)
			if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
				l.t.Fatal(err)
			}
			return one(d)
		}, storage.ReasonBusy, "locked"},
	}
}

// natures are disks that are not fit by themselves.
func natures() []trap {
	return []trap{
		{"read-only", func(l *lab) []drive {
			d := l.add(spec{})
			l.run("blockdev", "--setro", d.path())
			return one(d)
		}, storage.ReasonReadOnly, "read-only"},
		{"too small", func(l *lab) []drive { return one(l.add(spec{size: 8 << 20})) }, storage.ReasonSize, "it has 8 MiB: at least 16 MiB are wanted"},
		{"two paths to one disk", func(l *lab) []drive {
			a := l.add(spec{})
			l.expose(a.store, 2)
			return []drive{a, {serial: a.serial, name: l.waitFor(a.serial, []string{a.name})}}
		}, storage.ReasonMultipath, "paths to one disk"},
		{"a sector at the start that cannot be read", func(l *lab) []drive { return one(l.broken(0)) }, storage.ReasonUnknown, "no answer: read 136 KiB at byte 0: input/output error"},
		{"a sector at the end that cannot be read", func(l *lab) []drive { return one(l.broken(131064)) }, storage.ReasonUnknown, "input/output error"},
		{"removable", func(l *lab) []drive { return one(drive{name: l.debugDisk()}) }, storage.ReasonRemovable, "removable"},
	}
}

// broken is a disk with eight sectors from bad on that cannot be read.
func (l *lab) broken(bad int) drive {
	l.t.Helper()
	const sectors = 131072
	backing := filepath.Join(l.dir, fmt.Sprintf("broken%d", bad))
	l.back(backing, spec{})
	loop := string(bytes.TrimSpace([]byte(l.run("losetup", "--find", "--show", backing))))
	table := fmt.Sprintf("%d 8 error\n", bad)
	if bad > 0 {
		table = fmt.Sprintf("0 %d linear %s 0\n", bad, loop) + table
	}
	if rest := sectors - bad - 8; rest > 0 {
		table += fmt.Sprintf("%d %d linear %s %d\n", bad+8, rest, loop, bad+8)
	}
	name := fmt.Sprintf("broken%d", bad)
	l.run("dmsetup", "create", name, "--noudevsync", "--noudevrules", "--table", table)
	l.run("dmsetup", "mknodes", name)
	return l.add(spec{device: "/dev/mapper/" + name})
}

// debugDisk is a removable disk of scsi_debug's.
func (l *lab) debugDisk() string {
	l.t.Helper()
	before, _ := filepath.Glob("/sys/block/sd*")
	l.run("modprobe", "scsi_debug", "removable=1", "dev_size_mb=64", "delay=0")
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		after, _ := filepath.Glob("/sys/block/sd*")
		if len(after) == len(before) {
			continue
		}
		for _, path := range after {
			if _, err := os.Stat("/dev/" + filepath.Base(path)); err == nil && !bytes.Contains([]byte(fmt.Sprint(before)), []byte(path)) {
				return filepath.Base(path)
			}
		}
	}
	l.t.Fatal("scsi_debug makes no disk")
	return ""
}

func (l *lab) mount(device, point string) {
	l.t.Helper()
	l.mkdir(point)
	if err := unix.Mount(device, point, "ext4", 0, ""); err != nil {
		l.t.Fatalf("mount %s: %v", device, err)
	}
}

func (l *lab) keepOpen(d drive, flags int) *os.File {
	l.t.Helper()
	f, err := os.OpenFile(d.path(), flags, 0)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { f.Close() })
	return f
}

// background starts a program and waits until it has printed something.
func (l *lab) background(argv ...string) {
	l.t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if _, err := out.Read(make([]byte, 1)); err != nil {
		l.t.Fatalf("%v: %v", argv, err)
	}
}
