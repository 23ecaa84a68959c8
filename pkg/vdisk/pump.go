package vdisk

import (
	"context"
	"fmt"
	"runtime"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-storage/holdfast/pkg/vdisk/content"
)

// job is a chunk on its way: read and packed by one of several, put in the order of the disk.
type job struct {
	off    int64
	length int
	buffer []byte
	pieces []content.Piece
	packed chan error
}

// pump takes all chunks of a disk that may hold something to a writer. Memory: a few chunks for each processor.
func pump(ctx context.Context, from content.Disk, w writer, progress Progress) error {
	workers := max(2, runtime.GOMAXPROCS(0))
	group, ctx := errgroup.WithContext(ctx)
	free := make(chan *job, 2*workers)
	for range cap(free) {
		free <- &job{buffer: make([]byte, chunk), packed: make(chan error, 1)}
	}
	todo, inOrder := make(chan *job), make(chan *job, cap(free))
	group.Go(func() error {
		defer close(todo)
		defer close(inOrder)
		return chunks(from, func(off int64, length int) error {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case j := <-free:
				j.off, j.length = off, length
				inOrder <- j // never full: it holds all jobs
				select {
				case todo <- j:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			return nil
		})
	})
	for range workers {
		group.Go(func() error {
			for j := range todo {
				j.packed <- j.fill(from, w)
			}
			return nil
		})
	}
	group.Go(func() error { return put(ctx, inOrder, free, w, from.Size(), progress) })
	return group.Wait()
}

// put takes packed chunks to the writer.
func put(ctx context.Context, inOrder <-chan *job, free chan<- *job, w writer, total int64, progress Progress) error {
	for j := range inOrder {
		select {
		case err := <-j.packed:
			if err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := w.Put(j.off, j.pieces); err != nil {
			return fmt.Errorf("write what is at offset %d: %w", j.off, err)
		}
		if progress != nil {
			progress(j.off+int64(j.length), total)
		}
		free <- j // never full: it has room for all jobs
	}
	return ctx.Err()
}

// chunks calls fn for each chunk that is not all holes and zeros, in the order of the disk.
func chunks(from content.Disk, fn func(off int64, length int) error) error {
	size, next := from.Size(), int64(0)
	return content.Each(from, func(s content.Span) error {
		if s.Kind != content.Data {
			return nil
		}
		for off := max(next, s.Offset/chunk*chunk); off < s.End(); off += chunk {
			if err := fn(off, int(min(chunk, size-off))); err != nil {
				return err
			}
			next = off + chunk
		}
		return nil
	})
}

func (j *job) fill(from content.Disk, w writer) error {
	p := j.buffer[:j.length]
	if n, err := from.ReadAt(p, j.off); n < len(p) {
		return fmt.Errorf("read what is at offset %d: %w", j.off, err)
	}
	j.pieces = w.Pack(p, j.pieces[:0])
	return nil
}
