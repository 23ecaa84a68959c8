package volumes

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/holdfast-storage/holdfast/pkg/csiclient"
)

const (
	backedUp = 64 << 20 // bytes of the volume
	block    = 64 << 10 // of what is written at once
)

// TestABackupToolCopiesOnlyWhatChanged does as a backup tool does: a full copy of what the first snapshot holds, then
// what the second one has changed, each read from a volume that was restored from the snapshot.
func TestABackupToolCopiesOnlyWhatChanged(t *testing.T) {
	b := newBed(t)
	tool := newBackup(t, b)
	v := b.volume(t, "--size", "64MiB", "--block")
	device := b.device(t, v)
	content := make([]byte, backedUp)
	for i, at := range []int{0, 5 << 20, 31<<20 + 3*block, backedUp - block} {
		tool.write(t, device, content, at, byte(i+1))
	}
	first := b.snapshot(t, v, "first")
	copied := make([]byte, backedUp)
	n := tool.copy(t, b, first, copied, tool.allocated(t, first))
	if !bytes.Equal(copied, content) || n > 32<<20 {
		t.Fatalf("the full backup differs, or is large: %d bytes", n)
	}
	tool.write(t, device, content, 5<<20, 0) // zeros are a change, too
	tool.write(t, device, content, 40<<20, 9)
	second := b.snapshot(t, v, "second")
	n = tool.copy(t, b, second, copied, tool.delta(t, first, second))
	if !bytes.Equal(copied, content) || n > 16<<20 {
		t.Fatalf("the incremental backup differs, or is large: %d bytes", n)
	}
}

// device mounts a raw block volume.
func (b *bed) device(t *testing.T, v csiclient.Volume) string {
	t.Helper()
	target := filepath.Join(t.TempDir(), "device")
	b.run(t, "mount", v.ID, target, "--block")
	t.Cleanup(func() { _, _, _ = b.try("umount", v.ID) })
	return target
}

// snapshot takes one that goes with the test, and returns its id.
func (b *bed) snapshot(t *testing.T, v csiclient.Volume, name string) string {
	t.Helper()
	name = v.Name + "-" + name
	s := read[csiclient.Snapshot](t, b, "snapshot", "create", v.Name, name)
	t.Cleanup(func() { b.run(t, "snapshot", "delete", name, "--yes") })
	return s.ID
}

// backup is a client of the service that tells which blocks to copy.
type backup struct {
	changes csi.SnapshotMetadataClient
	secrets map[string]string
}

func newBackup(t *testing.T, b *bed) *backup {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+filepath.Join(b.Dir, "csi", "rbd.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &backup{csi.NewSnapshotMetadataClient(conn), b.Secrets(t)["CreateVolumeSecret"]}
}

// write fills a block of the device and of what it should hold.
func (*backup) write(t *testing.T, device string, content []byte, at int, with byte) {
	t.Helper()
	data := bytes.Repeat([]byte{with}, block)
	copy(content[at:], data)
	f, err := os.OpenFile(device, os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteAt(data, int64(at))
		err = errors.Join(err, f.Sync(), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (tool *backup) allocated(t *testing.T, snapshot string) []*csi.BlockMetadata {
	t.Helper()
	stream, err := tool.changes.GetMetadataAllocated(t.Context(), &csi.GetMetadataAllocatedRequest{SnapshotId: snapshot, Secrets: tool.secrets})
	if err != nil {
		t.Fatal(err)
	}
	return gather(t, func() ([]*csi.BlockMetadata, error) {
		answer, err := stream.Recv()
		return answer.GetBlockMetadata(), err
	})
}

func (tool *backup) delta(t *testing.T, base, target string) []*csi.BlockMetadata {
	t.Helper()
	stream, err := tool.changes.GetMetadataDelta(t.Context(), &csi.GetMetadataDeltaRequest{BaseSnapshotId: base, TargetSnapshotId: target, Secrets: tool.secrets, MaxResults: 1})
	if err != nil {
		t.Fatal(err)
	}
	return gather(t, func() ([]*csi.BlockMetadata, error) {
		answer, err := stream.Recv()
		return answer.GetBlockMetadata(), err
	})
}

func gather(t *testing.T, next func() ([]*csi.BlockMetadata, error)) []*csi.BlockMetadata {
	t.Helper()
	var all []*csi.BlockMetadata
	for {
		blocks, err := next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, blocks...)
	}
}

// copy reads the blocks from a volume restored from the snapshot into the copy, and returns how many bytes that were.
func (*backup) copy(t *testing.T, b *bed, snapshot string, into []byte, blocks []*csi.BlockMetadata) int64 {
	t.Helper()
	name := "v" + strings.ToLower(rand.Text()[:8])
	restored := read[csiclient.Volume](t, b, "clone", "--from-snapshot", snapshot, name)
	t.Cleanup(func() { b.drop(t, restored.ID) })
	f, err := os.Open(b.device(t, restored))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var sum int64
	for _, m := range blocks {
		from, to := m.GetByteOffset(), m.GetByteOffset()+m.GetSizeBytes()
		if _, err := f.ReadAt(into[from:to], from); err != nil {
			t.Fatal(err)
		}
		sum += to - from
	}
	return sum
}
