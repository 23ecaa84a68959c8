//go:build umlguest

package disks

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// configfs is where the kernel's SCSI target is set up.
const configfs = "/sys/kernel/config/target"

// lab makes SCSI disks with identities of their own: LUNs of a loopback target.
type lab struct {
	t      *testing.T
	number int // tells the labs of one guest apart
	dir    string
	next   int
	luns   int
}

func newLab(t *testing.T, number int) *lab {
	t.Helper()
	if err := unix.Mount("none", "/sys/kernel/config", "configfs", 0, ""); err != nil && err != unix.EBUSY {
		t.Fatal(err)
	}
	l := &lab{t: t, number: number, dir: fmt.Sprintf("/tmp/backing%d", number)}
	l.mkdir(l.dir)
	l.mkdir(configfs + "/loopback")
	return l
}

// spec says how a disk is made.
type spec struct {
	size    int64  // bytes; 0: that of the image, or 64 MiB
	image   string // of the host, becomes the disk's content
	device  string // a block device in place of a file
	sectors int    // 0: 512
}

// drive is a disk that was made.
type drive struct {
	serial  string
	name    string // "sdc"
	backing string
	lun     string // directory of its LUN in configfs
	store   string // directory of its store in configfs
}

func (d drive) path() string { return "/dev/" + d.name }

// add makes a disk and waits until the kernel has it.
func (l *lab) add(s spec) drive {
	l.t.Helper()
	l.next++
	d := drive{serial: fmt.Sprintf("5eed%04x%08x", l.number, l.next), backing: s.device}
	if s.device == "" {
		d.backing = filepath.Join(l.dir, d.serial)
		l.back(d.backing, s)
	}
	d.store = l.store(d, s)
	d.lun = l.expose(d.store, 1)
	d.name = l.waitFor(d.serial, nil)
	return d
}

// back makes the file that holds the disk.
func (l *lab) back(path string, s spec) {
	l.t.Helper()
	if s.image != "" {
		l.run("cp", "--sparse=always", s.image, path)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		l.t.Fatal(err)
	}
	defer f.Close()
	switch {
	case s.size > 0:
		err = f.Truncate(s.size)
	case s.image == "":
		err = f.Truncate(64 << 20)
	}
	if err != nil {
		l.t.Fatal(err)
	}
}

// store makes the target's backing store.
func (l *lab) store(d drive, s spec) string {
	l.t.Helper()
	kind, control := "iblock_0", "udev_path="+s.device
	if s.device == "" {
		info, err := os.Stat(d.backing)
		if err != nil {
			l.t.Fatal(err)
		}
		kind, control = "fileio_0", fmt.Sprintf("fd_dev_name=%s,fd_dev_size=%d", d.backing, info.Size())
	}
	dir := filepath.Join(configfs, "core", kind, d.serial)
	l.mkdir(dir)
	l.write(dir+"/control", control)
	l.write(dir+"/wwn/vpd_unit_serial", d.serial)
	l.write(dir+"/enable", "1")
	if s.sectors != 0 {
		l.write(dir+"/attrib/block_size", fmt.Sprint(s.sectors))
	}
	return dir
}

// expose gives a store to this machine as a LUN of one of the lab's targets.
func (l *lab) expose(store string, path int) string {
	l.t.Helper()
	target := fmt.Sprintf("naa.500140500000%02d%02d", l.number, path)
	tpg := filepath.Join(configfs, "loopback", target, "tpgt_0")
	if _, err := os.Stat(tpg); err != nil {
		l.mkdir(tpg)
		l.write(tpg+"/nexus", strings.Replace(target, "naa.5", "naa.6", 1))
	}
	lun := fmt.Sprintf("%s/lun/lun_%d", tpg, l.luns)
	l.luns++
	l.mkdir(lun)
	if err := os.Symlink(store, lun+"/store"); err != nil {
		l.t.Fatal(err)
	}
	return lun
}

// withdraw takes the LUN away again: the disk is pulled.
func (l *lab) withdraw(d drive) {
	l.t.Helper()
	if err := os.Remove(d.lun + "/store"); err != nil {
		l.t.Fatal(err)
	}
	if err := os.Remove(d.lun); err != nil {
		l.t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat("/sys/block/" + d.name); os.IsNotExist(err) {
			return
		}
		if time.Now().After(deadline) {
			l.t.Fatalf("%s does not go", d.name)
		}
	}
}

// waitFor returns the name of the disk with this serial number that is not among the known.
func (l *lab) waitFor(serial string, known []string) string {
	l.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		pages, _ := filepath.Glob("/sys/block/sd*/device/vpd_pg80")
		for _, page := range pages {
			data, err := os.ReadFile(page)
			name := strings.Split(page, "/")[3]
			if err != nil || !strings.HasSuffix(strings.TrimRight(string(data), "\x00 "), serial) || strings.Contains(strings.Join(known, " ")+" ", name+" ") {
				continue
			}
			if _, err := os.Stat("/dev/" + name); err == nil {
				return name
			}
		}
	}
	l.t.Fatalf("no disk with serial number %s appears", serial)
	return ""
}

// run runs a program that must work.
func (l *lab) run(argv ...string) string {
	l.t.Helper()
	cmd := exec.CommandContext(l.t.Context(), argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "DM_DISABLE_UDEV=1", "IMSM_NO_PLATFORM=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		l.t.Fatalf("%s: %v: %s", strings.Join(argv, " "), err, out)
	}
	return string(out)
}

// poke writes bytes onto a disk and out of the page cache.
func (l *lab) poke(d drive, at int64, data []byte) {
	l.t.Helper()
	f, err := os.OpenFile(d.path(), os.O_WRONLY, 0)
	if err != nil {
		l.t.Fatal(err)
	}
	defer f.Close()
	if at < 0 {
		end, err := f.Seek(0, 2)
		if err != nil {
			l.t.Fatal(err)
		}
		at += end
	}
	if _, err := f.WriteAt(data, at); err != nil {
		l.t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) write(path, text string) {
	l.t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) mkdir(path string) {
	l.t.Helper()
	if err := os.MkdirAll(path, 0o755); err != nil {
		l.t.Fatal(err)
	}
}
