package uml_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/storage"
	"github.com/holdfast-storage/holdfast/tests/uml"
	"github.com/holdfast-storage/holdfast/tests/uml/layoutload"
	"github.com/holdfast-storage/holdfast/tests/uml/layoutrun"
)

// TestPowerCutsAtAnyWrite logs every write of a stack's growth under load (dm-log-writes; a plain write is in the log once a flush has followed it), and replays
// the log up to points drawn over all that was flushed since the load began: one where much was not flushed yet, and, where everything is to be tried, by turns
// with such a one another that is drawn uniformly. Each time the guest boots with what a power cut there leaves, all acknowledged bytes must be there, and the
// plans must come to their end.
func TestPowerCutsAtAnyWrite(t *testing.T) {
	random := seed(t)
	b := newBench(t)
	mirrorThenFour(b)
	b.logged()
	b.job.Limit = 24 * storage.MiB
	b.boot(layoutrun.Kill{})
	b.holds()

	log, err := layoutrun.OpenLog(b.machine.Disks[1].Path)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	first := 0
	for first < len(log.Entries) && !isMark(log.Entries[first].Mark, layoutrun.MarkAck, new(uint64)) {
		first++
	}
	if first == len(log.Entries) {
		t.Fatalf("no write is acknowledged in a log of %d entries", first)
	}
	cuts := 1
	if all() {
		cuts = 12
	}
	b.machine.Disks, b.job.Fabric, b.job.Limit = b.machine.Disks[:1], "sliced", 0
	b.keepAll()
	for n := range cuts {
		cut := first + 1 + random.IntN(len(log.Entries)-first)
		for tries := 0; n%2 == 0 && log.Unflushed(cut) < 8 && tries < 1e5; tries++ { // every second one where much is lost
			cut = first + 1 + random.IntN(len(log.Entries)-first)
		}
		b.cutAt(log, cut, random)
		b.boot(layoutrun.Kill{})
		b.holds()
	}
}

