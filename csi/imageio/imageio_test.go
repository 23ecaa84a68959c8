package imageio_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/holdfast-storage/holdfast/csi/admin"
	"github.com/holdfast-storage/holdfast/csi/clustermap"
	"github.com/holdfast-storage/holdfast/csi/imageio"
	"github.com/holdfast-storage/holdfast/csi/server"
	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/ceph/cephtest"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/rpc/volumeapi"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

type clusters struct{}

func (clusters) Cluster(id storage.ClusterID) (clustermap.Cluster, error) {
	return clustermap.Cluster{ID: id, Monitors: []string{"m"}}, nil
}

func (c clusters) Clusters() ([]clustermap.Cluster, error) {
	one, err := c.Cluster("c1")
	return []clustermap.Cluster{one}, err
}

func (clusters) Credentials(storage.ClusterID) (ceph.Credentials, error) {
	return ceph.Credentials{User: "u", Key: storage.NewSecret("k")}, nil
}

// bed is a server behind a socket, with the fake cluster.
type bed struct {
	fake   *cephtest.Fake
	images ceph.Images
	client *volumeapi.Client
}

func newBed(t *testing.T) bed {
	t.Helper()
	fake := cephtest.NewFake()
	s := admin.New(slog.New(slog.DiscardHandler))
	s.SetImages(imageio.New(fake.Dialer(), clusters{}))
	folder, err := os.MkdirTemp("", "hf")
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(folder, "s")
	ctx, cancel := context.WithCancel(context.Background())
	listener, err := server.ListenUnix(ctx, socket)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, listener) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		_ = os.RemoveAll(folder)
	})
	return bed{fake, fake.Connect().Images("rbd", ""), volumeapi.NewImagesClient(socket)}
}

const size = 10 << 20

func request() volumeapi.ImportRequest {
	return volumeapi.ImportRequest{Name: volumeapi.ImageName{Pool: "rbd", Image: "디스크"}, Source: "disk.vmdk", Disk: size, Bytes: size}
}

func hexOf(p []byte) string {
	sum := sha256.Sum256(p)
	return hex.EncodeToString(sum[:])
}

