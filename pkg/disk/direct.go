package disk

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"unsafe"
)

// block is what direct reads are aligned to: no disk has larger logical sectors.
const block = 4096

// directReader reads from the disk itself, past the page cache: what another path wrote is
// seen, the cache keeps what is of use to others, and it takes less CPU.
type directReader struct {
	file    *os.File
	size    int64
	scratch []byte
}

// ReadAt implements io.ReaderAt. Errors come without the file's name, which says nothing
// after the next boot.
func (r *directReader) ReadAt(buf []byte, at int64) (int, error) {
	if at < 0 || at >= r.size {
		return 0, io.EOF
	}
	if at%block == 0 && len(buf)%block == 0 && misaligned(buf) == 0 {
		n, err := r.file.ReadAt(buf, at)
		return n, bare(err)
	}
	start := at &^ (block - 1)
	end := min((at+int64(len(buf))+block-1)&^(block-1), r.size)
	r.grow(int(end - start))
	n, err := r.file.ReadAt(r.scratch[:end-start], start)
	got := copy(buf, r.scratch[min(int64(n), at-start):n])
	if got == len(buf) {
		return got, nil
	}
	if err == nil {
		err = io.EOF
	}
	return got, bare(err)
}

// grow makes the scratch hold n bytes, aligned.
func (r *directReader) grow(n int) {
	if len(r.scratch) >= n {
		return
	}
	raw := make([]byte, n+2*block)
	skip := (block - misaligned(raw)) % block
	r.scratch = raw[skip : skip+n]
}

// misaligned is how many bytes the buffer lies behind a multiple of block.
func misaligned(buf []byte) int {
	return int(uintptr(unsafe.Pointer(unsafe.SliceData(buf))) % block) //nolint:gosec // an address is asked for, nothing is reached by it
}

func bare(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}
