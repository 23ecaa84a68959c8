package nodetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// heldDevice: somebody keeps a raw device open beyond its unstaging, which gives up. The
// device must not vanish under the next pod when that somebody lets go.
func heldDevice(t *testing.T, env Env) {
	for _, c := range []struct {
		name    string
		forget  bool // the record is lost, too
		unstage func(ctx context.Context, v *volume, held *os.File) error
	}{
		{"it is told so", false, func(ctx context.Context, v *volume, _ *os.File) error { return v.unstage(ctx, v.b.rbd) }},
		{"the plugin crashed in it", false, crashInDetach},
		{"the plugin crashed in it and its record is lost", true, crashInDetach},
		{"the plugin crashed after the device and before its export", false, clearDevice},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, env)
			ctx := t.Context()
			v, raw := b.imageVolume(64*storage.MiB), blockCap(rwo)
			target := b.path("device")
			b.must(v.stage(ctx, b.rbd, raw))
			b.must(v.publish(ctx, b.rbd, raw, target, false))
			var st unix.Stat_t
			b.must(unix.Stat(target, &st))
			held, err := os.Open(fmt.Sprintf("/dev/loop%d", unix.Minor(st.Rdev))) // as udev and its like do
			b.must(err)
			defer held.Close()
			b.must(v.unpublish(ctx, b.rbd, target))
			short, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			if err := c.unstage(short, v, held); !errors.Is(err, fault.Busy) || errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("unstage: got %v, want busy, and not that time ran out", err)
			}
			if c.forget {
				b.forget()
			}
			b.must(v.stage(ctx, b.rbd, raw))
			b.must(v.publish(ctx, b.rbd, raw, target, false))
			b.must(held.Close())
			content := bytes.Repeat([]byte("Holdfast"), 1<<10)
			b.must(writeDevice(target, content))
			got := make([]byte, len(content))
			f, err := os.Open(target)
			b.must(err)
			if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, content) {
				t.Errorf("the device after its old user let go: %v", err)
			}
			b.must(f.Close())
			b.must(v.unpublish(ctx, b.rbd, target))
			b.must(v.unstage(ctx, b.rbd))
			b.unwatched(v)
		})
	}
}

// crashInDetach leaves a loop device as an unstaging leaves it that was cut off.
func crashInDetach(ctx context.Context, v *volume, held *os.File) error {
	own, err := os.Open(held.Name())
	if err != nil {
		return err
	}
	defer own.Close()
	return clearDevice(ctx, v, own)
}

func clearDevice(_ context.Context, _ *volume, held *os.File) error {
	if _, err := unix.IoctlRetInt(int(held.Fd()), unix.LOOP_CLR_FD); err != nil {
		return err
	}
	return fault.New(fault.Busy, "crashed")
}
