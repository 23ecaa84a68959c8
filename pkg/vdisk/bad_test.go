package vdisk_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/vdisk"
)

// change writes a little-endian number of 4 or 8 bytes over a place in a file.
func change(at int64, value any) func(t *testing.T, path string) {
	return func(t *testing.T, path string) {
		t.Helper()
		file, err := os.OpenFile(path, os.O_RDWR, 0)
		must(t, err)
		var b bytes.Buffer
		must(t, binary.Write(&b, binary.LittleEndian, value))
		_, err = file.WriteAt(b.Bytes(), at)
		must(t, errors.Join(err, file.Close()))
	}
}

// shorter cuts bytes off the end.
func shorter(by int64) func(t *testing.T, path string) {
	return func(t *testing.T, path string) {
		t.Helper()
		info, err := os.Stat(path)
		must(t, err)
		must(t, os.Truncate(path, info.Size()-by))
	}
}

// number reads one of 4 bytes.
func number(t *testing.T, path string, at int64) uint32 {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	return binary.LittleEndian.Uint32(data[at:])
}

// firstTable is where the first grain table of a sparse VMDK is.
func firstTable(t *testing.T, path string) int64 {
	t.Helper()
	return int64(number(t, path, int64(number(t, path, 56))*512)) * 512
}

// A damaged image is refused with the field and its offset; no output is left behind, nor memory taken for what a
// header claims.
func TestADamagedImageIsRefusedByItsField(t *testing.T) {
	const size = 12 * mib
	sources := map[string]string{}
	for name, target := range targets {
		made := filepath.Join(t.TempDir(), "whole."+string(target.Format))
		convert(t, rawDisk(t, t.TempDir(), size, 1), made, target)
		sources[name] = made
	}
	for name, c := range map[string]struct {
		of    string
		spoil func(t *testing.T, path string)
		say   string
	}{
		"VDI: blocks":               {"vdi", change(0x180, uint32(1<<31)), "byte 0x180"},
		"VDI: size":                 {"vdi", change(0x170, uint64(1)), "byte 0x170"},
		"VDI: huge":                 {"vdi", func(t *testing.T, p string) { change(0x170, uint64(1<<52))(t, p); change(0x180, uint32(0))(t, p) }, "byte 0x180"},
		"VDI: block size":           {"vdi", change(0x178, uint32(3)), "byte 0x178"},
		"VDI: no type":              {"vdi", change(0x4c, uint32(9)), "byte 0x4c"},
		"VDI: map in header":        {"vdi", change(0x154, uint32(4)), "byte 0x154"},
		"VDI: data in map":          {"vdi", change(0x158, uint32(mib)), "byte 0x158"},
		"VDI: extra data":           {"vdi", change(0x17c, uint32(512)), "byte 0x17c"},
		"VDI: entry out of range":   {"vdi", change(mib, uint32(4711)), "the map at byte 1048576"},
		"VDI: cut off":              {"vdi", shorter(4096), "cut off"},
		"VDI: cut off in its map":   {"vdi", func(t *testing.T, p string) { must(t, os.Truncate(p, mib+8)) }, "cut off"},
		"VMDK: grain size":          {"vmdk monolithicSparse", change(20, uint64(3)), "byte 20"},
		"VMDK: capacity":            {"vmdk monolithicSparse", change(12, uint64(1<<60)), "byte 12"},
		"VMDK: large capacity":      {"vmdk monolithicSparse", change(12, uint64(1<<45)), "byte 12"},
		"VMDK: negative":            {"vmdk monolithicSparse", change(12, int64(-1)), "byte 12"},
		"VMDK: entries":             {"vmdk monolithicSparse", change(44, uint32(1<<30)), "byte 44"},
		"VMDK: directory":           {"vmdk monolithicSparse", change(56, uint64(1<<40)), "byte 56"},
		"VMDK: descriptor":          {"vmdk monolithicSparse", change(36, uint64(1<<40)), "byte 28"},
		"VMDK: sent as text":        {"vmdk monolithicSparse", change(75, uint32(0x0a0a)), "byte 73"},
		"VMDK: version":             {"vmdk monolithicSparse", change(4, uint32(77)), "byte 4"},
		"VMDK: cut off":             {"vmdk monolithicSparse", shorter(4096), "cut off"},
		"VMDK: empty descriptor":    {"vmdk monolithicSparse", change(512, [512]byte{}), "descriptor"},
		"stream: no footer":         {"vmdk streamOptimized", shorter(1024), "footer"},
		"stream: cut off":           {"vmdk streamOptimized", shorter(4096), "footer"},
		"stream: spoiled grain":     {"vmdk streamOptimized", change(65536+40, uint64(4711)), "grain 0 at byte 65536"},
		"stream: wrong grain":       {"vmdk streamOptimized", change(65536, uint64(4711)), "byte 65536"},
		"stream: length of a grain": {"vmdk streamOptimized", change(65536+8, uint32(1<<31)), "byte 65536"},
		"raw: half a sector":        {"raw", shorter(100), "sectors"},
		"VMDK: entry out of range": {"vmdk monolithicSparse", func(t *testing.T, p string) {
			change(firstTable(t, p), uint32(1<<31))(t, p)
		}, "grain table entry at byte"},
		"VMDK: a grain in the header": {"vmdk monolithicSparse", func(t *testing.T, p string) {
			change(firstTable(t, p), uint32(0xffffffff))(t, p)
		}, "grain table entry at byte"},
	} {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			path := filepath.Join(folder, "bad"+filepath.Ext(sources[c.of]))
			data, err := os.ReadFile(sources[c.of])
			must(t, err)
			must(t, os.WriteFile(path, data, 0o600))
			c.spoil(t, path)
			i, err := vdisk.Open(path, vdisk.Options{Format: targets[c.of].Format})
			if err == nil {
				err = vdisk.Convert(t.Context(), i, vdisk.Target{Path: filepath.Join(folder, "out.img"), Format: vdisk.Raw}, nil)
				damage, _, _ := i.Check(5)
				if len(damage) == 0 {
					t.Error("the check finds nothing")
				}
				must(t, i.Close())
			}
			if err == nil || !strings.Contains(err.Error(), c.say) || !errors.Is(err, fault.Invalid) && !errors.Is(err, fault.Unsupported) {
				t.Errorf("%v", err)
			}
			left, err := os.ReadDir(folder)
			if must(t, err); len(left) != 1 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

func TestTwoBlocksInOnePlaceAreFound(t *testing.T) {
	for name, place := range map[string]func(t *testing.T, path string) int64{
		"vdi":                   func(*testing.T, string) int64 { return mib },
		"vmdk monolithicSparse": firstTable,
	} {
		made := filepath.Join(t.TempDir(), "twice."+string(targets[name].Format))
		convert(t, rawDisk(t, t.TempDir(), 12*mib, 1), made, targets[name])
		at := place(t, made)
		change(at+4*3, number(t, made, at))(t, made)
		i := open(t, made)
		damage, _, err := i.Check(10)
		if must(t, err); len(damage) == 0 || !strings.Contains(strings.Join(damage, "\n"), "another is, too") && !strings.Contains(strings.Join(damage, "\n"), "which another block is, too") {
			t.Errorf("%s: %q", name, damage)
		}
	}
}

// An image that names files elsewhere would put what is in them into what is made of it.
func TestAnImageDoesNotReachOutOfItsFolder(t *testing.T) {
	const head = "# Disk DescriptorFile\nversion=1\nCID=123\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n"
	folder := t.TempDir()
	must(t, os.WriteFile(filepath.Join(folder, "secret"), make([]byte, mib), 0o600))
	inner := filepath.Join(folder, "inner")
	must(t, os.Mkdir(inner, 0o700))
	for _, name := range []string{filepath.Join(folder, "secret"), "../secret", `..\secret`, "a/../../secret", "/dev/zero", ""} {
		path := filepath.Join(inner, "d.vmdk")
		must(t, os.WriteFile(path, []byte(head+"RW 2048 FLAT \""+name+"\" 0\n"), 0o600))
		if _, err := vdisk.Open(path, vdisk.Options{}); !errors.Is(err, fault.Precondition) && !errors.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestASnapshotIsReadThroughItsParents(t *testing.T) {
	folder := t.TempDir()
	base := rawDisk(t, folder, 12*mib, 1)
	convert(t, base, filepath.Join(folder, "base.vmdk"), targets["vmdk monolithicSparse"])
	tool(t, "qemu-img", "create", "-q", "-f", "vmdk", "-b", filepath.Join(folder, "base.vmdk"), "-F", "vmdk", filepath.Join(folder, "snap.vmdk"))
	tool(t, "qemu-io", "-f", "vmdk", "-c", "write -P 7 1M 100k", "-c", "write -P 9 11M 64k", filepath.Join(folder, "snap.vmdk"))
	tool(t, "qemu-img", "convert", "-O", "raw", filepath.Join(folder, "snap.vmdk"), filepath.Join(folder, "want.img"))
	i := open(t, filepath.Join(folder, "snap.vmdk"))
	if len(i.Parents) != 1 || digest(t, i) != digest(t, open(t, filepath.Join(folder, "want.img"))) {
		t.Errorf("parents %v: another disk", i.Parents)
	}

	t.Run("a parent that was changed", func(t *testing.T) {
		other := t.TempDir()
		for _, name := range []string{"base.vmdk", "snap.vmdk"} {
			data, err := os.ReadFile(filepath.Join(folder, name))
			must(t, err)
			if name == "base.vmdk" {
				at := bytes.Index(data, []byte("CID="))
				copy(data[at+4:], "0badc1d0")
			}
			must(t, os.WriteFile(filepath.Join(other, name), data, 0o600))
		}
		if _, err := vdisk.Open(filepath.Join(other, "snap.vmdk"), vdisk.Options{}); !errors.Is(err, fault.Precondition) {
			t.Errorf("%v", err)
		}
	})
	t.Run("no parent", func(t *testing.T) {
		other := filepath.Join(t.TempDir(), "snap.vmdk")
		data, err := os.ReadFile(filepath.Join(folder, "snap.vmdk"))
		must(t, err)
		must(t, os.WriteFile(other, data, 0o600))
		if _, err := vdisk.Open(other, vdisk.Options{}); !errors.Is(err, fault.NotFound) || !strings.Contains(err.Error(), "--parent-dir") {
			t.Errorf("%v", err)
		}
		i, err := vdisk.Open(other, vdisk.Options{ParentDirs: []string{folder}})
		if must(t, err); len(i.Parents) != 1 {
			t.Errorf("parents %v", i.Parents)
		}
		must(t, i.Close())
	})
	t.Run("its own parent", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "self.vmdk")
		data, err := os.ReadFile(filepath.Join(folder, "snap.vmdk"))
		must(t, err)
		text := string(data[512 : 512+20*512])
		text = strings.Replace(text, filepath.Join(folder, "base.vmdk"), "self.vmdk", 1)
		for _, line := range strings.Split(text, "\n") {
			if id, ok := strings.CutPrefix(line, "parentCID="); ok {
				text = strings.Replace(text, "\nCID="+fieldOf(text, "CID="), "\nCID="+id, 1)
			}
		}
		copy(data[512:512+20*512], make([]byte, 20*512))
		copy(data[512:], strings.TrimRight(text, "\x00"))
		must(t, os.WriteFile(path, data, 0o600))
		if _, err := vdisk.Open(path, vdisk.Options{}); !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "its own parents") {
			t.Errorf("%v", err)
		}
	})
}

func fieldOf(text, key string) string {
	for _, line := range strings.Split(text, "\n") {
		if value, ok := strings.CutPrefix(line, key); ok {
			return value
		}
	}
	return ""
}

func TestADiskInAnArchiveIsRead(t *testing.T) {
	folder := t.TempDir()
	source := rawDisk(t, folder, 12*mib, 5)
	convert(t, source, filepath.Join(folder, "disk1.vmdk"), targets["vmdk streamOptimized"])
	must(t, os.WriteFile(filepath.Join(folder, "a.ovf"), []byte("<Envelope/>"), 0o600))
	ova := filepath.Join(folder, "appliance.ova")
	tool(t, "tar", "-C", folder, "--format=ustar", "-cf", ova, "a.ovf", "disk1.vmdk")
	for _, path := range []string{ova, ova + ":disk1.vmdk"} {
		i := open(t, path)
		if i.Member != "disk1.vmdk" || i.Subformat != "streamOptimized" || digest(t, i) != digest(t, open(t, source)) {
			t.Errorf("%s: %+v", path, i)
		}
	}
	convert(t, source, filepath.Join(folder, "disk2.vmdk"), targets["vmdk streamOptimized"])
	tool(t, "tar", "-C", folder, "--format=ustar", "-rf", ova, "disk2.vmdk")
	if _, err := vdisk.Open(ova, vdisk.Options{}); err == nil || !strings.Contains(err.Error(), "appliance.ova:disk1.vmdk, :disk2.vmdk") {
		t.Errorf("%v", err)
	}
}

// Neither a link nor an archive leads out of the folder, and what is no file is not waited for.
func TestExtentsAreFilesOfTheFolder(t *testing.T) {
	const head = "# Disk DescriptorFile\nversion=1\nCID=123\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\nRW 2048 FLAT \"d-flat.vmdk\" 0\n"
	outside := filepath.Join(t.TempDir(), "secret")
	must(t, os.WriteFile(outside, make([]byte, mib), 0o600))
	for name, place := range map[string]func(path string) error{
		"a link":      func(path string) error { return os.Symlink(outside, path) },
		"a pipe":      func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"a directory": func(path string) error { return os.Mkdir(path, 0o700) },
	} {
		folder := t.TempDir()
		must(t, os.WriteFile(filepath.Join(folder, "d.vmdk"), []byte(head), 0o600))
		must(t, place(filepath.Join(folder, "d-flat.vmdk")))
		if _, err := vdisk.Open(filepath.Join(folder, "d.vmdk"), vdisk.Options{}); err == nil {
			t.Errorf("%s: it is read", name)
		}
		if err := vdisk.Grow(filepath.Join(folder, "d.vmdk"), vdisk.Options{}, 2*mib); err == nil {
			t.Errorf("%s: it is grown", name)
		}
	}
	if info, err := os.Stat(outside); err != nil || info.Size() != mib {
		t.Errorf("%v, %v", info.Size(), err)
	}

	folder := t.TempDir()
	must(t, os.WriteFile(filepath.Join(folder, "d.vmdk"), []byte(head), 0o600))
	must(t, os.WriteFile(filepath.Join(folder, "d-flat.vmdk"), make([]byte, mib), 0o600))
	tool(t, "tar", "-C", folder, "--format=ustar", "-cf", filepath.Join(folder, "x.ova"), "d.vmdk")
	if _, err := vdisk.Open(filepath.Join(folder, "x.ova"), vdisk.Options{}); !errors.Is(err, fault.Unsupported) {
		t.Errorf("%v", err)
	}
	i, err := vdisk.Open(filepath.Join(folder, "x.ova"), vdisk.Options{Format: vdisk.Raw})
	must(t, err)
	if i.Format != vdisk.Raw || i.Member != "" {
		t.Errorf("an archive that is said to be a raw disk is opened as %+v", i)
	}
	must(t, i.Close())
}

func TestExtentsThatAreTooLargeTogetherAreRefused(t *testing.T) {
	text := "# Disk DescriptorFile\nversion=1\nCID=123\nparentCID=ffffffff\ncreateType=\"custom\"\n" + strings.Repeat("RW 1125899906842624 ZERO\n", 17)
	path := filepath.Join(t.TempDir(), "d.vmdk")
	must(t, os.WriteFile(path, []byte(text), 0o600))
	if _, err := vdisk.Open(path, vdisk.Options{}); !errors.Is(err, fault.Invalid) {
		t.Errorf("%v", err)
	}
}
