package volumes

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/csi/volumeid"
	"github.com/holdfast-storage/holdfast/pkg/csiclient"
	"github.com/holdfast-storage/holdfast/pkg/rpc/volumeapi"
)

// legacy is a volume as ceph-csi v3 leaves it: what it writes to its journal, and in which order, is read from
// its sources (internal/journal/voljournal.go, internal/rbd/rbd_journal.go, internal/cephfs/store/fsjournal.go).
type legacy struct {
	bed             *bed
	driver          string
	uuid, name      string
	image           string
	id              string // the handle
	pool, namespace string // of the journal
}

func newLegacy(t *testing.T, b *bed, driver string) *legacy {
	var raw [16]byte
	_, _ = rand.Read(raw[:])
	h := hex.EncodeToString(raw[:])
	v := &legacy{bed: b, driver: driver, uuid: strings.Join([]string{h[:8], h[8:12], h[12:16], h[16:20], h[20:]}, "-")}
	v.name, v.image = "pvc-"+strings.ToLower(rand.Text()[:8]), "csi-vol-"+v.uuid
	v.pool = "rbd"
	location := poolID(t, b, "rbd")
	if driver == "cephfs" {
		v.namespace = "csi"
		for _, fs := range filesystems(t, b) {
			location, v.pool = fs.id, fs.metadata
		}
	}
	v.id = volumeid.Foreign{Cluster: string(b.Entry.ID), Location: location, UUID: v.uuid}.String()
	return v
}

type filesystem struct {
	id       int64
	metadata string
}

func filesystems(t *testing.T, b *bed) (list []filesystem) {
	t.Helper()
	var dump struct {
		Filesystems []struct {
			ID     int64 `json:"id"`
			MDSMap struct {
				Metadata int64 `json:"metadata_pool"`
			} `json:"mdsmap"`
		} `json:"filesystems"`
	}
	decode(t, b.Tool(t, "ceph", "fs", "dump", "-f", "json"), &dump)
	for _, f := range dump.Filesystems {
		for name, id := range pools(t, b) {
			if id == f.MDSMap.Metadata {
				list = append(list, filesystem{f.ID, name})
			}
		}
	}
	return list
}

func decode(t *testing.T, text string, into any) {
	t.Helper()
	if i := strings.IndexAny(text, "{["); i > 0 {
		text = text[i:]
	}
	if err := json.Unmarshal([]byte(text), into); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
}

func pools(t *testing.T, b *bed) map[string]int64 {
	t.Helper()
	var list []struct {
		Num  int64  `json:"poolnum"`
		Name string `json:"poolname"`
	}
	decode(t, b.Tool(t, "ceph", "osd", "lspools", "-f", "json"), &list)
	byName := map[string]int64{}
	for _, p := range list {
		byName[p.Name] = p.Num
	}
	return byName
}

func poolID(t *testing.T, b *bed, name string) int64 { return pools(t, b)[name] }

func (v *legacy) rados(t *testing.T, args ...string) string {
	t.Helper()
	argv := append([]string{"rados", "-p", v.pool}, args...)
	if v.namespace != "" {
		argv = append(argv, "--namespace", v.namespace)
	}
	return v.bed.Tool(t, argv...)
}

// reserve writes the journal.
func (v *legacy) reserve(t *testing.T, more map[string]string) {
	t.Helper()
	object := "csi.volume." + v.uuid
	v.rados(t, "create", object)
	v.rados(t, "setomapval", "csi.volumes.default", "csi.volume."+v.name, v.uuid)
	v.rados(t, "setomapval", object, "csi.volname", v.name)
	v.rados(t, "setomapval", object, "csi.imagename", v.image)
	v.rados(t, "setomapval", object, "csi.volume.owner", "default")
	for key, value := range more {
		v.rados(t, "setomapval", object, key, value)
	}
	t.Cleanup(func() {
		_, _ = v.bed.TryTool("rados", "-p", v.pool, "--namespace", v.namespace, "rmomapkey", "csi.volumes.default", "csi.volume."+v.name)
		_, _ = v.bed.TryTool("rados", "-p", v.pool, "--namespace", v.namespace, "rm", object)
	})
}

// size is how large volumes are at first, in bytes: xfs wants 300 MiB.
const size = 320 << 20

// content is what the volume holds before Holdfast knows of it.
const content = "written before Holdfast came"