func (b bed) begin(t *testing.T, r volumeapi.ImportRequest) (*volumeapi.Session, volumeapi.ImageMark) {
	t.Helper()
	s, mark, err := b.client.Import(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return s, mark
}

func TestAnImageGetsItsNameWhenItIsWhole(t *testing.T) {
	b, ctx := newBed(t), t.Context()
	s, mark := b.begin(t, request())
	if mark.UpTo != 0 {
		t.Errorf("begins at %+v", mark)
	}
	chunk := make([]byte, 4<<20)
	copy(chunk[1<<20:], bytes.Repeat([]byte("x"), 100))
	if err := s.Write(ctx, 4<<20, chunk, sha256.Sum256([]byte("other"))); !errors.Is(err, fault.Aborted) {
		t.Errorf("bytes that changed on the way: %v", err)
	}
	if err := s.Write(ctx, 8<<20, chunk, sha256.Sum256(chunk)); !errors.Is(err, fault.Range) {
		t.Errorf("behind the end: %v", err)
	}
	if err := s.Write(ctx, 4<<20, chunk, sha256.Sum256(chunk)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Finish(ctx); !errors.Is(err, fault.Precondition) {
		t.Errorf("an image that is not whole: %v", err)
	}
	if err := s.Keep(ctx, volumeapi.ImageMark{UpTo: 8 << 20, Digest: "d"}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, mark = b.begin(t, request())
	if mark != (volumeapi.ImageMark{UpTo: 8 << 20, Digest: "d"}) {
		t.Errorf("goes on at %+v", mark)
	}
	if _, err := b.images.Info(ctx, "디스크"); !errors.Is(err, fault.NotFound) {
		t.Errorf("it has its name: %v", err)
	}
	good := []volumeapi.ImageChunk{{Offset: 4 << 20, Length: 4 << 20, Sum: hexOf(chunk)}}
	for what, chunks := range map[string][]volumeapi.ImageChunk{"another sum": {{Offset: 4 << 20, Length: 4 << 20, Sum: hexOf(nil)}}, "no zeros": nil} {
		if err := s.Compare(ctx, 0, size, chunks); !errors.Is(err, fault.Aborted) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := s.Compare(ctx, 0, size, good); err != nil {
		t.Fatal(err)
	}
	if err := s.Keep(ctx, volumeapi.ImageMark{UpTo: size}); err != nil {
		t.Fatal(err)
	}
	done, err := s.Finish(ctx)
	if err != nil || done.Name != "rbd:rbd/디스크" {
		t.Fatal(done, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again := request() // the answer was lost
	again.Finishing, again.Overwrite = true, true
	if _, _, err := b.client.Import(ctx, again); !errors.Is(err, fault.Exists) {
		t.Errorf("an image that is finished is filled again: %v", err)
	}
	names, err := b.images.List(ctx)
	if err != nil || len(names) != 1 || names[0] != "디스크" {
		t.Error(names, err)
	}
	extents := 0
	if err := b.images.Diff(ctx, "디스크", "", "", 0, 0, func(e ceph.Extent) error { extents += int(e.Length); return nil }); err != nil || extents != 64<<10 {
		t.Errorf("%d bytes are allocated, %v", extents, err)
	}
}

func TestImportsThatAreRefused(t *testing.T) {
	b, ctx := newBed(t), t.Context()
	if err := b.images.Create(ctx, "there", ceph.ImageSpec{Size: size}); err != nil {
		t.Fatal(err)
	}
	s, _ := b.begin(t, request())
	defer s.Close()
	change := func(fn func(*volumeapi.ImportRequest)) volumeapi.ImportRequest {
		r := request()
		fn(&r)
		return r
	}
	for what, c := range map[string]struct {
		request volumeapi.ImportRequest
		class   error
	}{
		"an image that is there": {change(func(r *volumeapi.ImportRequest) { r.Name.Image = "there" }), fault.Exists},
		"an absent pool":         {change(func(r *volumeapi.ImportRequest) { r.Name.Pool = "no" }), fault.Precondition},
		"a volume's image":       {change(func(r *volumeapi.ImportRequest) { r.Name.Image = "hf-1" }), fault.Invalid},
		"less room":              {change(func(r *volumeapi.ImportRequest) { r.Bytes = 512 }), fault.Invalid},
		"one that is filled now": {request(), fault.Busy},
	} {
		if _, _, err := b.client.Import(ctx, c.request); !errors.Is(err, c.class) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	other := change(func(r *volumeapi.ImportRequest) { r.Source = "other.vmdk" })
	if _, _, err := b.client.Import(ctx, other); !errors.Is(err, fault.Precondition) {
		t.Errorf("another disk: %v", err)
	}
	other.Restart = true
	s, mark := b.begin(t, other)
	if mark.UpTo != 0 {
		t.Error(mark)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestAnImageThatIsThereGoesToTheTrash(t *testing.T) {
	b, ctx := newBed(t), t.Context()
	r := request()
	if err := b.images.Create(ctx, r.Name.Image, ceph.ImageSpec{Size: 512}); err != nil {
		t.Fatal(err)
	}
	r.Overwrite = true
	s, _ := b.begin(t, r)
	if err := s.Keep(ctx, volumeapi.ImageMark{UpTo: size}); err != nil {
		t.Fatal(err)
	}
	done, err := s.Finish(ctx)
	if err != nil || done.Trashed != r.Name.Image {
		t.Fatal(done, err)
	}
	trash, err := b.images.Trashed(ctx)
	if err != nil || len(trash) != 1 {
		t.Error(trash, err)
	}
	if now, err := b.images.Size(ctx, r.Name.Image); err != nil || now != size {
		t.Error(now, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestAnImageIsReadAsItWas(t *testing.T) {
	b, ctx := newBed(t), t.Context()
	if err := b.images.Create(ctx, "i", ceph.ImageSpec{Size: size}); err != nil {
		t.Fatal(err)
	}
	open, err := b.images.Open(ctx, "i", "")
	if err != nil {
		t.Fatal(err)
	}
	if err := open.WriteAt(ctx, []byte("before"), 5<<20); err != nil {
		t.Fatal(err)
	}
	r := volumeapi.ExportRequest{Name: volumeapi.ImageName{Pool: "rbd", Image: "i"}, Take: "holdfast-export-1"}
	s, first, err := b.client.Export(ctx, r)
	if err != nil || first.Bytes != size || first.Of == "" {
		t.Fatal(first, err)
	}
	if err := open.WriteAt(ctx, []byte("after "), 5<<20); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	r.Taken = true
	s, again, err := b.client.Export(ctx, r)
	if err != nil || again.Of != first.Of {
		t.Fatal(again, err)
	}
	extents, err := s.Extents(ctx, 0, size)
	p := make([]byte, 6)
	if readErr := s.Read(ctx, p, 5<<20); err != nil || readErr != nil || string(p) != "before" || len(extents) != 1 || extents[0].Offset != 5<<20 {
		t.Errorf("%q, %v, %v, %v", p, extents, err, readErr)
	}
	if _, err := s.Finish(ctx); err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.client.Export(ctx, r); !errors.Is(err, fault.NotFound) {
		t.Errorf("a snapshot that is gone: %v", err)
	}
	r.Taken = false // a snapshot of the same name, made anew
	anew, other, err := b.client.Export(ctx, r)
	if err != nil || other.Of == first.Of {
		t.Fatal(other, err)
	}
	if _, err := anew.Finish(ctx); err != nil {
		t.Fatal(err)
	}
	if err := anew.Close(); err != nil {
		t.Fatal(err)
	}
	if snapshots, err := b.images.Snapshots(ctx, "i"); err != nil || len(snapshots) > 0 {
		t.Error(snapshots, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
