package uml_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-storage/holdfast/tests/uml"
)

// TestImages converts and grows whole disks, whose content a kernel then reads: each file has the checksum that it had, and the
// file system the new size.
func TestImages(t *testing.T) {
	if missing := missingForDisks(); missing != "" {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs " + missing)
		}
		t.Skip("needs " + missing)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("/var/tmp", "hfi")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !t.Failed() {
			_ = os.RemoveAll(dir)
		}
	})
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	l := &imageLab{lab{t: t, dir: dir, root: root}, ctx}
	guest := l.build("guest", "./tests/uml/guest", true)
	holdfast := l.build("holdfast", "./cmd/holdfast", true)
	files := l.files()
	disks := map[string]imageDisk{
		"boot2docker": {
			tree: files, script: "label: dos\nstart=2048, size=204800, type=82\nstart=206848, type=83, bootable\n", start: 101, size: 400, device: "/dev/ubda2",
		},
		"LVM": {
			tree: files, script: "label: gpt\nsize=50M, type=uefi\nsize=349M, type=lvm\n", start: 51, size: 400, device: "/dev/vg0/root", lvm: true,
		},
	}
	if debian := l.debian(); debian != "" {
		disks["a Debian root"] = imageDisk{
			tree: debian, script: "label: gpt\nsize=1M, type=21686148-6449-6E6F-744E-656564454649\ntype=linux\n", start: 2, size: 900, device: "/dev/ubda2",
			boots: "test -e /tmp/m/bin/sh && chroot /tmp/m /bin/sh -c 'dpkg --audit && dpkg-query -W dpkg && cat /etc/debian_version'",
		}
	}
	for name, d := range disks {
		t.Run(name, func(t *testing.T) {
			l := &imageLab{lab{t: t, dir: dir, root: root}, ctx}
			source := filepath.Join(dir, "source.img")
			l.make(source, d)
			vmdk, vdi, grown := filepath.Join(dir, "s.vmdk"), filepath.Join(dir, "s.vdi"), filepath.Join(dir, "grown.img")
			l.run(holdfast, "image", "convert", source, vmdk, "--subformat", "streamOptimized")
			out := l.run(holdfast, "image", "convert", vmdk, vdi, "--size", "2GiB", "--grow-partition", "last", "--grow-fs")
			t.Log(out)
			if !strings.Contains(out, "is as large as the partition") {
				t.Fatal("the file system did not grow")
			}
			l.run("qemu-img", "check", vdi)
			l.run(holdfast, "image", "convert", vdi, grown)
			machine := &uml.Machine{Init: guest, Memory: 512, Dir: dir, Modules: []string{"ext4", "dm-mod"}, Disks: []uml.Disk{{Path: grown, Serial: "grown"}}}
			g, err := machine.Boot(ctx, "image", []string{"/bin/sh", "-ec", l.script(d)}, nil)
			if err != nil {
				t.Fatal(err)
			}
			output, code, err := g.Wait(ctx)
			if err != nil || code != 0 || !strings.Contains(output, "the size is right") {
				t.Fatalf("in the guest: exit code %d, %v\n%s\n%s", code, err, output, g.Console())
			}
			t.Logf("in the guest: %s", output)
			for _, path := range []string{source, vmdk, vdi, grown} {
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// imageDisk is a disk that is grown to 2 GiB. Sizes are MiB.
type imageDisk struct {
	tree, script, device string
	start, size          int64 // of the partition that grows, of the disk
	lvm                  bool
	boots                string // what more is run in the guest
}

type imageLab struct {
	lab
	ctx context.Context
}

func (l *imageLab) run(argv ...string) string {
	l.t.Helper()
	out, err := exec.CommandContext(l.ctx, argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		l.t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return string(out)
}

// files makes a tree of files of many sizes.
func (l *imageLab) files() string {
	l.t.Helper()
	tree := filepath.Join(l.dir, "tree")
	random := rand.NewChaCha8([32]byte{1})
	for n := range 60 {
		path := filepath.Join(tree, fmt.Sprintf("폴더%d", n%7), fmt.Sprintf("파일 %d", n))
		data := make([]byte, 1<<(n%18)+n*3001)
		_, _ = random.Read(data)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			l.t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			l.t.Fatal(err)
		}
	}
	return tree
}

// debian makes a root of a Debian system, "" where it cannot be had.
func (l *imageLab) debian() string {
	if made := os.Getenv("HOLDFAST_DEBIAN_ROOT"); made != "" { // by debootstrap, for runs by hand
		return made
	}
	if !all() {
		l.t.Log("no Debian root: it takes debootstrap minutes; HOLDFAST_LAYOUTS=all or HOLDFAST_DEBIAN_ROOT=DIR")
		return ""
	}
	tree := filepath.Join(l.dir, "debian")
	if out, err := exec.CommandContext(l.ctx, "debootstrap", "--variant=minbase", "bookworm", tree).CombinedOutput(); err != nil {
		l.t.Logf("no Debian root: debootstrap: %v\n%.2000s", err, out)
		return ""
	}
	return tree
}

// make writes a raw disk.
func (l *imageLab) make(path string, d imageDisk) {
	l.t.Helper()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		l.t.Fatal(err)
	}
	if err := os.Truncate(path, d.size<<20); err != nil {
		l.t.Fatal(err)
	}
	sfdisk := exec.CommandContext(l.ctx, "sfdisk", "--quiet", path)
	sfdisk.Stdin = strings.NewReader(d.script)
	if out, err := sfdisk.CombinedOutput(); err != nil {
		l.t.Fatalf("sfdisk: %v\n%s", err, out)
	}
	at, length := d.start, d.size-d.start-1
	if d.lvm {
		at, length = l.group(path, d.start, length-1)
	}
	l.run("mke2fs", "-q", "-t", "ext4", "-d", d.tree, "-E", fmt.Sprintf("offset=%d", at<<20), path, fmt.Sprintf("%dM", length))
	l.sums(d.tree)
}

// group makes LVM's group in a partition, with swap of 20 MiB and root of 200 MiB, and says where root is.
func (l *imageLab) group(path string, start, size int64) (at, length int64) {
	l.t.Helper()
	device := strings.TrimSpace(l.run("losetup", "--find", "--show", "--offset", fmt.Sprint(start<<20), "--sizelimit", fmt.Sprint(size<<20), path))
	defer l.run("losetup", "--detach", device)
	config := fmt.Sprintf(`devices{filter=["a|^%[1]s$|","r|.*|"] global_filter=["a|^%[1]s$|","r|.*|"] use_devicesfile=0} global{locking_dir=%[2]q} backup{backup=0 archive=0}`, device, l.dir)
	lvm := func(argv ...string) {
		l.run(append([]string{"env", "LVM_SUPPRESS_FD_WARNINGS=1", "lvm", argv[0], "--driverloaded", "n", "--config", config}, argv[1:]...)...)
	}
	lvm("pvcreate", device)
	lvm("vgcreate", "vg0", device)
	lvm("lvcreate", "-an", "-Zn", "-Wn", "-n", "swap", "-L", "20M", "vg0")
	lvm("lvcreate", "-an", "-Zn", "-Wn", "-n", "root", "-L", "200M", "vg0")
	return start + 1 + 20, 200
}

// sums writes the checksums of all files of a tree, for sha256sum.
func (l *imageLab) sums(tree string) {
	l.t.Helper()
	var text strings.Builder
	err := filepath.WalkDir(tree, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		defer file.Close()
		h := sha256.New()
		if _, err := io.Copy(h, file); err != nil {
			return err
		}
		name, err := filepath.Rel(tree, path)
		fmt.Fprintf(&text, "%x  %s\n", h.Sum(nil), name)
		return err
	})
	if err != nil {
		l.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(l.dir, "sums"), []byte(text.String()), 0o600); err != nil {
		l.t.Fatal(err)
	}
}

// script is what the guest runs.
func (l *imageLab) script(d imageDisk) string {
	lines := []string{"exec 2>&1", "mkdir -p /tmp/m"}
	if d.lvm {
		lines = append(lines, "export DM_DISABLE_UDEV=1 LVM_SUPPRESS_FD_WARNINGS=1 LVM_SYSTEM_DIR=/tmp",
			`lvm vgchange -ay --config 'global{locking_dir="/tmp"} backup{backup=0 archive=0} devices{use_devicesfile=0}' vg0`)
	}
	lines = append(lines,
		"mount "+d.device+" /tmp/m", "cd /tmp/m",
		"sha256sum --quiet -c "+filepath.Join(l.dir, "sums"),
		"echo $(wc -l < "+filepath.Join(l.dir, "sums")+") files are as they were",
		"size=$(df --output=size -BM . | tail -n 1 | tr -dc 0-9)", "echo $size MiB",
		"test $size -gt 1700", "echo the size is right",
	)
	if d.boots != "" {
		lines = append(lines, d.boots)
	}
	return strings.Join(append(lines, "cd /", "umount /tmp/m"), "\n")
}
