package vmdk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/zlib"

	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// A marker before a compressed grain is its number as a sector of the disk (8 bytes) and the length of
// what follows (4 bytes). Other markers have the length 0 and say after it what they are.
const (
	markerSize   = 12
	markerEnd    = 0
	markerTable  = 1
	markerDir    = 2
	markerFooter = 3
)

// grain reads one compressed grain.
type grain struct {
	of     *sparse
	number int64
	at     int64 // the marker's offset in the file
}

// inflaters keep what is costly to make.
var inflaters = sync.Pool{New: func() any { return new(inflater) }}

type inflater struct {
	packed, plain []byte
	reader        io.ReadCloser
}

// room is a buffer of length bytes.
func (i *inflater) room(length int64) []byte {
	if int64(cap(i.plain)) < length {
		i.plain = make([]byte, length)
	}
	return i.plain[:length]
}

// ReadAt implements io.ReaderAt by offsets of the disk.
func (g *grain) ReadAt(p []byte, off int64) (int, error) {
	i := inflaters.Get().(*inflater)
	defer inflaters.Put(i)
	begin := g.number * g.of.grain
	length := min(g.of.grain, g.of.capacity-begin)
	if off == begin && int64(len(p)) == length {
		if err := g.inflate(i, p); err != nil {
			return 0, err
		}
		return len(p), nil
	}
	plain := i.room(length)
	if err := g.inflate(i, plain); err != nil {
		return 0, err
	}
	n := copy(p, plain[off-begin:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (g *grain) inflate(i *inflater, plain []byte) error {
	var marker [markerSize]byte
	if _, err := g.of.file.ReadAt(marker[:], g.at); err != nil {
		return fmt.Errorf("read the marker at byte %d: %w", g.at, err)
	}
	le := binary.LittleEndian
	if got, want := le.Uint64(marker[:]), uint64(g.number*g.of.grain/SectorSize); got != want {
		return fault.New(fault.Invalid, "the marker at byte %d is of sector %d of the disk, not %d: the table that leads to it is damaged", g.at, got, want)
	}
	size := int64(le.Uint32(marker[8:]))
	if most := 2*g.of.grain + SectorSize; size == 0 || size > most || g.at+markerSize+size > g.of.length {
		return fault.New(fault.Invalid, "the marker at byte %d says that %d bytes follow: a grain has 1 to %d, and the file ends at byte %d", g.at, size, most, g.of.length)
	}
	if int64(cap(i.packed)) < size {
		i.packed = make([]byte, 2*g.of.grain+SectorSize)
	}
	packed := i.packed[:size]
	if _, err := g.of.file.ReadAt(packed, g.at+markerSize); err != nil {
		return fmt.Errorf("read %d bytes at byte %d: %w", size, g.at+markerSize, err)
	}
	if err := i.expand(packed, plain); err != nil {
		return fault.New(fault.Invalid, "grain %d at byte %d cannot be decompressed: %v", g.number, g.at, err)
	}
	return nil
}

// expand fills plain, and sees that the checksum is right when that is all there is. The last grain of a disk may be
// followed by zeros that the disk does not have.
func (i *inflater) expand(packed, plain []byte) error {
	source := bytes.NewReader(packed)
	var err error
	if i.reader == nil {
		i.reader, err = zlib.NewReader(source)
	} else {
		err = i.reader.(zlib.Resetter).Reset(source, nil)
	}
	if err != nil {
		i.reader = nil
		return err
	}
	if _, err := io.ReadFull(i.reader, plain); err != nil {
		return err
	}
	var rest [1]byte
	if _, err := i.reader.Read(rest[:]); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// verify decompresses the grain for its checksum alone.
func (g *grain) verify() error {
	i := inflaters.Get().(*inflater)
	defer inflaters.Put(i)
	return g.inflate(i, i.room(min(g.of.grain, g.of.capacity-g.number*g.of.grain)))
}