// fill makes the image or subvolume with a file in it.
func (v *legacy) fill(t *testing.T) {
	t.Helper()
	if v.driver == "cephfs" {
		v.fillSubvolume(t)
		return
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "kept"), []byte(content))
	disk, proto := filepath.Join(t.TempDir(), "disk"), filepath.Join(dir, "proto")
	write(t, proto, []byte("/\n0 0\nd--755 0 0\nkept ---644 0 0 "+filepath.Join(dir, "kept")+"\n$\n"))
	write(t, disk, nil)
	if err := os.Truncate(disk, size); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.xfs", "-q", "-p", proto, disk).CombinedOutput(); err != nil {
		t.Fatalf("mkfs: %v\n%s", err, out)
	}
	v.bed.Tool(t, "rbd", "import", "--no-progress", "--image-feature", "layering", disk, "rbd/"+v.image)
	t.Cleanup(func() { _, _ = v.bed.TryTool("rbd", "rm", "--no-progress", "rbd/"+v.image) })
	var info struct{ ID string }
	decode(t, v.bed.Tool(t, "rbd", "info", "--format", "json", "rbd/"+v.image), &info)
	v.rados(t, "setomapval", "csi.volume."+v.uuid, "csi.imageid", info.ID)
}

// fillSubvolume has Ceph copy the files of another volume.
func (v *legacy) fillSubvolume(t *testing.T) {
	t.Helper()
	from := v.bed.volume(t, "--type", "cephfs", "--size", "320MiB")
	at := v.bed.mount(t, from)
	write(t, filepath.Join(at, "kept"), []byte(content))
	v.bed.run(t, "umount", from.ID)
	source := filepath.Base(filepath.Dir(from.Context["subvolumePath"]))
	subvolume := func(args ...string) string {
		return v.bed.Tool(t, append([]string{"ceph", "fs", "subvolume"}, args...)...)
	}
	subvolume("snapshot", "create", "cephfs", source, "s", "--group_name", "csi")
	subvolume("snapshot", "clone", "cephfs", source, "s", v.image, "--group_name", "csi", "--target_group_name", "csi")
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(200 * time.Millisecond) {
		if out := v.bed.Tool(t, "ceph", "fs", "clone", "status", "cephfs", v.image, "--group_name", "csi"); strings.Contains(out, "complete") {
			break
		} else if time.Now().After(deadline) {
			t.Fatal(out)
		}
	}
	subvolume("snapshot", "rm", "cephfs", source, "s", "--group_name", "csi")
	t.Cleanup(func() {
		_, _ = v.bed.TryTool("ceph", "fs", "subvolume", "rm", "cephfs", v.image, "--group_name", "csi")
	})
}

// left is what is still there of it.
func (v *legacy) left(t *testing.T) string {
	t.Helper()
	var found []string
	for _, line := range strings.Split(v.rados(t, "ls"), "\n") {
		if strings.Contains(line, v.uuid) {
			found = append(found, "object "+line)
		}
	}
	if out := v.rados(t, "listomapkeys", "csi.volumes.default"); strings.Contains(out, v.name) {
		found = append(found, "key "+v.name)
	}
	if v.driver == "rbd" {
		for _, argv := range [][]string{{"rbd", "ls", "rbd"}, {"rbd", "trash", "ls", "--all", "rbd"}} {
			for _, line := range strings.Split(v.bed.Tool(t, argv...), "\n") {
				if strings.Contains(line, strings.ReplaceAll(v.uuid, "-", "")) || strings.Contains(line, v.uuid) {
					found = append(found, "image "+line)
				}
			}
		}
	} else if out := v.bed.Tool(t, "ceph", "fs", "subvolume", "ls", "cephfs", "--group_name", "csi"); strings.Contains(out, v.image) {
		found = append(found, "subvolume "+v.image)
	}
	return strings.Join(found, "; ")
}

func (v *legacy) adoptable(t *testing.T) volumeapi.Adoptable {
	t.Helper()
	for _, a := range read[[]volumeapi.Adoptable](t, v.bed, "adopt", "list") {
		if strings.HasSuffix(a.ID, v.uuid) {
			return a
		}
	}
	t.Fatalf("%s is not listed", v.id)
	return volumeapi.Adoptable{}
}

func (v *legacy) kept(t *testing.T, at string) {
	t.Helper()
	if data, err := os.ReadFile(filepath.Join(at, "kept")); err != nil || string(data) != content {
		t.Fatalf("read %q, %v", data, err)
	}
}

