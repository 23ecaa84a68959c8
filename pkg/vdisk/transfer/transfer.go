// Package transfer copies a disk to a place that remembers how far the copy came, so that one that was cut off goes on. Several
// chunks are under way at once; each has a checksum from where it is read to where it is compared in the end. Holes and
// zeros are not copied. It opens nothing itself, and knows neither formats nor networks.
package transfer

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/vdisk/content"
)

// ChunkSize is what is copied, summed and compared at a time, in bytes: an object of an RBD image, as Ceph makes them.
const ChunkSize = 4 << 20

const (
	// keepEvery is how many chunks are written between two marks.
	keepEvery = 16
	// window is how many chunks are compared by one call.
	window = 16
	// defaultWorkers is how many chunks are under way at once.
	defaultWorkers = 6
)

// Sum is a chunk's SHA-256.
type Sum [sha256.Size]byte

// Chunk is a stretch of the disk that holds more than zeros. It begins at a multiple of ChunkSize, and is as long but for
// the disk's last one.
type Chunk struct {
	Offset int64
	Length int
	Sum    Sum
}

// Mark says how far a copy came: the place has all that lies before UpTo, and Digest is that of its chunks. The zero Mark is
// that of a place that has nothing yet.
type Mark struct {
	UpTo   int64  `json:"up_to"`
	Digest string `json:"digest"`
}

// Place is what a disk is copied to. It reads as zeros where nothing was written. Write and Compare are called by several at
// once. What an error leaves half written is written again before a Mark counts it.
type Place interface {
	// Write puts a chunk where it belongs. data is the caller's again when it returns without an error.
	Write(ctx context.Context, c Chunk, data []byte) error
	// Keep makes what was written last, and then remembers the mark. Every chunk before it is written.
	Keep(ctx context.Context, m Mark) error
	// Compare reads back what is between two offsets: the chunks, in order, and zeros elsewhere.
	Compare(ctx context.Context, from, to int64, chunks []Chunk) error
}

// Progress is told how far a copy is: done and total are bytes that are read, written and compared.
type Progress func(done, total int64)

// Copier copies a disk. It keeps the sums of what it has read, so that another Run does not read that again. One Run at a time.
type Copier struct {
	From     content.Disk
	Workers  int      // chunks under way at once; 0: six
	Progress Progress // may be nil; called by one at a time
	// Again, unless nil, is read in place of From for what lies before the mark: the place itself, where that is
	// nearer than a source that never changes.
	Again io.ReaderAt

	offsets []int64 // of the chunks that may hold something
	sums    []*Sum  // of each; nil: not known
	zero    []bool  // of those that turned out to be zeros

	mu    sync.Mutex
	done  int64
	spare sync.Pool
}

// Run goes on from a mark, and ends when all was compared. fault.Precondition: what lies before the mark is not what the
// disk holds. The mark that it returns is of the whole disk.
func (c *Copier) Run(ctx context.Context, to Place, since Mark) (Mark, error) {
	if err := c.list(); err != nil {
		return Mark{}, err
	}
	first, _ := slices.BinarySearch(c.offsets, since.UpTo)
	c.done = 0
	digest, err := c.again(ctx, first, since)
	if err != nil {
		return Mark{}, err
	}
	if err := c.write(ctx, to, first, &digest); err != nil {
		return Mark{}, err
	}
	whole := Mark{UpTo: c.From.Size(), Digest: digest.String()}
	if err := to.Keep(ctx, whole); err != nil {
		return Mark{}, fmt.Errorf("remember how far the copy came: %w", err)
	}
	return whole, c.compare(ctx, to)
}

// list finds the chunks, once.
func (c *Copier) list() error {
	if c.sums != nil {
		return nil
	}
	next := int64(0)
	err := content.Each(c.From, func(s content.Span) error {
		if s.Kind != content.Data {
			return nil
		}
		for off := max(next, s.Offset/ChunkSize*ChunkSize); off < s.End(); off += ChunkSize {
			c.offsets = append(c.offsets, off)
			next = off + ChunkSize
		}
		return nil
	})
	if err != nil {
		c.offsets = nil
		return err
	}
	c.sums, c.zero = make([]*Sum, len(c.offsets)), make([]bool, len(c.offsets))
	return nil
}

func (c *Copier) length(i int) int { return int(min(ChunkSize, c.From.Size()-c.offsets[i])) }

func (c *Copier) chunk(i int) Chunk { return Chunk{c.offsets[i], c.length(i), *c.sums[i]} }

