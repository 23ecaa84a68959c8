package layoutrun

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
)

// WriteLog is a log of dm-log-writes (Documentation/admin-guide/device-mapper/log-writes.rst; drivers/md/dm-log-writes.c): all writes to a device in
// the order in which they came to be stable, with its flushes and with marks.
type WriteLog struct {
	file    *os.File
	sector  int64
	Entries []LogEntry
}

// LogEntry is one entry of a log.
type LogEntry struct {
	sector, sectors int64
	flags           uint64
	data            int64 // where in the file
	Mark            string
}

// Flags of an entry.
const (
	logFlush = 1 << iota
	logFUA
	logDiscard
	logMark
)

const logMagic = 0x6a736677736872

// OpenLog reads which entries a log has.
func OpenLog(path string) (*WriteLog, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	head := make([]byte, 28)
	if _, err := file.ReadAt(head, 0); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	word := func(b []byte, i int) int64 { return int64(binary.LittleEndian.Uint64(b[8*i:])) }
	if word(head, 0) != logMagic {
		return nil, errors.Join(fmt.Errorf("%s is no log", path), file.Close())
	}
	l := &WriteLog{file: file, sector: int64(binary.LittleEndian.Uint32(head[24:]))}
	at, buf := l.sector, make([]byte, l.sector)
	for range word(head, 2) {
		if _, err := file.ReadAt(buf, at); err != nil {
			return nil, errors.Join(err, file.Close())
		}
		e := LogEntry{sector: word(buf, 0), sectors: word(buf, 1), flags: binary.LittleEndian.Uint64(buf[16:]), data: at + l.sector}
		if e.flags&logMark != 0 {
			e.Mark = string(bytes.TrimRight(buf[32:32+word(buf, 3)], "\x00"))
		}
		if at = e.data; e.flags&logDiscard == 0 {
			at += e.sectors * l.sector
		}
		l.Entries = append(l.Entries, e)
	}
	return l, nil
}

// Close closes the log's file.
func (l *WriteLog) Close() error { return l.file.Close() }

// Replay writes to a file what a power cut before the entry of an index leaves on the device: all that was flushed by then, and of what was written
// later whatever the random numbers say, since a disk may write its cache back in any order.
func (l *WriteLog) Replay(to string, cut int, random *rand.Rand) (kept, lost int, err error) {
	out, err := os.OpenFile(to, os.O_WRONLY, 0)
	if err != nil {
		return 0, 0, err
	}
	flushed := l.flushed(cut)
	for i, e := range l.Entries[:cut] {
		if i > flushed && e.flags&logFUA == 0 && random.IntN(2) == 0 {
			lost++
			continue
		}
		kept++
		if err := l.write(out, e); err != nil {
			return kept, lost, errors.Join(err, out.Close())
		}
	}
	return kept, lost, out.Close()
}

// flushed is the index of the last flush before an entry.
func (l *WriteLog) flushed(cut int) int {
	for i := cut - 1; i > 0; i-- {
		if l.Entries[i].flags&logFlush != 0 {
			return i
		}
	}
	return 0
}

// Unflushed is how many writes before an entry a power cut there may lose.
func (l *WriteLog) Unflushed(cut int) (n int) {
	for _, e := range l.Entries[l.flushed(cut):cut] {
		if e.flags == 0 && e.sectors > 0 {
			n++
		}
	}
	return n
}

func (l *WriteLog) write(out *os.File, e LogEntry) error {
	size := e.sectors * l.sector
	if size == 0 || e.flags&(logMark|logDiscard) != 0 { // what was discarded may be there still
		return nil
	}
	_, err := io.Copy(io.NewOffsetWriter(out, e.sector*l.sector), io.NewSectionReader(l.file, e.data, size))
	return err
}