// available is how many bytes df shows as free.
func available(t *testing.T, at string) uint64 {
	t.Helper()
	var fs unix.Statfs_t
	if err := unix.Statfs(at, &fs); err != nil {
		t.Fatal(err)
	}
	return fs.Bavail * uint64(fs.Bsize)
}

func TestAVolumeOfCephCSIIsAdopted(t *testing.T) {
	b := newBed(t)
	for _, driver := range []string{"rbd", "cephfs"} {
		t.Run(driver, func(t *testing.T) {
			v := newLegacy(t, b, driver)
			v.reserve(t, nil)
			v.fill(t)
			if a := v.adoptable(t); a.ID != v.id || a.Name != v.name || a.Backend != v.image || a.Bytes != size || a.Adopted || a.Refused != "" {
				t.Fatalf("listed as %+v", a)
			}
			found := read[csiclient.Volume](t, b, "show", v.id)
			if found.ID != v.id || found.Name != v.name {
				t.Fatalf("shown as %+v", found)
			}
			target := filepath.Join(t.TempDir(), "at")
			b.run(t, "mount", v.id, target)
			t.Cleanup(func() { _, _, _ = b.try("umount", v.id) })
			v.kept(t, target)
			write(t, filepath.Join(target, "new"), []byte("by Holdfast"))
			if a := v.adoptable(t); !a.Adopted {
				t.Errorf("listed as %+v", a)
			}
			if out := b.run(t, "list"); !strings.Contains(out, v.name) || !strings.Contains(out, driver+" (ceph-csi)") {
				t.Errorf("the list lacks it:\n%s", out)
			}
			b.run(t, "expand", v.id, "480MiB")
			if free := available(t, target); free < 380<<20 {
				t.Errorf("%d bytes are free after the volume was expanded", free)
			}
			b.refused(t, []string{"is mounted at"}, "delete", v.id, "--yes")
			b.run(t, "umount", v.id)
			b.run(t, "mount", v.id, target)
			v.kept(t, target)
			b.run(t, "umount", v.id)
			b.run(t, "delete", v.id, "--yes")
			for deadline := time.Now().Add(time.Minute); v.left(t) != ""; time.Sleep(300 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatal(v.left(t))
				}
			}
			b.refused(t, []string{"there is no volume"}, "delete", v.id, "--yes")
			elsewhere := volumeid.Foreign{Cluster: string(b.Entry.ID), Location: poolID(t, b, "device_health_metrics"), UUID: v.uuid}
			b.refused(t, []string{"there is no volume"}, "delete", elsewhere.String(), "--yes")
		})
	}
}

// snapshot takes one as ceph-csi does, and returns its handle.
func (v *legacy) snapshot(t *testing.T) string {
	t.Helper()
	first := "5" // of a UUID like the volume's and not the same
	if strings.HasPrefix(v.uuid, first) {
		first = "6"
	}
	uuid := first + v.uuid[1:]
	name := "csi-snap-" + uuid
	if v.driver == "rbd" {
		rbd := func(args ...string) { v.bed.Tool(t, append([]string{"rbd"}, args...)...) }
		rbd("snap", "create", "--no-progress", "rbd/"+v.image+"@"+name)
		rbd("clone", "--rbd-default-clone-format", "2", "--image-feature", "layering,deep-flatten", "rbd/"+v.image+"@"+name, "rbd/"+name)
		rbd("snap", "rm", "--no-progress", "rbd/"+v.image+"@"+name)
		rbd("snap", "create", "--no-progress", "rbd/"+name+"@"+name)
	} else {
		v.bed.Tool(t, "ceph", "fs", "subvolume", "snapshot", "create", "cephfs", v.image, name, "--group_name", "csi")
	}
	object := "csi.snap." + uuid
	v.rados(t, "setomapval", "csi.snaps.default", "csi.snap.snapshot-"+v.name, uuid)
	v.rados(t, "setomapval", object, "csi.snapname", "snapshot-"+v.name)
	v.rados(t, "setomapval", object, "csi.imagename", name)
	v.rados(t, "setomapval", object, "csi.source", v.image)
	return strings.Replace(v.id, v.uuid, uuid, 1)
}

