package uml_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-storage/holdfast/tests/uml"
	"github.com/holdfast-storage/holdfast/tests/uml/handover"
)

// TestDisks runs the disk suite in a guest: its disks are LUNs of the kernel's own SCSI
// target, so they have serial numbers and world-wide names.
func TestDisks(t *testing.T) {
	if missing := missingForDisks(); missing != "" {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs " + missing)
		}
		t.Skip("needs " + missing)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("/var/tmp", "hfd")
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
	l := &lab{t: t, dir: dir, root: root}
	diskImages(t, ctx, dir)
	machine := &uml.Machine{
		Init: l.build("guest", "./tests/uml/guest", true), Memory: 1536, Dir: dir,
		Modules: []string{"configfs", "sd_mod", "tcm_loop", "target_core_file", "target_core_iblock", "dm-mod", "dm-crypt", "md-mod", "raid1", "loop", "ext4", "zram", "brd"},
	}
	g, err := machine.Boot(ctx, "disks", l.argv(l.buildSuite("disksuite", "./tests/uml/disks"), "^Test(NoOccupied|ADisk|Kernel|Health)"), []string{handover.Keep + "=" + dir})
	if err != nil {
		t.Fatal(err)
	}
	l.passes(t, ctx, g)
}

// TestAnEncryptedOSD runs an OSD on dm-crypt in a guest that is a node of a real cluster.
func TestAnEncryptedOSD(t *testing.T) {
	for _, missing := range []string{uml.Missing(), missingForDisks()} {
		if missing == "" {
			continue
		}
		if os.Getenv("CI") == "true" {
			t.Fatal("needs " + missing)
		}
		t.Skip("needs " + missing)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	l := newLab(t, ctx)
	machine := &uml.Machine{
		Init: l.build("guest", "./tests/uml/guest", true), Memory: 1536, Network: l.network, Address: "10.99.0.2/24", Dir: l.dir,
		Modules: []string{"dm-mod", "dm-crypt", "loop"},
	}
	g, err := machine.Boot(ctx, "osd", l.argv(l.buildSuite("disksuite", "./tests/uml/disks"), "^TestAnEncryptedOSD$"), l.env())
	if err != nil {
		t.Fatal(err)
	}
	l.passes(t, ctx, g)
}

// missingForDisks returns what this machine lacks, "" if nothing.
func missingForDisks() string {
	var packages []string
	for program, pkg := range map[string]string{
		"linux.uml": "user-mode-linux", "modprobe": "kmod", "ceph-osd": "ceph-osd", "mkfs.xfs": "xfsprogs", "mkfs.ext4": "e2fsprogs", "mkfs.btrfs": "btrfs-progs",
		"mkfs.vfat": "dosfstools", "mdadm": "mdadm", "lvm": "lvm2", "cryptsetup": "cryptsetup-bin", "sgdisk": "gdisk", "parted": "parted", "dmsetup": "dmsetup", "smartctl": "smartmontools",
	} {
		if _, err := exec.LookPath(program); err != nil {
			packages = append(packages, pkg)
		}
	}
	if len(packages) > 0 {
		return "apt-get install -y " + strings.Join(packages, " ")
	}
	if os.Geteuid() != 0 {
		return "root"
	}
	return ""
}

// diskImages makes what needs no kernel of its own: partition tables, and OSDs of two clusters.
func diskImages(t *testing.T, ctx context.Context, dir string) {
	t.Helper()
	for name, args := range map[string][]string{
		"gpt": {"--new=1:2048:+24M", "--new=2:0:+8M"}, "gpt-empty": {"--clear"}, "dos": {"--new=1:2048:+24M", "--gpttombr=1"},
	} {
		path := filepath.Join(dir, name+".img")
		sparseFile(t, path, 64<<20)
		run(t, ctx, append(append([]string{"sgdisk"}, args...), path)...)
	}
	for name, fsid := range map[string]string{"osd-own": "aaaaaaaa-8888-4777-8666-555555555555", "osd-foreign": "99999999-8888-4777-8666-555555555555"} {
		data := filepath.Join(dir, name)
		if err := os.Mkdir(data, 0o755); err != nil {
			t.Fatal(err)
		}
		sparseFile(t, filepath.Join(data, "block"), 1<<30)
		run(t, ctx, "ceph-osd", "-i", "7", "--mkfs", "--osd-data", data, "--osd-objectstore", "bluestore", "--osd-uuid", "11111111-2222-4333-8444-555555555555",
			"--fsid", fsid, "--no-mon-config", "--conf", "/dev/null", "--log-file", "/dev/null", "--mkkey", "--keyring", filepath.Join(data, "keyring"))
		if err := os.Rename(filepath.Join(data, "block"), filepath.Join(dir, name+".img")); err != nil {
			t.Fatal(err)
		}
	}
}

func sparseFile(t *testing.T, path string, size int64) {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
}

func run(t *testing.T, ctx context.Context, argv ...string) {
	t.Helper()
	if out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(argv, " "), err, out)
	}
}
