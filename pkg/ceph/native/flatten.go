package native

import (
	"context"
	"sync"
	"syscall"

	"github.com/ceph/go-ceph/rbd"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// progressGate passes progress on until the caller has returned.
type progressGate struct {
	mu    sync.Mutex
	to    func(done, total uint64)
	total uint64
}

func (p *progressGate) report(done, total uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.total = total; p.to != nil {
		p.to(done, total)
	}
}

func (p *progressGate) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.to = nil
}

// aborted is what a callback returns to end an operation of librbd: -ECANCELED.
const aborted = -125

// interruptible tells librbd to go on for as long as ctx lasts.
func interruptible(ctx context.Context) int {
	if ctx.Err() != nil {
		return aborted
	}
	return 0
}

func (i *images) Flatten(ctx context.Context, name string, progress func(done, total uint64)) error {
	gate := &progressGate{to: progress}
	defer gate.close()
	return i.open(ctx, "flatten", name, false, func(image *rbd.Image) error {
		if parent, err := parentOf(image); err != nil || parent == (ceph.ImageSnapshotRef{}) {
			return err
		}
		err := image.FlattenWithProgress(func(done, total uint64, _ any) int {
			gate.report(done, total)
			return interruptible(ctx)
		}, nil)
		if err == nil {
			gate.report(gate.total, gate.total) // librbd tells the number begun, which ends one short
		}
		return err
	})
}

// sparseSize is the smallest run of zeros that is given back, in bytes; librbd takes no
// less (librbd.h, rbd_sparsify).
const sparseSize = 4 << 10

func (i *images) Sparsify(ctx context.Context, name string) error {
	err := i.open(ctx, "sparsify", name, false, func(image *rbd.Image) error {
		return image.SparsifyWithProgress(sparseSize, func(uint64, uint64, any) int { return interruptible(ctx) }, nil)
	})
	if errno(err) == syscall.EROFS { // librbd gave the exclusive lock away
		return fault.New(fault.Aborted, "sparsify image %s: another client or call wanted the image; try again when nobody uses it", i.path(name))
	}
	return err
}
