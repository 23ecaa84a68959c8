package vdisk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/vdisk/content"
)

// Fill writes a disk's content to a block device that reads as zeros from end to end and is at least as large: what is
// zero is not written, so that the device stays thin. It is synced, and all of the disk is read back from the device
// and compared.
func Fill(ctx context.Context, from content.Disk, path string, progress Progress) error {
	device, err := os.OpenFile(path, os.O_RDWR|unix.O_EXCL, 0) // of a device: nobody else has it mounted
	if err != nil {
		return err
	}
	if err := fill(ctx, from, device, progress); err != nil {
		_ = device.Close()
		return fmt.Errorf("fill %s: %w", path, err)
	}
	return device.Close()
}

func fill(ctx context.Context, from content.Disk, device *os.File, progress Progress) error {
	size, err := device.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if size < from.Size() {
		return fault.New(fault.Range, "it has %d bytes, and the disk %d", size, from.Size())
	}
	// Written, then compared: half of the way each.
	part := func(before int64) Progress {
		return func(done, total int64) {
			if progress != nil {
				progress((before+done)/2, total)
			}
		}
	}
	if err := pump(ctx, from, &flat{out: device}, part(0)); err != nil {
		return err
	}
	if err := device.Sync(); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	// What is compared is to come from the device, not from this machine's memory. A file has no such call.
	if err := unix.IoctlSetInt(int(device.Fd()), unix.BLKFLSBUF, 0); err != nil && !errors.Is(err, unix.ENOTTY) {
		return fmt.Errorf("drop what is cached: %w", err)
	}
	return pump(ctx, from, &comparer{with: device}, part(from.Size()))
}

// comparer is a writer that compares instead.
type comparer struct{ with io.ReaderAt }

// Pack compares a chunk's pieces later, when their place is known.
func (*comparer) Pack(chunk []byte, pieces []content.Piece) []content.Piece {
	return append(pieces, content.Piece{Data: chunk})
}

func (c *comparer) Put(off int64, pieces []content.Piece) error {
	for _, p := range pieces {
		got := make([]byte, len(p.Data))
		if n, err := c.with.ReadAt(got, off); n < len(got) {
			return fmt.Errorf("read back: %w", err)
		}
		if !bytes.Equal(got, p.Data) {
			return fault.New(fault.Unavailable, "what was written there reads back otherwise")
		}
	}
	return nil
}

func (*comparer) Finish() (int64, error) { return 0, nil }
