package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/pkg/storage"
)

const (
	streamed = 256 * int(storage.MiB) // bytes of one sequential pass
	synced   = 200                    // writes of 4 KiB, each with fsync
)

// pass is one way to use a mounted directory; it returns what it got done, in units a second.
type pass struct {
	name, unit string
	run        func(dir string) (float64, error)
}

// data compares a volume that the node service mounted with an image mounted by hand.
func (b *bench) data(ctx context.Context) (err error) {
	ours, hand := b.nodeSide(), b.handSide()
	for _, step := range []int{0, 1} { // create and mount
		if err := errors.Join(ours.calls[step].run(ctx, "bench-data"), hand.calls[step].run(ctx, "hf-bench-data")); err != nil {
			return err
		}
	}
	defer func() {
		for _, step := range []int{2, 5} { // unmount and delete
			err = errors.Join(err, ours.calls[step].run(ctx, "bench-data"), hand.calls[step].run(ctx, "hf-bench-data"))
		}
	}()
	passes := []pass{{"write 4 MiB", "MB/s", stream}, {"read 4 MiB", "MB/s", readBack}, {"write 4 KiB, fsync", "/s", syncEach}}
	through, bare := make([][]figures, len(passes)), make([][]figures, len(passes))
	for round := range b.rounds + 1 { // the first warms up
		for i, p := range passes {
			x, err := p.run(filepath.Join(b.scratch, "bench-data"))
			if err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
			y, err := p.run(b.hand().path("hf-bench-data", "target"))
			if err != nil {
				return fmt.Errorf("%s by hand: %w", p.name, err)
			}
			if round > 0 {
				through[i], bare[i] = append(through[i], figures{rate: x}), append(bare[i], figures{rate: y})
			}
		}
	}
	for i, p := range passes {
		fmt.Printf("%-8s %-26s %9.1f %-4s %7.1f %-4s %5.2f\n", "data", p.name,
			middle(through[i], rate), p.unit, middle(bare[i], rate), p.unit, ratio(through[i], bare[i], rate))
	}
	return nil
}

func stream(dir string) (float64, error) {
	f, err := os.Create(filepath.Join(dir, "stream"))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	block := make([]byte, 4*storage.MiB)
	for i := range block {
		block[i] = byte(i * 7)
	}
	start := time.Now()
	for done := 0; done < streamed; done += len(block) {
		if _, err := f.Write(block); err != nil {
			return 0, err
		}
	}
	if err := f.Sync(); err != nil {
		return 0, err
	}
	return float64(streamed) / 1e6 / time.Since(start).Seconds(), nil
}

// readBack reads what stream wrote, none of it from the page cache.
func readBack(dir string) (float64, error) {
	f, err := os.Open(filepath.Join(dir, "stream"))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return 0, err
	}
	start := time.Now()
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{f}, make([]byte, 4*storage.MiB))
	if err == nil && n != int64(streamed) {
		err = fmt.Errorf("read %d of %d bytes", n, streamed)
	}
	return float64(n) / 1e6 / time.Since(start).Seconds(), err
}

func syncEach(dir string) (float64, error) {
	f, err := os.Create(filepath.Join(dir, "sync"))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	block := make([]byte, 4*storage.KiB)
	start := time.Now()
	for range synced {
		if _, err := f.Write(block); err != nil {
			return 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, err
		}
	}
	return synced / time.Since(start).Seconds(), nil
}
