// Package vdisktest has a file that crashes: for tests of what changes images in place.
package vdisktest

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
)

// Crash is the error of every operation from the crash on.
var Crash = errors.New("crash")

// File is a file in memory. It counts writes, truncations and syncs, and crashes at the one with a number.
type File struct {
	synced  []byte
	pending []func([]byte) []byte
	now     []byte
	Steps   int // operations so far
	CrashAt int // 0: never
}

// New is a file with content, synced.
func New(content []byte) *File {
	return &File{synced: bytes.Clone(content), now: bytes.Clone(content)}
}

// Bytes is what the file holds now.
func (f *File) Bytes() []byte { return f.now }

// After is what a crash leaves: what was synced, and of what came after it some writes, as chance has it.
func (f *File) After(chance *rand.Rand) []byte {
	left := bytes.Clone(f.synced)
	for _, apply := range f.pending {
		if chance != nil && chance.IntN(2) == 0 {
			left = apply(left)
		}
	}
	return left
}

func (f *File) step() error {
	f.Steps++
	if f.CrashAt > 0 && f.Steps >= f.CrashAt {
		return Crash
	}
	return nil
}

// ReadAt implements io.ReaderAt.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	if off >= int64(len(f.now)) {
		return 0, io.EOF
	}
	n := copy(p, f.now[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// WriteAt implements io.WriterAt. A crash in it may leave any of its sectors.
func (f *File) WriteAt(p []byte, off int64) (int, error) {
	err := f.step()
	const sector = 512
	length := len(p)
	for len(p) > 0 {
		n := min(len(p), sector-int(off%sector))
		part, at := bytes.Clone(p[:n]), off
		f.do(err, func(b []byte) []byte {
			b = resize(b, max(int64(len(b)), at+int64(len(part))))
			copy(b[at:], part)
			return b
		})
		p, off = p[n:], off+int64(n)
	}
	if err != nil {
		return 0, err
	}
	return length, nil
}

// Truncate changes the length.
func (f *File) Truncate(size int64) error {
	err := f.step()
	f.do(err, func(b []byte) []byte { return resize(b, size) })
	return err
}

func (f *File) do(err error, apply func([]byte) []byte) {
	f.pending = append(f.pending, apply)
	if err == nil {
		f.now = apply(f.now)
	}
}

func resize(b []byte, size int64) []byte {
	if size <= int64(len(b)) {
		return b[:size]
	}
	return append(b, make([]byte, size-int64(len(b)))...)
}

// Sync makes all that was written so far last.
func (f *File) Sync() error {
	if err := f.step(); err != nil {
		return err
	}
	f.synced, f.pending = bytes.Clone(f.now), nil
	return nil
}