func TestASnapshotOfCephCSIOutlivesItsVolumeAndIsRestored(t *testing.T) {
	b := newBed(t)
	for _, driver := range []string{"rbd", "cephfs"} {
		t.Run(driver, func(t *testing.T) {
			v := newLegacy(t, b, driver)
			v.reserve(t, nil)
			v.fill(t)
			id := v.snapshot(t)
			b.run(t, "delete", v.id, "--yes")
			restored := read[csiclient.Volume](t, b, "clone", "--from-snapshot", id, v.name+"-restored", "--size", "320MiB")
			t.Cleanup(func() { _, _, _ = b.try("delete", restored.ID, "--yes") })
			at := b.mount(t, restored)
			v.kept(t, at)
			b.run(t, "snapshot", "delete", id, "--yes")
			v.kept(t, at)
			b.run(t, "umount", restored.ID)
			b.run(t, "delete", restored.ID, "--yes")
			v.uuid, v.image = v.uuid[1:], v.image[1:] // that of the snapshot, too
			if driver == "cephfs" {
				v.image = v.uuid
			}
			for deadline := time.Now().Add(time.Minute); v.left(t) != ""; time.Sleep(300 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatal(v.left(t))
				}
			}
			if out := v.rados(t, "listomapkeys", "csi.snaps.default"); strings.Contains(out, v.name) {
				t.Errorf("keys are left:\n%s", out)
			}
		})
	}
}

func TestAnEncryptedVolumeOfCephCSIIsRefusedWithTheReason(t *testing.T) {
	b := newBed(t)
	v := newLegacy(t, b, "rbd")
	v.reserve(t, map[string]string{"csi.volume.encryptKMS": "vault"})
	if a := v.adoptable(t); !strings.Contains(a.Refused, "encrypted by ceph-csi") {
		t.Errorf("listed as %+v", a)
	}
	b.refused(t, []string{"encrypted by ceph-csi"}, "mount", v.id, filepath.Join(t.TempDir(), "at"))
	b.refused(t, []string{"encrypted by ceph-csi"}, "delete", v.id, "--yes")
}

func TestAVolumeThatCephCSIClonedIsDeletedWithoutHarmToTheClone(t *testing.T) {
	b := newBed(t)
	before := images(t, b)
	source, clone := newLegacy(t, b, "rbd"), newLegacy(t, b, "rbd")
	source.reserve(t, nil)
	source.fill(t)
	clone.reserve(t, nil)
	step := func(from, to, snapshot string) { // ceph-csi: createRBDClone
		b.Tool(t, "rbd", "snap", "create", "--no-progress", "rbd/"+from+"@"+snapshot)
		b.Tool(t, "rbd", "clone", "--rbd-default-clone-format", "2", "--image-feature", "layering,deep-flatten", "rbd/"+from+"@"+snapshot, "rbd/"+to)
		b.Tool(t, "rbd", "snap", "rm", "--no-progress", "rbd/"+from+"@"+snapshot)
	}
	temporary := clone.image + "-temp"
	step(source.image, temporary, temporary)
	step(temporary, clone.image, clone.image)

	b.run(t, "delete", source.id, "--yes")
	at := filepath.Join(t.TempDir(), "at")
	b.run(t, "mount", clone.id, at)
	t.Cleanup(func() { _, _, _ = b.try("umount", clone.id) })
	clone.kept(t, at)
	b.run(t, "umount", clone.id)
	if out := b.Tool(t, "rbd", "ls", "rbd"); !strings.Contains(out, volumeid.TombstoneName(strings.ReplaceAll(source.uuid, "-", ""))) {
		t.Errorf("the source of the clone is not kept:\n%s", out)
	}
	b.run(t, "delete", clone.id, "--yes")
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(300 * time.Millisecond) {
		left := slices.DeleteFunc(images(t, b), func(name string) bool { return slices.Contains(before, name) })
		if len(left) == 0 && source.left(t)+clone.left(t) == "" {
			break
		}
		if time.Now().After(deadline) {
			for _, name := range left {
				status, _ := b.TryTool("rbd", "status", "rbd/"+name)
				snapshots, _ := b.TryTool("rbd", "snap", "ls", "--all", "rbd/"+name)
				t.Logf("%s\n%s%s", name, status, snapshots)
			}
			t.Fatalf("left %s; %s; images %s", source.left(t), clone.left(t), left)
		}
	}
}

// images lists those of the pool, and those in its trash.
func images(t *testing.T, b *bed) []string {
	t.Helper()
	return strings.Fields(b.Tool(t, "rbd", "ls", "rbd") + b.Tool(t, "rbd", "trash", "ls", "--all", "rbd"))
}
