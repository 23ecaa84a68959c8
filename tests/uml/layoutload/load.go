// Package layoutload writes while disks are reshaped and says afterwards whether all that a fsync acknowledged is
// there. Acknowledgements lie outside of the guest, so they survive what the guest does not.
package layoutload

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// Sizes of what is written, in bytes.
const (
	sector = 512
	block  = 4096
	ring   = 1024 // blocks that are overwritten at random
)

// Load is what writes to a file system: blocks of a ring, overwritten at random, and new blocks, as long as
// half of the space is free.
type Load struct {
	Dir  string // in the file system under test
	Acks string // directory outside of the guest
	Rate int    // blocks a second
	// Acked hears of each version that was acknowledged, before anything else is written; nil for nobody.
	Acked func(version uint64) error
}

// ack is one acknowledged write: the block's number and its version. Versions only grow.
type ack struct {
	Block   uint32
	Version uint64
}

const ackSize = 12

func (l Load) data() string { return filepath.Join(l.Dir, "load") }
func (l Load) log() string  { return filepath.Join(l.Acks, "acks") }

// fill makes a block's bytes: each sector says which block and version it is of, the rest follows from that.
func fill(b uint32, version uint64) []byte {
	buf := make([]byte, block)
	for at := 0; at < block; at += sector {
		fillSector(buf[at:at+sector], b, version, at/sector)
	}
	return buf
}

func fillSector(buf []byte, b uint32, version uint64, n int) {
	binary.LittleEndian.PutUint32(buf, b)
	binary.LittleEndian.PutUint64(buf[4:], version)
	random := rand.New(rand.NewPCG(uint64(b)<<32|uint64(n), version))
	for at := 12; at < sector; at += 4 {
		binary.LittleEndian.PutUint32(buf[at:], random.Uint32())
	}
}

// Run writes until ctx ends. Each write is synced, then acknowledged, before the next.
func (l Load) Run(ctx context.Context) (written int, err error) {
	last, err := l.read()
	if err != nil {
		return 0, err
	}
	version := uint64(1)
	blocks := uint32(ring)
	for b, v := range last {
		version, blocks = max(version, v+1000), max(blocks, b+1)
	}
	data, err := os.OpenFile(l.data(), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return 0, err
	}
	defer data.Close()
	log, err := os.OpenFile(l.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	defer log.Close()
	ticker := time.NewTicker(time.Second / time.Duration(l.Rate))
	defer ticker.Stop()
	random := rand.New(rand.NewPCG(version, uint64(len(last))))
	for {
		b := uint32(random.IntN(ring))
		if random.IntN(2) == 0 && l.room() {
			b = blocks
			blocks++
		}
		version++
		if err := write(data, log, b, version); err != nil {
			return written, err
		}
		if l.Acked != nil {
			if err := l.Acked(version); err != nil {
				return written, err
			}
		}
		written++
		select {
		case <-ctx.Done():
			return written, nil
		case <-ticker.C:
		}
	}
}

// Forget drops the acknowledgements of all versions after one, as if the world had ended then.
func (l Load) Forget(after uint64) error {
	data, err := os.ReadFile(l.log())
	if err != nil {
		return err
	}
	for at := 0; at+ackSize <= len(data); at += ackSize {
		if binary.LittleEndian.Uint64(data[at+4:]) > after {
			return os.Truncate(l.log(), int64(at))
		}
	}
	return nil
}

// room reports whether half of the file system is free.
func (l Load) room() bool {
	var s syscall.Statfs_t
	return syscall.Statfs(l.Dir, &s) == nil && s.Bavail > s.Blocks/2
}

func write(data, log *os.File, b uint32, version uint64) error {
	if _, err := data.WriteAt(fill(b, version), int64(b)*block); err != nil {
		return fmt.Errorf("write block %d: %w", b, err)
	}
	if err := data.Sync(); err != nil {
		return fmt.Errorf("sync block %d: %w", b, err)
	}
	var record [ackSize]byte
	binary.LittleEndian.PutUint32(record[:], b)
	binary.LittleEndian.PutUint64(record[4:], version)
	if _, err := log.Write(record[:]); err != nil {
		return fmt.Errorf("acknowledge: %w", err)
	}
	return log.Sync() // or the acknowledgement would die with the guest
}

// read returns the last acknowledged version of each block.
func (l Load) read() (map[uint32]uint64, error) {
	data, err := os.ReadFile(l.log())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	last := map[uint32]uint64{}
	for len(data) >= ackSize {
		a := ack{binary.LittleEndian.Uint32(data), binary.LittleEndian.Uint64(data[4:])}
		last[a.Block], data = a.Version, data[ackSize:]
	}
	return last, nil
}

// Verify compares every acknowledged block byte by byte. A sector may be of a later version, whose write was not
// acknowledged before a crash.
func (l Load) Verify() (blocks int, err error) {
	last, err := l.read()
	if err != nil {
		return 0, err
	}
	if len(last) == 0 {
		return 0, nil
	}
	data, err := os.Open(l.data())
	if err != nil {
		return 0, err
	}
	defer data.Close()
	var lost []error
	buf := make([]byte, block)
	for b, version := range last {
		if _, err := data.ReadAt(buf, int64(b)*block); err != nil && !errors.Is(err, io.EOF) {
			lost = append(lost, err)
			continue
		}
		if err := check(buf, b, version); err != nil {
			lost = append(lost, err)
		}
	}
	if len(lost) > 0 {
		return len(last), fmt.Errorf("%d of %d acknowledged blocks are lost, first: %w", len(lost), len(last), lost[0])
	}
	return len(last), nil
}

func check(buf []byte, b uint32, version uint64) error {
	want := make([]byte, sector)
	for n := range block / sector {
		got := buf[n*sector : (n+1)*sector]
		found := binary.LittleEndian.Uint64(got[4:])
		if found < version {
			return fmt.Errorf("block %d, sector %d: version %d, acknowledged was %d", b, n, found, version)
		}
		fillSector(want, b, found, n)
		if string(got) != string(want) {
			return fmt.Errorf("block %d, sector %d: not what version %d wrote", b, n, found)
		}
	}
	return nil
}

// Background is a load that runs beside something else.
type Background struct {
	cancel  context.CancelFunc
	group   sync.WaitGroup
	written int
	err     error
}

// Start begins.
func Start(ctx context.Context, l Load) *Background {
	ctx, cancel := context.WithCancel(ctx)
	b := &Background{cancel: cancel}
	b.group.Go(func() { b.written, b.err = l.Run(ctx) })
	return b
}

// Stop ends it and says how much was written.
func (b *Background) Stop() (written int, err error) {
	b.cancel()
	b.group.Wait()
	return b.written, b.err
}
