package vdisk

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/pkg/durable"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/vdisk/content"
	"github.com/holdfast-storage/holdfast/pkg/vdisk/raw"
	"github.com/holdfast-storage/holdfast/pkg/vdisk/transfer"
)

// Partial is a raw disk that comes from elsewhere chunk by chunk, in a file beside the one that it is to be. A note beside it says of
// what it is and how far; both are left when the copy breaks off, and nothing else has their names.
type Partial struct {
	file  *os.File
	note  string
	state partialState
}

// partialState is the note.
type partialState struct {
	Source string `json:"source"`
	Tag    string `json:"tag,omitempty"`
	Of     string `json:"of,omitempty"` // what Start was told
	Begun  bool   `json:"begun,omitempty"`
	Made   bool   `json:"made,omitempty"` // the file is there; what is left is to clean up
	// Inode is that of a raw copy which is about to get its name: the file that has it then is this one.
	Inode uint64        `json:"inode,omitempty"`
	Size  int64         `json:"size"`
	Mark  transfer.Mark `json:"mark"`
}

var _ transfer.Place = (*Partial)(nil)

// partialNames are the files of what is to be at path.
func partialNames(path string) (disk, note string) {
	disk = filepath.Join(filepath.Dir(path), "."+shorten(filepath.Base(path))+".partial")
	return disk, disk + ".json"
}

// OpenPartial begins a copy of source, or goes on with one. tag is kept of a new one: what the caller wants to find again. fault.Precondition:
// a copy of another source was left; fault.Busy: somebody works on it. Close it.
func OpenPartial(path, source, tag string) (*Partial, error) {
	disk, note := partialNames(path)
	file, fresh, err := openLocked(disk)
	if err != nil {
		return nil, err
	}
	p := &Partial{file: file, note: note}
	if err := p.begin(source, tag); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	p.state.Made = p.state.made(path)
	if fresh && !p.state.Made { // what the note tells of is gone
		p.state.Mark, p.state.Inode = transfer.Mark{}, 0
	}
	return p, nil
}

// openLocked opens the file of that name, or makes it, and locks it. One that another process renamed or removed meanwhile is let go.
func openLocked(path string) (file *os.File, fresh bool, err error) {
	for {
		_, err := os.Lstat(path)
		fresh = errors.Is(err, fs.ErrNotExist)
		if file, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
			return nil, false, err
		}
		if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			return nil, false, errors.Join(fault.New(fault.Busy, "%s is written by another process: %v", path, err), file.Close())
		}
		named, err := hasName(file, path)
		if err == nil && named {
			return file, fresh, nil
		}
		if err = errors.Join(err, file.Close()); err != nil {
			return nil, false, err
		}
	}
}

// WasMade reports whether a copy of source became the file at path, and only its leftovers are there still. It writes nothing.
func WasMade(path, source string) bool {
	_, note := partialNames(path)
	text, err := os.ReadFile(note)
	if err != nil {
		return false
	}
	var state partialState
	return json.Unmarshal(text, &state) == nil && state.Source == source && state.made(path)
}

