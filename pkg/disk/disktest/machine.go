// Package disktest builds simulated machines for tests: a directory with the files of sysfs,
// procfs and /dev that a scan reads, and sparse files as disks.
package disktest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Machine is a simulated machine below Root.
type Machine struct {
	Root string
	t    testing.TB
	next int
}

// New makes a machine without disks.
func New(t testing.TB) *Machine {
	m := &Machine{Root: t.TempDir(), t: t}
	m.Write("proc/devices", "Character devices:\n  1 mem\n\nBlock devices:\n  7 loop\n  8 sd\n  9 md\n 11 sr\n 43 nbd\n253 device-mapper\n254 virtblk\n259 blkext\n")
	m.Write("proc/self/mountinfo", "22 1 0:20 / / rw - rootfs none rw\n")
	m.Write("proc/swaps", "Filename\tType\tSize\tUsed\tPriority\n")
	m.mkdir("sys/block")
	m.mkdir("dev/disk/by-id")
	return m
}

// Disk is what a simulated disk is like; what is left out is as on a blank SATA disk.
type Disk struct {
	Name, Device       string
	Size               int64 // bytes
	Model, Vendor, WWN string
	Serial             string
	Logical, Physical  int
	SSD, ReadOnly      bool
	Removable          bool
	Holders, Slaves    []string
	Partitions         []string
	Attributes         map[string]string // further files, below its directory in sysfs
	Missing            []string          // files that are not there
	Link               string            // name below /dev/disk/by-id
	Place              string            // in sysfs, below devices/
	Head               []byte            // what it begins with
	NoDevice           bool              // without a node below /dev
}

// Add adds a disk and returns the path of the file that holds its bytes.
func (m *Machine) Add(d Disk) string {
	m.t.Helper()
	m.next++
	if d.Device == "" {
		d.Device = fmt.Sprintf("8:%d", 16*(m.next-1))
	}
	if d.Logical == 0 {
		d.Logical, d.Physical = 512, 4096
	}
	if d.Place == "" {
		d.Place = fmt.Sprintf("pci0000:00/0000:00:1f.2/ata%[1]d/host%[1]d/target%[1]d:0:0/%[1]d:0:0:0", m.next)
	}
	dir := "sys/devices/" + d.Place + "/block/" + d.Name
	link := filepath.Join(m.Root, "sys/block", d.Name)
	if err := os.Symlink("../devices/"+d.Place+"/block/"+d.Name, link); err != nil {
		m.t.Fatal(err)
	}
	for _, name := range []string{"holders", "slaves", "queue", "device"} {
		m.mkdir(filepath.Join(dir, name))
	}
	for _, name := range d.Partitions {
		m.mkdir(filepath.Join(dir, name, "holders"))
	}
	for name, text := range d.files() {
		m.Write(filepath.Join(dir, name), text)
	}
	for _, name := range d.Missing {
		if err := os.RemoveAll(filepath.Join(m.Root, dir, name)); err != nil {
			m.t.Fatal(err)
		}
	}
	if d.Link != "" {
		if err := os.Symlink("../../"+d.Name, filepath.Join(m.Root, "dev/disk/by-id", d.Link)); err != nil {
			m.t.Fatal(err)
		}
	}
	return m.image(d)
}

func (d Disk) files() map[string]string {
	flag := func(b bool) string {
		if b {
			return "1"
		}
		return "0"
	}
	files := map[string]string{
		"dev": d.Device, "size": fmt.Sprint(d.Size / 512), "ro": flag(d.ReadOnly), "removable": flag(d.Removable), "hidden": "0",
		"queue/logical_block_size": fmt.Sprint(d.Logical), "queue/physical_block_size": fmt.Sprint(d.Physical),
		"queue/rotational": flag(!d.SSD), "queue/zoned": "none", "device/type": "0",
	}
	for name, text := range map[string]string{"device/wwid": d.WWN, "device/vendor": d.Vendor, "device/model": d.Model} {
		if text != "" {
			files[name] = text
		}
	}
	if d.Serial != "" {
		files["device/vpd_pg80"] = "\x00\x80\x00" + string(rune(len(d.Serial))) + d.Serial
	}
	for _, name := range d.Holders {
		files["holders/"+name] = ""
	}
	for _, name := range d.Slaves {
		files["slaves/"+name] = ""
	}
	for i, name := range d.Partitions {
		files[name+"/partition"], files[name+"/start"], files[name+"/size"] = fmt.Sprint(i+1), fmt.Sprint(2048*(i+1)), "2048"
		files[name+"/dev"] = fmt.Sprintf("259:%s%d", strings.TrimPrefix(d.Device, "8:"), i)
	}
	for name, text := range d.Attributes {
		files[name] = text
	}
	return files
}

// image makes the file that holds the disk's bytes.
func (m *Machine) image(d Disk) string {
	path := filepath.Join(m.Root, "dev", d.Name)
	if d.NoDevice {
		return path
	}
	if err := os.WriteFile(path, d.Head, 0o600); err != nil {
		m.t.Fatal(err)
	}
	if err := os.Truncate(path, d.Size); err != nil {
		m.t.Fatal(err)
	}
	return path
}

// Write writes a file of the machine.
func (m *Machine) Write(name, text string) {
	m.t.Helper()
	m.mkdir(filepath.Dir(name))
	if err := os.WriteFile(filepath.Join(m.Root, name), []byte(text), 0o600); err != nil {
		m.t.Fatal(err)
	}
}

func (m *Machine) mkdir(name string) {
	if err := os.MkdirAll(filepath.Join(m.Root, name), 0o755); err != nil {
		m.t.Fatal(err)
	}
}
