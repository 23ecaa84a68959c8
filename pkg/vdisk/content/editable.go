package content

import "io"

// Editable is a file that is changed in place. What was written before Sync returned is there after a crash;
// what was written after it may be there or not, write by write, and a sector (512 bytes) is never half written.
type Editable interface {
	io.ReaderAt
	io.WriterAt
	Truncate(size int64) error
	Sync() error
}
