package transfer_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/vdisk/content"
	"github.com/holdfast-storage/holdfast/pkg/vdisk/transfer"
)

// memory is a disk and a place. It breaks at the operation with the number that is left, leaving a write half done.
type memory struct {
	mu     sync.Mutex
	data   []byte
	hole   int64 // where the disk has a hole, of 5 MiB
	mark   transfer.Mark
	left   int
	writes int
}

var errBroken = errors.New("broken")

func (m *memory) Size() int64  { return int64(len(m.data)) }
func (m *memory) Close() error { return nil }
func (m *memory) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(m.data).ReadAt(p, off)
}

func (m *memory) Span(off int64) (content.Span, error) {
	s := content.Span{Offset: off, Length: m.Size() - off}
	switch end := m.hole + 5<<20; {
	case off < m.hole:
		s.Length = m.hole - off
	case off < end:
		s.Length, s.Kind = end-off, content.Hole
	}
	return s, nil
}

func (m *memory) broken() bool {
	m.left--
	return m.left < 0
}

func (m *memory) Write(_ context.Context, c transfer.Chunk, data []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.writes++
	if m.broken() {
		copy(m.data[c.Offset:], data[:len(data)/2])
		return errBroken
	}
	copy(m.data[c.Offset:], data)
	return nil
}

func (m *memory) Keep(_ context.Context, mark transfer.Mark) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.broken() {
		return errBroken
	}
	m.mark = mark
	return nil
}

func (m *memory) Compare(_ context.Context, from, to int64, chunks []transfer.Chunk) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.broken() {
		return errBroken
	}
	for _, c := range chunks {
		if c.Offset < from || c.Offset+int64(c.Length) > to {
			return fmt.Errorf("chunk at %d is not between %d and %d", c.Offset, from, to)
		}
		if sha256.Sum256(m.data[c.Offset:c.Offset+int64(c.Length)]) != c.Sum {
			return fault.New(fault.Aborted, "chunk at %d differs", c.Offset)
		}
	}
	return nil
}

func disk() *memory {
	d := &memory{data: make([]byte, 40*transfer.ChunkSize+512), hole: 50<<20 + 512}
	random := rand.NewChaCha8([32]byte{7})
	for at := 0; at < len(d.data); at += transfer.ChunkSize {
		if at/transfer.ChunkSize%7 != 3 && (int64(at) < d.hole-transfer.ChunkSize || int64(at) > d.hole+5<<20) {
			_, _ = random.Read(d.data[at:min(at+1000, len(d.data))])
		}
	}
	return d
}

func TestACopyThatBreaksAnywhereGoesOn(t *testing.T) {
	from := disk()
	whole := &memory{data: make([]byte, len(from.data)), left: 1 << 30}
	last := int64(0)
	want, err := (&transfer.Copier{From: from, Progress: func(done, total int64) {
		if done < last || done > total {
			t.Errorf("%d of %d after %d", done, total, last)
		}
		last = done
	}}).Run(t.Context(), whole, transfer.Mark{})
	if err != nil || !bytes.Equal(whole.data, from.data) || whole.mark != want || want.UpTo != from.Size() {
		t.Fatalf("%+v, %v", want, err)
	}
	operations := 1<<30 - whole.left
	for breaks := 0; breaks < operations; breaks += 17 {
		to := &memory{data: make([]byte, len(from.data)), left: breaks}
		if _, err := (&transfer.Copier{From: from}).Run(t.Context(), to, transfer.Mark{}); !errors.Is(err, errBroken) {
			t.Fatalf("break %d: %v", breaks, err)
		}
		to.left = 1 << 30
		got, err := (&transfer.Copier{From: from}).Run(t.Context(), to, to.mark)
		if err != nil || got != want || !bytes.Equal(to.data, from.data) {
			t.Fatalf("after break %d: %+v, %v", breaks, got, err)
		}
		if again := to.writes - whole.writes; again > 32 {
			t.Errorf("break %d: %d chunks were written again", breaks, again)
		}
	}
}

func TestACopyOfAnotherDiskDoesNotGoOn(t *testing.T) {
	from := disk()
	to := &memory{data: make([]byte, len(from.data)), left: 30}
	c := &transfer.Copier{From: from}
	if _, err := c.Run(t.Context(), to, transfer.Mark{}); !errors.Is(err, errBroken) || to.mark.UpTo == 0 {
		t.Fatal(err, to.mark)
	}
	from.data[10]++
	to.left = 1 << 30
	if _, err := (&transfer.Copier{From: from}).Run(t.Context(), to, to.mark); !errors.Is(err, fault.Precondition) {
		t.Error(err)
	}
}

func TestACopyFindsWhatWasNotKept(t *testing.T) {
	from := disk()
	to := &memory{data: make([]byte, len(from.data)), left: 30}
	if _, err := (&transfer.Copier{From: from}).Run(t.Context(), to, transfer.Mark{}); !errors.Is(err, errBroken) {
		t.Fatal(err)
	}
	to.data[10]++
	to.left = 1 << 30
	if _, err := (&transfer.Copier{From: from}).Run(t.Context(), to, to.mark); !errors.Is(err, fault.Aborted) {
		t.Error(err)
	}
}

func TestAnEmptyDiskIsCopied(t *testing.T) {
	from := &memory{data: make([]byte, 5<<20)}
	to := &memory{data: make([]byte, 5<<20), left: 10}
	if got, err := (&transfer.Copier{From: from}).Run(t.Context(), to, transfer.Mark{}); err != nil || got.UpTo != 5<<20 || to.writes != 0 {
		t.Error(got, err)
	}
}