// read returns a chunk's data, for give when nobody uses it any more, and notes its sum.
func (c *Copier) read(from io.ReaderAt, i int) ([]byte, error) {
	p, ok := c.spare.Get().([]byte)
	if !ok {
		p = make([]byte, ChunkSize)
	}
	p = p[:c.length(i)]
	if n, err := from.ReadAt(p, c.offsets[i]); n < len(p) {
		return nil, fmt.Errorf("read what is at offset %d: %w", c.offsets[i], err)
	}
	sum := Sum(sha256.Sum256(p))
	c.sums[i], c.zero[i] = &sum, content.IsZero(p)
	return p, nil
}

func (c *Copier) give(p []byte) { c.spare.Put(p[:ChunkSize]) } //nolint:staticcheck // SA6002: 24 bytes for each 4 MiB

// again sums what was copied before, and returns its digest.
func (c *Copier) again(ctx context.Context, first int, since Mark) (digest, error) {
	var d digest
	from := c.Again
	if from == nil {
		from = c.From
	}
	err := c.each(ctx, 0, first, func(_ context.Context, i int) error {
		if c.sums[i] != nil {
			return nil
		}
		p, err := c.read(from, i)
		if err == nil {
			c.give(p)
		}
		return err
	}, func(i int) error {
		d.add(c, i)
		c.told(i, 2)
		return nil
	})
	if err == nil && since.UpTo > 0 && d.String() != since.Digest {
		err = fault.New(fault.Precondition, "the first %d bytes are not what was copied before: the source has changed since, or what was kept of it has", since.UpTo)
	}
	return d, err
}

// write copies the chunks from first on.
func (c *Copier) write(ctx context.Context, to Place, first int, d *digest) error {
	return c.each(ctx, first, len(c.offsets), func(ctx context.Context, i int) error {
		p, err := c.read(c.From, i)
		if err != nil {
			return err
		}
		if !c.zero[i] {
			if err := to.Write(ctx, c.chunk(i), p); err != nil {
				return fmt.Errorf("write what is at offset %d: %w", c.offsets[i], err)
			}
		}
		c.give(p)
		return nil
	}, func(i int) error {
		d.add(c, i)
		c.told(i, 2)
		if (i+1)%keepEvery != 0 {
			return nil
		}
		if err := to.Keep(ctx, Mark{UpTo: c.offsets[i] + int64(c.length(i)), Digest: d.String()}); err != nil {
			return fmt.Errorf("remember how far the copy came: %w", err)
		}
		return nil
	})
}

// compare has the place read back all of the disk.
func (c *Copier) compare(ctx context.Context, to Place) error {
	windows := max(1, (len(c.offsets)+window-1)/window)
	return c.each(ctx, 0, windows, func(ctx context.Context, w int) error {
		begin, end := w*window, min((w+1)*window, len(c.offsets))
		from, upTo := int64(0), c.From.Size()
		if w > 0 {
			from = c.offsets[begin]
		}
		if end < len(c.offsets) {
			upTo = c.offsets[end]
		}
		var chunks []Chunk
		for i := begin; i < end; i++ {
			if !c.zero[i] {
				chunks = append(chunks, c.chunk(i))
			}
		}
		if err := to.Compare(ctx, from, upTo, chunks); err != nil {
			return fmt.Errorf("compare what was written: %w", err)
		}
		return nil
	}, func(w int) error {
		for i := w * window; i < min((w+1)*window, len(c.offsets)); i++ {
			c.told(i, 1)
		}
		return nil
	})
}

// told counts a chunk: writing one is two thirds of the work.
func (c *Copier) told(i int, parts int64) {
	c.done += parts * int64(c.length(i))
	if c.Progress == nil {
		return
	}
	total := int64(0)
	if n := len(c.offsets); n > 0 {
		total = 3 * (int64(n-1)*ChunkSize + int64(c.length(n-1)))
	}
	c.Progress(c.done, total)
}

// digest is that of chunks in the order of the disk: each sum over the one before.
type digest struct{ state Sum }

func (d *digest) add(c *Copier, i int) {
	if c.zero[i] {
		return
	}
	h := sha256.New()
	h.Write(d.state[:])
	_ = binary.Write(h, binary.BigEndian, c.offsets[i]) // a hash takes all
	h.Write(c.sums[i][:])
	d.state = Sum(h.Sum(nil))
}

func (d *digest) String() string { return hex.EncodeToString(d.state[:]) }
