// Package volumes drives `holdfast volume` on a real cluster: what a person needs beside CSI.
package volumes

import (
	"bytes"
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

	"sigs.k8s.io/yaml"

	"github.com/holdfast-storage/holdfast/csi/volumeid"
	"github.com/holdfast-storage/holdfast/pkg/csiclient"
	"github.com/holdfast-storage/holdfast/pkg/rpc/volumeapi"
	"github.com/holdfast-storage/holdfast/tests/realceph"
)

// bed is the cluster and the program.
type bed struct {
	realceph.Cluster
	program string
}

func newBed(t *testing.T) *bed {
	if os.Geteuid() != 0 {
		realceph.Missing(t, "needs root")
	}
	return &bed{realceph.Need(t), realceph.Binary(t, "holdfast")}
}

// try runs `holdfast volume`; stdout and stderr come back apart.
func (b *bed) try(args ...string) (out, said string, err error) {
	cmd := exec.Command(b.program, append([]string{"--data-dir", b.Dir, "volume"}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	return stdout.String(), stderr.String(), err
}

func (b *bed) run(t *testing.T, args ...string) string {
	t.Helper()
	out, said, err := b.try(args...)
	if err != nil {
		t.Fatalf("holdfast volume %v: %v\n%s%s", args, err, out, said)
	}
	return out
}

// refused runs what must fail, and must say each of want.
func (b *bed) refused(t *testing.T, want []string, args ...string) {
	t.Helper()
	out, said, err := b.try(args...)
	if err == nil {
		t.Fatalf("holdfast volume %v worked:\n%s", args, out)
	}
	for _, w := range want {
		if !strings.Contains(said, w) {
			t.Errorf("holdfast volume %v does not say %q:\n%s", args, w, said)
		}
	}
}

// read runs a verb with -o json.
func read[A any](t *testing.T, b *bed, args ...string) A {
	t.Helper()
	var answer A
	out := b.run(t, append(args, "-o", "json")...)
	if err := json.Unmarshal([]byte(out), &answer); err != nil {
		t.Fatalf("holdfast volume %v: %v\n%s", args, err, out)
	}
	return answer
}

// volume makes a volume that goes with the test.
func (b *bed) volume(t *testing.T, args ...string) csiclient.Volume {
	t.Helper()
	name := "v" + strings.ToLower(rand.Text()[:8])
	v := read[csiclient.Volume](t, b, append([]string{"create", name}, args...)...)
	t.Cleanup(func() { b.drop(t, v.ID) })
	return v
}

func (b *bed) drop(t *testing.T, id string) {
	t.Helper()
	_, _, _ = b.try("umount", id)
	b.run(t, "delete", id, "--yes")
}

func (b *bed) mount(t *testing.T, v csiclient.Volume) string {
	t.Helper()
	target := filepath.Join(t.TempDir(), "at")
	b.run(t, "mount", v.ID, target)
	t.Cleanup(func() { _, _, _ = b.try("umount", v.ID) })
	return target
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	file, err := os.Create(path)
	if err == nil {
		_, err = file.Write(data)
	}
	if err == nil {
		err = file.Sync()
	}
	if err != nil {
		t.Fatal(err)
	}
	file.Close()
}

func TestSnapshotsAndClones(t *testing.T) {
	b := newBed(t)
	for _, driver := range []string{"rbd", "cephfs"} {
		t.Run(driver, func(t *testing.T) {
			v := b.volume(t, "--type", driver, "--size", "64MiB")
			kept := v.Name + "-kept"
			b.run(t, "snapshot", "create", v.Name, kept, "--dry-run")
			if list := read[[]map[string]any](t, b, "snapshot", "list", v.Name); len(list) != 0 {
				t.Fatalf("a dry run made %v", list)
			}
			b.run(t, "snapshot", "create", v.Name, kept)
			list := read[[]map[string]any](t, b, "snapshot", "list", v.Name)
			if len(list) != 1 || list[0]["name"] != kept || list[0]["volume"] != v.Name {
				t.Fatalf("snapshots %v", list)
			}
			completed, err := exec.Command(b.program, "--data-dir", b.Dir, "__complete", "volume", "snapshot", "delete", "").Output()
			if err != nil || !slices.Contains(strings.Fields(string(completed)), kept) {
				t.Errorf("completion: %v\n%s", err, completed)
			}
			b.refused(t, []string{"never smaller"}, "clone", v.Name, v.Name+"-small", "--size", "32MiB")
			restored := read[csiclient.Volume](t, b, "clone", "--from-snapshot", kept, v.Name+"-restored", "--size", "128MiB")
			t.Cleanup(func() { b.drop(t, restored.ID) })
			copied := read[csiclient.Volume](t, b, "clone", v.Name, v.Name+"-copied")
			t.Cleanup(func() { b.drop(t, copied.ID) })
			if restored.Bytes != 128<<20 || copied.Bytes != v.Bytes {
				t.Errorf("sizes %s and %s", restored.Bytes, copied.Bytes)
			}
			wide := b.run(t, "list", "-o", "wide")
			for _, want := range []string{"snapshot " + kept, "volume " + v.Name} {
				if !strings.Contains(wide, want) {
					t.Errorf("the list lacks %q:\n%s", want, wide)
				}
			}
			b.refused(t, []string{"--yes"}, "snapshot", "delete", kept)
			b.run(t, "snapshot", "delete", kept, "--yes")
			b.refused(t, []string{"there is no snapshot"}, "snapshot", "delete", kept, "--yes")
		})
	}
}

func TestOrphansAreFoundAndDeletedAndNothingElse(t *testing.T) {
	b := newBed(t)
	rbd := b.volume(t, "--size", "16MiB")
	b.volume(t, "--type", "cephfs", "--size", "16MiB")
	stray := func() string {
		var id [16]byte
		_, _ = rand.Read(id[:])
		return volumeid.BackendName(hex.EncodeToString(id[:]))
	}
	image, headless, subvolume, snapshot, foreign := stray(), stray(), stray(), stray(), "hf-"+strings.ToLower(rand.Text())
	b.Tool(t, "rbd", "create", "rbd/"+image, "--size", "8M")
	b.Tool(t, "rbd", "create", "rbd/"+foreign, "--size", "8M") // no name of ours
	t.Cleanup(func() { b.Tool(t, "rbd", "rm", "--no-progress", "rbd/"+foreign) })
	b.Tool(t, "rbd", "create", "rbd/"+headless, "--size", "8M")
	id := strings.TrimSpace(b.Tool(t, "rados", "-p", "rbd", "get", "rbd_id."+headless, "-"))
	id = strings.TrimLeft(id[strings.IndexByte(id, 0)+1:], "\x00")
	b.Tool(t, "rados", "-p", "rbd", "rm", "rbd_header."+id)
	b.Tool(t, "ceph", "fs", "subvolume", "create", "cephfs", subvolume, "--group_name", "csi", "--size", "8388608")
	b.Tool(t, "rbd", "snap", "create", "--no-progress", "rbd/"+rbd.Context["image"]+"@"+snapshot)

	find := func() map[string]volumeapi.Orphan {
		byName := map[string]volumeapi.Orphan{}
		for _, o := range read[[]volumeapi.Orphan](t, b, "orphans") {
			byName[o.Name] = o
		}
		return byName
	}
	found := find()
	for name, kind := range map[string]string{
		image: volumeapi.OrphanImage, headless: volumeapi.OrphanName, subvolume: volumeapi.OrphanSubvolume,
		rbd.Context["image"] + "@" + snapshot: volumeapi.OrphanSnapshot,
	} {
		if o := found[name]; o.Kind != kind || o.Why == "" || o.Effect == "" || o.Kept != "" {
			t.Errorf("%s: %+v, want one of kind %s", name, o, kind)
		}
	}
	if len(found) != 4 {
		t.Fatalf("found %v", found)
	}
	watch := exec.Command("rbd", "--conf", filepath.Join(b.Dir, "ceph.conf"), "watch", "rbd/"+image)
	stdin, err := watch.StdinPipe() // it ends with its input
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	out, err := watch.StdoutPipe()
	if err == nil {
		err = watch.Start()
	}
	if err == nil {
		_, err = out.Read(make([]byte, 1)) // it says "press enter to exit" when it watches
	}
	if err != nil {
		t.Fatal(err)
	}
	b.run(t, "orphans", "--delete", "--dry-run")
	b.refused(t, []string{"--yes"}, "orphans", "--delete")
	b.run(t, "orphans", "--delete", "--yes")
	_ = watch.Process.Kill()
	_ = watch.Wait()
	left := find()
	if o, ok := left[image]; len(left) != 1 || !ok || o.Kept == "" {
		t.Fatalf("left %v, want the image that is watched", left)
	}
	// The watch of a client that died lasts for half a minute: it is taken away.
	for _, line := range strings.Split(b.Tool(t, "rbd", "status", "rbd/"+image), "\n") {
		if _, address, ok := strings.Cut(strings.TrimSpace(line), "watcher="); ok {
			address, _, _ = strings.Cut(address, " ")
			b.Tool(t, "ceph", "osd", "blocklist", "add", address, "60")
		}
	}
	b.run(t, "orphans", "--delete", "--yes")
	if left := find(); len(left) != 0 {
		t.Errorf("left %v", left)
	}
	if names := b.Tool(t, "rbd", "ls", "rbd"); strings.Contains(names, image) || strings.Contains(names, headless) || !strings.Contains(names, foreign) {
		t.Errorf("images:\n%s", names)
	}
}

func TestWhyPending(t *testing.T) {
	b := newBed(t)
	name := "v" + strings.ToLower(rand.Text()[:8])
	b.refused(t, []string{"nope"}, "create", name, "--parameter", "pool=nope", "--parameter", "csi.storage.k8s.io/pvc/name="+name+"-claim")
	for _, asked := range []string{name, name + "-claim"} {
		list := read[[]volumeapi.Pending](t, b, "why-pending", asked)
		if len(list) != 1 || !strings.Contains(list[0].Reasons[0].What, `pool "nope" does not exist`) || !strings.Contains(list[0].Reasons[0].Next, "StorageClass") {
			t.Errorf("%s: %+v", asked, list)
		}
	}
	v := b.volume(t, "--size", "320MiB", "--parameter", "csi.storage.k8s.io/pvc/name=data", "--parameter", "csi.storage.k8s.io/pvc/namespace="+name)
	b.mount(t, v)
	if out := b.run(t, "why-pending", name+"/data"); !strings.Contains(out, "has it, as SINGLE_NODE_MULTI_WRITER") {
		t.Error(out)
	}
	if out := b.run(t, "list"); !strings.Contains(out, name+"/data") {
		t.Errorf("the list lacks the claim:\n%s", out)
	}
}

func TestAKeyIsWrappedByANewPassphrase(t *testing.T) {
	b := newBed(t)
	v := b.volume(t, "--size", "320MiB", "--parameter", "encrypted=true")
	at := b.mount(t, v)
	write(t, filepath.Join(at, "kept"), []byte("before"))
	b.run(t, "umount", v.ID)

	path := filepath.Join(b.Dir, "csi", "secrets.yaml")
	original, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	old := b.Secrets(t)["CreateVolumeSecret"]["encryptionPassphrase"]
	rewrapTo := func(fresh, old string) {
		t.Helper()
		file := filepath.Join(t.TempDir(), "secrets.yaml")
		data, err := yaml.Marshal(map[string]string{"encryptionPassphrase": fresh, "encryptionPassphraseOld": old})
		if err == nil {
			err = os.WriteFile(file, data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		b.run(t, "rewrap", v.ID, "--secrets-file", file)
	}
	fresh := rand.Text()
	rewrapTo(fresh, old)
	// A node whose secret is stale says what is lost and what can be tried.
	b.refused(t, []string{"another passphrase", "encryptionPassphraseOld"}, "mount", v.ID, filepath.Join(t.TempDir(), "at"))
	if err := os.WriteFile(path, bytes.ReplaceAll(original, []byte(old), []byte(fresh)), 0o600); err != nil {
		t.Fatal(err)
	}
	restore := func() {
		if err := os.WriteFile(path, original, 0o600); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(restore)
	at = b.mount(t, v)
	if data, err := os.ReadFile(filepath.Join(at, "kept")); string(data) != "before" {
		t.Errorf("read %q, %v", data, err)
	}
	b.run(t, "umount", v.ID)
	restore()
	rewrapTo(old, fresh)
	plain := b.volume(t, "--size", "16MiB")
	b.refused(t, []string{"not encrypted"}, "rewrap", plain.Name)
}

func TestUnusedSpaceIsReclaimed(t *testing.T) {
	b := newBed(t)
	v := b.volume(t, "--size", "320MiB")
	at := b.mount(t, v)
	data := make([]byte, 48<<20)
	write(t, filepath.Join(at, "zeros"), data)
	_, _ = rand.Read(data)
	write(t, filepath.Join(at, "random"), data)
	if err := os.Remove(filepath.Join(at, "random")); err != nil {
		t.Fatal(err)
	}
	trimmed := read[volumeapi.Reclaimed](t, b, "reclaim", v.Name)
	t.Logf("trim: %+v", trimmed)
	// xfs frees deleted files, and issues discards, a moment later.
	for deadline := time.Now().Add(time.Minute); trimmed.After > 60<<20; {
		if time.Now().After(deadline) {
			t.Fatalf("trim: %+v", trimmed)
		}
		again := read[volumeapi.Reclaimed](t, b, "reclaim", v.Name)
		trimmed.After = again.After
	}
	if trimmed.How != "trim" || trimmed.Trimmed < 40<<20 {
		t.Errorf("trim: %+v", trimmed)
	}
	b.run(t, "umount", v.Name)
	sparse := read[volumeapi.Reclaimed](t, b, "reclaim", v.Name)
	t.Logf("sparsify: %+v", sparse)
	if sparse.How != "sparsify" || sparse.Before-sparse.After < 40<<20 {
		t.Errorf("sparsify: %+v", sparse)
	}
	shared := b.volume(t, "--type", "cephfs", "--size", "16MiB")
	b.refused(t, []string{"nothing to reclaim"}, "reclaim", shared.Name)
}
