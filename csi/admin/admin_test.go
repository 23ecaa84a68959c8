package admin_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-storage/holdfast/csi/admin"
	"github.com/holdfast-storage/holdfast/csi/server"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/rpc/volumeapi"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// driver is a controller and a node that know one volume.
type driver struct{ secrets map[string]string }

const volume = "hf1.r.c1.1.00000000000000000000000000000000.11111111111111111111111111111111"

func (d *driver) Inventory(context.Context) (volumeapi.Inventory, error) {
	return volumeapi.Inventory{Records: []volumeapi.Record{{Name: "볼륨", ID: volume}}, Problems: []string{"c2 is away"}}, nil
}

func (*driver) Adoptable(context.Context) (volumeapi.Adoptables, error) {
	return volumeapi.Adoptables{Volumes: []volumeapi.Adoptable{{Name: "옛것"}}, Problems: []string{"p"}}, nil
}

func (d *driver) Orphans(context.Context) (volumeapi.Orphans, error) {
	return volumeapi.Orphans{}, fault.New(fault.Unavailable, "no monitor answers")
}

func (d *driver) Summary() volumeapi.Summary {
	return volumeapi.Summary{Orphans: map[string]int{volumeapi.OrphanImage: 2}}
}

func (d *driver) DeleteOrphans(_ context.Context, ids []string) ([]volumeapi.Deletion, error) {
	return []volumeapi.Deletion{{ID: ids[0]}}, nil
}

func (d *driver) Pending(context.Context, string) ([]volumeapi.Pending, error) { return nil, nil }

func (d *driver) Rewrap(_ context.Context, _ string, secrets map[string]string) (volumeapi.Rewrapped, error) {
	d.secrets = secrets
	return volumeapi.Rewrapped{}, fault.New(fault.Denied, "no passphrase opens it")
}

func (d *driver) Sparsify(context.Context, string) (volumeapi.Reclaimed, error) {
	return volumeapi.Reclaimed{How: "sparsify", Before: 2, After: 1}, nil
}

func (d *driver) Allocated(context.Context, string) (string, storage.Bytes, error) {
	return "볼륨", 7, nil
}
func (d *driver) Trim(context.Context, string) (storage.Bytes, error) { return 3, nil }

// serve returns a client of a server, and what the server logs.
func serve(t *testing.T, d *driver) (*volumeapi.Client, *strings.Builder) {
	t.Helper()
	dir, err := os.MkdirTemp("", "hf") // short: sockets end at 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "a.sock")
	var listener net.Listener
	if listener, err = server.ListenUnix(t.Context(), socket); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket's mode is %v, %v", info.Mode(), err)
	}
	log := &strings.Builder{}
	s := admin.New(slog.New(slog.NewTextHandler(log, nil)))
	if d != nil {
		s.AddController(storage.RBD, d)
		s.AddNode(storage.RBD, d)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- s.Serve(ctx, listener) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		os.RemoveAll(dir)
	})
	return volumeapi.NewClient(socket), log
}

func TestAnswersAndClassesOfErrorsComeThrough(t *testing.T) {
	d := &driver{}
	c, log := serve(t, d)
	ctx := t.Context()
	if all, err := c.Records(ctx); err != nil || len(all.Records) != 1 || all.Records[0].Name != "볼륨" || len(all.Problems) != 1 {
		t.Errorf("records %+v, %v", all, err)
	}
	if old, err := c.Adoptable(ctx); err != nil || len(old.Volumes) != 1 || old.Volumes[0].Name != "옛것" || len(old.Problems) != 1 {
		t.Errorf("adoptable %+v, %v", old, err)
	}
	foreign := "0001-0004-ceph-0000000000000016-7957e938-405a-11eb-bfd0-0050563001a1"
	if _, err := c.Trim(ctx, foreign); !errors.Is(err, fault.Unsupported) || !strings.Contains(err.Error(), "fstrim") {
		t.Errorf("trim of a volume of ceph-csi's: %v", err)
	}
	if _, err := c.Orphans(ctx); !errors.Is(err, fault.Unavailable) || err.Error() != "no monitor answers" {
		t.Errorf("orphans: %v", err)
	}
	if s, err := c.Summary(ctx); err != nil || s.Total() != 2 {
		t.Errorf("summary %+v, %v", s, err)
	}
	if done, err := c.DeleteOrphans(ctx, []string{"x"}); err != nil || len(done) != 1 || done[0].ID != "x" {
		t.Errorf("deletions %+v, %v", done, err)
	}
	if list, err := c.Pending(ctx, "a/b ?&"); err != nil || len(list) != 1 || list[0].Name != "a/b ?&" || list[0].Reasons[0].Next == "" {
		t.Errorf("pending %+v, %v", list, err)
	}
	if done, err := c.Sparsify(ctx, volume); err != nil || done.Before != 2 || done.After != 1 {
		t.Errorf("sparsify %+v, %v", done, err)
	}
	if done, err := c.Trim(ctx, volume); err != nil || done.Trimmed != 3 || done.Before != 7 || done.Name != "볼륨" {
		t.Errorf("trim %+v, %v", done, err)
	}
	if _, err := c.Trim(ctx, strings.Replace(volume, ".r.", ".c.", 1)); !errors.Is(err, fault.Unsupported) {
		t.Errorf("a driver that is not served: %v", err)
	}
	if _, err := c.Trim(ctx, "x"); !errors.Is(err, fault.NotFound) {
		t.Errorf("no id: %v", err)
	}
	_, err := c.Rewrap(ctx, volumeapi.RewrapRequest{ID: volume, Secrets: map[string]string{"encryptionPassphrase": "hush"}})
	if !errors.Is(err, fault.Denied) || d.secrets["encryptionPassphrase"] != "hush" {
		t.Errorf("rewrap: %v", err)
	}
	if strings.Contains(log.String(), "hush") {
		t.Errorf("the log shows a secret:\n%s", log)
	}
}

func TestAProcessWithoutAControllerSaysSo(t *testing.T) {
	c, _ := serve(t, nil)
	if _, err := c.Records(t.Context()); !errors.Is(err, fault.Unsupported) {
		t.Errorf("got %v", err)
	}
	if _, err := volumeapi.NewClient("/nonexistent/a.sock").Records(t.Context()); !errors.Is(err, fault.Unavailable) {
		t.Errorf("nobody listens: %v", err)
	}
}