// made reports whether the copy became the file at path. One that was cut off between the new name and the note of it did, too.
func (s *partialState) made(path string) bool {
	info, err := os.Lstat(path)
	if err != nil || s.Made {
		return err == nil
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && info.Mode().IsRegular() && s.Inode != 0 && stat.Ino == s.Inode && info.Size() == s.Size && s.Mark.UpTo == s.Size
}

func (p *Partial) begin(source, tag string) error {
	text, err := os.ReadFile(p.note)
	if errors.Is(err, fs.ErrNotExist) {
		if info, err := p.file.Stat(); err != nil || info.Size() > 0 {
			return errors.Join(err, fault.New(fault.Exists, "%s is there, and nothing tells of what it is: remove it", p.file.Name()))
		}
		p.state = partialState{Source: source, Tag: tag}
		return p.save()
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, &p.state); err != nil {
		return fault.New(fault.Precondition, "%s cannot be read: remove it, and %s", p.note, p.file.Name())
	}
	if p.state.Source != source {
		return fault.New(fault.Precondition, "a copy of %s was cut off here, and this is one of %s: go on with that one, or say --restart to throw away what it left", p.state.Source, source)
	}
	return nil
}

// Tag is what was given when the copy was begun; Begun whether Start was called since, also by a process before this one.
func (p *Partial) Tag() string { return p.state.Tag }

// Begun reports whether Start was called, also by a process before this one.
func (p *Partial) Begun() bool { return p.state.Begun }

// Made reports whether Become came to its end.
func (p *Partial) Made() bool { return p.state.Made }

// Mark says how far the copy is.
func (p *Partial) Mark() transfer.Mark { return p.state.Mark }

// Start says that the source is open, how many bytes it has, and what tells it from another of the same name. fault.Precondition: the
// copy was begun of another.
func (p *Partial) Start(size int64, of string) error {
	switch {
	case p.state.Begun && p.state.Size != size:
		return fault.New(fault.Precondition, "the source has %d bytes, and had %d: say --restart to begin anew", size, p.state.Size)
	case p.state.Begun && p.state.Of != of:
		return fault.New(fault.Precondition, "the source was made anew since the copy was begun: say --restart to begin anew")
	}
	p.state.Begun, p.state.Size, p.state.Of = true, size, of
	if err := p.file.Truncate(size); err != nil {
		return explainWrite(err)
	}
	return p.save()
}

// save writes the note: the old one or the new one is there, whatever happens.
func (p *Partial) save() error {
	text, err := json.Marshal(p.state)
	if err != nil {
		return err
	}
	return explainWrite(durable.WriteFile(p.note, text, 0o600))
}

// ReadAt reads what there is.
func (p *Partial) ReadAt(b []byte, off int64) (int, error) { return p.file.ReadAt(b, off) }

// Write implements transfer.Place.
func (p *Partial) Write(_ context.Context, c transfer.Chunk, data []byte) error {
	for _, piece := range content.Pack(data, flatPage, nil) {
		if _, err := p.file.WriteAt(piece.Data, c.Offset+int64(piece.At)); err != nil {
			return explainWrite(err)
		}
	}
	return nil
}

// Keep implements transfer.Place.
func (p *Partial) Keep(_ context.Context, m transfer.Mark) error {
	if err := p.file.Sync(); err != nil {
		return explainWrite(err)
	}
	p.state.Mark = m
	return p.save()
}

// Compare implements transfer.Place. What is read comes from the disk, if the kernel follows the advice.
func (p *Partial) Compare(_ context.Context, from, to int64, chunks []transfer.Chunk) error {
	_ = unix.Fadvise(int(p.file.Fd()), from, to-from, unix.FADV_DONTNEED)
	at, buffer := from, make([]byte, transfer.ChunkSize)
	for _, c := range chunks {
		if err := p.zeros(at, c.Offset, buffer); err != nil {
			return err
		}
		b := buffer[:c.Length]
		if n, err := p.file.ReadAt(b, c.Offset); n < len(b) {
			return fmt.Errorf("read back what is at offset %d: %w", c.Offset, err)
		}
		if sha256.Sum256(b) != c.Sum {
			return fault.New(fault.Aborted, "what was written at offset %d reads back otherwise", c.Offset)
		}
		at = c.Offset + int64(c.Length)
	}
	return p.zeros(at, to, buffer)
}

// zeros refuses a stretch that holds something.
func (p *Partial) zeros(from, to int64, buffer []byte) error {
	disk := raw.Section(p.file, 0, p.state.Size)
	for from < to {
		s, err := disk.Span(from)
		if err != nil {
			return err
		}
		s = content.Clip(s, min(to, from+int64(len(buffer))))
		b := buffer[:0]
		if s.Kind == content.Data {
			b = buffer[:s.Length]
			if n, err := io.NewSectionReader(p.file, from, s.Length).ReadAt(b, 0); n < len(b) {
				return fmt.Errorf("read back what is at offset %d: %w", from, err)
			}
		}
		if !content.IsZero(b) {
			return fault.New(fault.Aborted, "what should be zeros at offset %d reads back otherwise", from)
		}
		from = s.End()
	}
	return nil
}

// Become makes the file of target from a copy that is whole: by a new name if it is raw, else by conversion, for which
// there must be room for both.
func (p *Partial) Become(ctx context.Context, target Target, progress Progress) error {
	if err := target.Check(p.state.Size); err != nil {
		return err
	}
	if target.Format == Raw && target.Size == p.state.Size {
		info, err := p.file.Stat()
		if err != nil {
			return err
		}
		if stat, ok := info.Sys().(*syscall.Stat_t); ok {
			p.state.Inode = stat.Ino
		}
		if err := p.save(); err != nil {
			return err
		}
		out := &output{file: p.file, path: target.Path, overwrite: target.Overwrite}
		if err := out.keep(p.state.Size); err != nil {
			return err
		}
	} else if err := Convert(ctx, raw.Section(p.file, 0, p.state.Size), target, progress); err != nil {
		return err
	}
	p.state.Made = true
	return p.save()
}

// Close leaves what there is for the next one.
func (p *Partial) Close() error {
	if err := p.file.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

// Discard removes the copy that is left of what is to be at path.
func Discard(path string) error {
	disk, note := partialNames(path)
	halves, err := durable.Leftovers(note)
	if err != nil {
		return err
	}
	for _, name := range append(halves, disk, note) {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