// TestAReplayKeepsWhatWasFlushed replays a log that is known: what was flushed or written through is always there, all else only now and then.
func TestAReplayKeepsWhatWasFlushed(t *testing.T) {
	const flush, fua, discard, mark = 1, 2, 4, 8
	log := make([]byte, 512)
	entries := 0
	add := func(sector int64, flags uint64, data string) {
		entry := make([]byte, 512)
		binary.LittleEndian.PutUint64(entry, uint64(sector))
		binary.LittleEndian.PutUint64(entry[16:], flags)
		switch {
		case flags == mark:
			binary.LittleEndian.PutUint64(entry[24:], uint64(len(data)))
			copy(entry[32:], data)
		case data != "":
			binary.LittleEndian.PutUint64(entry[8:], 1)
		}
		log = append(log, entry...)
		if data != "" && flags&(mark|discard) == 0 {
			log = append(log, append([]byte(data), make([]byte, 512-len(data))...)...)
		}
		entries++
	}
	add(0, 0, "flushed")
	add(1, 0, "old")
	add(0, flush, "")
	add(0, mark, "ack:7")
	add(1, 0, "new")
	add(2, fua, "through")
	add(0, discard, "discarded")
	add(3, 0, "behind the cut")
	binary.LittleEndian.PutUint64(log, 0x6a736677736872)
	binary.LittleEndian.PutUint64(log[8:], 1)
	binary.LittleEndian.PutUint64(log[16:], uint64(entries))
	binary.LittleEndian.PutUint32(log[24:], 512)
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, log, 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := layoutrun.OpenLog(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if len(l.Entries) != entries || l.Entries[3].Mark != "ack:7" {
		t.Fatalf("%+v", l.Entries)
	}
	if n := l.Unflushed(entries - 1); n != 1 {
		t.Errorf("%d writes may be lost", n)
	}
	seen := map[string]bool{}
	for n := range uint64(32) {
		disk := filepath.Join(t.TempDir(), "disk")
		if err := os.WriteFile(disk, make([]byte, 4*512), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, err := l.Replay(disk, entries-1, rand.New(rand.NewPCG(n, 0))); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(disk)
		if err != nil {
			t.Fatal(err)
		}
		var words []string
		for at := 0; at < len(data); at += 512 {
			words = append(words, strings.TrimRight(string(data[at:at+512]), "\x00"))
		}
		seen[strings.Join(words, ",")] = true
	}
	if want := map[string]bool{"flushed,old,through,": true, "flushed,new,through,": true}; !maps.Equal(seen, want) {
		t.Errorf("%v, want %v", seen, want)
	}
}

// isMark reads a mark of a form.
func isMark(mark, form string, into ...any) bool {
	n, err := fmt.Sscanf(mark, form, into...)
	return err == nil && n == len(into)
}

// logged makes all disks parts of one whose writes are logged to another.
func (b *bench) logged() {
	b.t.Helper()
	var size int64
	for _, d := range b.job.Disks {
		size += int64(d.Size)
	}
	b.job.Fabric, b.machine.Disks = "logged", nil
	for name, size := range map[string]int64{"store": size, "writes": 8 << 30} {
		b.sparse(name, size)
	}
	for _, name := range []string{"store", "writes"} {
		b.machine.Disks = append(b.machine.Disks, uml.Disk{Path: filepath.Join(b.dir, name), Serial: name})
	}
}

// sparse makes a file of zeros.
func (b *bench) sparse(name string, size int64) {
	b.t.Helper()
	f, err := os.Create(filepath.Join(b.dir, name))
	if err == nil {
		err = errors.Join(f.Truncate(size), f.Close())
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// keepAll puts aside what a boot has left outside of its disks.
func (b *bench) keepAll() {
	b.t.Helper()
	if err := os.MkdirAll(filepath.Join(b.dir, "kept"), 0o700); err != nil {
		b.t.Fatal(err)
	}
	for _, name := range []string{"journals", "acks"} {
		if err := os.Rename(filepath.Join(b.dir, name), filepath.Join(b.dir, "kept", name)); err != nil {
			b.t.Fatal(err)
		}
	}
}

// cutAt makes disks, journals and acknowledgements what they were when the power went.
func (b *bench) cutAt(log *layoutrun.WriteLog, cut int, random *rand.Rand) {
	b.t.Helper()
	var acked uint64
	records := map[string]int{}
	for _, e := range log.Entries[:cut] {
		var id string
		var n int
		if isMark(e.Mark, layoutrun.MarkJournal, &n, &id) {
			records[id] = n
		}
		isMark(e.Mark, layoutrun.MarkAck, &acked)
	}
	info, err := os.Stat(b.machine.Disks[0].Path)
	if err != nil {
		b.t.Fatal(err)
	}
	b.sparse(filepath.Base(b.machine.Disks[0].Path), info.Size())
	kept, lost, err := log.Replay(b.machine.Disks[0].Path, cut, random)
	if err == nil {
		err = b.journalsUpTo(records)
	}
	if err == nil {
		err = b.acksUpTo(acked)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Logf("power cut at entry %d of %d: %d writes kept, %d lost, last acknowledged version %d, journals %v", cut, len(log.Entries), kept, lost, acked, records)
}

// journalsUpTo restores the journals with as many records as they had. What was begun after the cut has none.
func (b *bench) journalsUpTo(records map[string]int) error {
	dir := filepath.Join(b.dir, "journals")
	if err := errors.Join(os.RemoveAll(dir), os.RemoveAll(filepath.Join(b.dir, "events")), os.Mkdir(dir, 0o700)); err != nil {
		return err
	}
	for id, n := range records {
		data, err := os.ReadFile(filepath.Join(b.dir, "kept", "journals", id+".journal"))
		if err != nil {
			return err
		}
		lines := bytes.SplitAfter(data, []byte("\n")) // the plan, then a record a line
		if err := os.WriteFile(filepath.Join(dir, id+".journal"), bytes.Join(lines[:min(1+n, len(lines))], nil), 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) acksUpTo(version uint64) error {
	data, err := os.ReadFile(filepath.Join(b.dir, "kept", "acks"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.WriteFile(filepath.Join(b.dir, "acks"), data, 0o600); err != nil {
		return err
	}
	return layoutload.Load{Acks: b.dir}.Forget(version)
}
