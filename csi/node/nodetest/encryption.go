package nodetest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-storage/holdfast/csi/attach"
	"github.com/holdfast-storage/holdfast/csi/kms"
	"github.com/holdfast-storage/holdfast/csi/luks"
	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// encryptedVolume makes an encrypted image for size bytes of data.
func (b *bench) encryptedVolume(size storage.Bytes, passphrase string) *volume {
	b.t.Helper()
	v := b.imageVolume(size + luks.HeaderSize)
	ctx, key := b.t.Context(), storage.NewSecret(random(32))
	wrapped, err := kms.Config{}.Keyring(map[string]string{kms.Passphrase: passphrase}).Wrap(ctx, "", key)
	b.must(err)
	data, err := json.Marshal(wrapped)
	b.must(err)
	header, err := luks.Header(ctx, command.System{}, key)
	b.must(err)
	b.must(b.images().SetMetadata(ctx, v.image, map[string]string{kms.ImageMetadata: string(data)}))
	b.must(b.images().Write(ctx, v.image, 0, header))
	v.context["encrypted"], v.passphrase, v.size = "true", passphrase, size
	return v
}

// encryptedImage: the file system stands on plain data, the image holds none of it.
func encryptedImage(t *testing.T, env Env) {
	b := newBench(t, env)
	ctx := t.Context()
	v, c := b.encryptedVolume(384*storage.MiB, "correct horse"), mountCap("xfs", rwo)
	target := b.path("sealed pod")
	v.passphrase = "wrong"
	if err := v.stage(ctx, b.rbd, c); !errors.Is(err, fault.Denied) || !strings.Contains(err.Error(), kms.OldPassphrase) {
		t.Fatalf("staged with a wrong passphrase: got %v, want denied and what can be tried", err)
	}
	v.passphrase = "correct horse"
	for range 2 {
		b.must(v.stage(ctx, b.rbd, c))
		b.must(v.publish(ctx, b.rbd, c, target, false))
	}
	secret := bytes.Repeat([]byte("비밀 nobody may read this. "), 1<<12)
	b.must(os.WriteFile(filepath.Join(target, "secret"), secret, 0o600))
	before := b.total(v, target)
	b.must(b.images().Resize(ctx, v.image, 512*storage.MiB+luks.HeaderSize))
	for range 2 {
		b.must(v.expand(ctx, b.rbd, target, 512*storage.MiB))
	}
	if after := b.total(v, target); after < before+100<<20 {
		t.Errorf("grown online from %d to %d bytes, want 128 MiB more", before, after)
	}
	b.rbd = b.newNode("n1", storage.RBD) // the plugin restarts
	b.must(v.stage(ctx, b.rbd, c))
	b.must(v.unpublish(ctx, b.rbd, target))
	b.must(v.unstage(ctx, b.rbd))
	b.unwatched(v)
	b.sealed(v, secret[:64])

	b.must(v.stage(ctx, b.rbd, c))
	b.must(v.publish(ctx, b.rbd, c, target, false))
	if got, err := os.ReadFile(filepath.Join(target, "secret")); err != nil || !bytes.Equal(got, secret) {
		t.Errorf("read back %d bytes, %v", len(got), err)
	}
	b.must(v.unpublish(ctx, b.rbd, target))
	b.must(v.unstage(ctx, b.rbd))
	b.unwatched(v)
}

// encryptedBlock: a raw device shows plain data of the size that was asked for.
func encryptedBlock(t *testing.T, env Env) {
	b := newBench(t, env)
	ctx := t.Context()
	v, c := b.encryptedVolume(32*storage.MiB, "p"), blockCap(rwo)
	target := b.path("sealed device")
	content := bytes.Repeat([]byte("plainly "), 1<<17)
	b.must(v.stage(ctx, b.rbd, c))
	b.must(v.publish(ctx, b.rbd, c, target, false))
	b.must(writeDevice(target, content))
	r, err := v.stats(ctx, b.rbd, target)
	b.must(err)
	if total := r.GetUsage()[0].GetTotal(); total != int64(v.size) {
		t.Errorf("the device has %d bytes, want %d", total, v.size)
	}
	b.must(v.unpublish(ctx, b.rbd, target))
	b.must(v.unstage(ctx, b.rbd))
	b.unwatched(v)
	b.sealed(v, content[:64])
}

// sealed fails if the image itself shows the text anywhere, or is no LUKS volume.
func (b *bench) sealed(v *volume, text []byte) {
	b.t.Helper()
	devices := attach.NewDevices(attach.Config{Socket: b.socket, Runner: command.System{}, Log: b.log})
	defer devices.Close()
	fsid, err := b.cluster.FSID(b.t.Context())
	b.must(err)
	dev, err := devices.Attach(b.t.Context(), attach.Image{
		Volume: "raw " + v.id, FSID: fsid, Endpoint: b.Entry.Endpoint(), Credentials: b.Node, Pool: b.Pool, Namespace: b.Entry.RadosNamespace,
		Name: v.image, ReadOnly: true, Mounter: b.RBDMounter,
	})
	b.must(err)
	f, err := os.Open(dev.Path)
	b.must(err)
	raw, err := io.ReadAll(io.LimitReader(f, 64<<20))
	b.must(errors.Join(err, f.Close(), devices.Detach(b.t.Context(), dev)))
	if !bytes.HasPrefix(raw, []byte("LUKS\xba\xbe")) {
		b.t.Errorf("the image begins with %q, no LUKS header", raw[:8])
	}
	if bytes.Contains(raw, text) {
		b.t.Error("the image shows what was written")
	}
}
