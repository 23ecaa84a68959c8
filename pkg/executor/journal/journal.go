// Package journal keeps what the executor does on disk: one file a plan, which holds the plan itself and then a line
// for everything that happened to it.
//
// Invariant: a record is on stable storage when Append returns. A torn tail, as a power cut leaves it, is cut off
// when the file is opened; damage before the last record is an error.
//
// It must not import what a step does.
package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/pkg/durable"
	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/plan"
)

// Suffix is that of journals in their directory.
const Suffix = ".journal"

// Each line is the CRC-32C of the rest in eight hexadecimal digits, a space, and a JSON object: first the plan, then records.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func frame(v any) ([]byte, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, "%08x %s\n", crc32.Checksum(data, castagnoli), data), nil
}

// unframe returns a line's JSON; false if the line is not whole.
func unframe(line []byte) ([]byte, bool) {
	if len(line) < 10 || line[8] != ' ' {
		return nil, false
	}
	data := line[9:]
	if fmt.Sprintf("%08x", crc32.Checksum(data, castagnoli)) != string(line[:8]) {
		return nil, false
	}
	return data, true
}

// content is what a journal's bytes say; whole is how many of them are good.
type content struct {
	plan    plan.Plan
	records []executor.Record
	whole   int
}

// parse reads a journal. What is behind the last whole line is a torn tail if no whole line follows it.
func parse(data []byte) (content, error) {
	var c content
	first, torn := true, false
	for at := 0; at < len(data); {
		line, end := data[at:], len(data)
		if n := bytes.IndexByte(line, '\n'); n >= 0 {
			line, end = line[:n], at+n+1
		}
		object, ok := unframe(line)
		ok = ok && data[end-1] == '\n'
		switch {
		case !ok:
			torn = true
		case torn:
			return c, fault.New(fault.Invalid, "damaged before byte %d: whole records follow", at)
		case first:
			p, err := plan.Parse(object)
			if err != nil {
				return c, err
			}
			c.plan, c.whole, first = p, end, false
		default:
			var r executor.Record
			if err := json.Unmarshal(object, &r); err != nil {
				return c, fault.New(fault.Invalid, "record at byte %d: %w", at, err)
			}
			if r.Step < 0 || r.Step > len(c.plan.Steps) || r.Event == executor.StepProgress && r.Progress == nil {
				return c, fault.New(fault.Invalid, "record at byte %d speaks of step %d of %d", at, r.Step, len(c.plan.Steps))
			}
			c.records, c.whole = append(c.records, r), end
		}
		at = end
	}
	if first {
		return c, fault.New(fault.Invalid, "it does not begin with a plan")
	}
	return c, nil
}

// Journal is an open journal; one process has it at a time.
type Journal struct {
	mu      sync.Mutex
	file    *os.File
	records []executor.Record
	plan    plan.Plan
	failed  error
}

var _ executor.Journal = (*Journal)(nil)

func path(dir string, id plan.ID) string { return filepath.Join(dir, string(id)+Suffix) }

// Create begins the journal of an approved plan. fault.Exists if there is one.
func Create(dir string, p plan.Plan) (*Journal, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create journal: %w", err)
	}
	line, err := frame(p)
	if err != nil {
		return nil, fmt.Errorf("encode plan %s: %w", p.ID, err)
	}
	if _, err := os.Stat(path(dir, p.ID)); err == nil {
		return nil, fault.New(fault.Exists, "plan %s has been begun already", p.ID)
	}
	// The plan is whole before the journal has its name: a power cut leaves none or one that can be read.
	if err := durable.WriteFile(path(dir, p.ID), line, 0o600); err != nil {
		return nil, fmt.Errorf("create journal: %w", err)
	}
	return Open(dir, p.ID)
}

// Save replaces a file so that a crash leaves the old content or the new one.
func Save(name, text string) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return fmt.Errorf("save: %w", err)
	}
	return durable.WriteFile(name, []byte(text), 0o600)
}

// Open opens a plan's journal to go on. fault.NotFound if there is none; fault.Busy if another process has it.
func Open(dir string, id plan.ID) (*Journal, error) {
	f, err := os.OpenFile(path(dir, id), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.NotFound, "plan %s has no journal in %s", id, dir)
	}
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	j, err := open(f)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open journal %s: %w", f.Name(), err)
	}
	return j, nil
}

func open(f *os.File) (*Journal, error) {
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, fault.New(fault.Busy, "another process runs this plan: %w", err)
	}
	data, err := os.ReadFile(f.Name())
	if err != nil {
		return nil, err
	}
	c, err := parse(data)
	if err != nil {
		return nil, err
	}
	if c.whole < len(data) {
		if err := errors.Join(f.Truncate(int64(c.whole)), f.Sync()); err != nil {
			return nil, fmt.Errorf("cut the torn tail off: %w", err)
		}
	}
	if _, err := f.Seek(int64(c.whole), 0); err != nil {
		return nil, err
	}
	return &Journal{file: f, records: c.records, plan: c.plan}, nil
}

// Plan is what is run.
func (j *Journal) Plan() plan.Plan { return j.plan }

// Records implements executor.Journal.
func (j *Journal) Records() []executor.Record {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.records)
}

// Append implements executor.Journal. After an error nothing more is appended: what the file ends with is not known
// before it is opened again.
func (j *Journal) Append(r executor.Record) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.failed != nil {
		return j.failed
	}
	line, err := frame(r)
	if err == nil {
		_, err = j.file.Write(line)
	}
	if err == nil {
		err = j.file.Sync()
	}
	if err != nil {
		j.failed = fmt.Errorf("append to %s: %w", j.file.Name(), err)
		return j.failed
	}
	j.records = append(j.records, r)
	return nil
}

// Close lets the journal go.
func (j *Journal) Close() error { return j.file.Close() }

// Entry is a journal as it is read beside a run.
type Entry struct {
	Plan    plan.Plan
	Records []executor.Record
	Err     error // why it cannot be read
	Path    string
}

// Read reads a plan's journal without taking it.
func Read(dir string, id plan.ID) (Entry, error) {
	e := Entry{Path: path(dir, id)}
	data, err := os.ReadFile(e.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return e, fault.New(fault.NotFound, "plan %s has no journal in %s", id, dir)
	}
	if err != nil {
		return e, fmt.Errorf("read journal: %w", err)
	}
	c, err := parse(data)
	e.Plan, e.Records = c.plan, c.records
	if err != nil {
		return e, fmt.Errorf("read journal %s: %w", e.Path, err)
	}
	return e, nil
}

// List reads all journals of a directory, the oldest first. One that cannot be read is in the list with its error.
func List(dir string) ([]Entry, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*"+Suffix))
	if err != nil {
		return nil, fmt.Errorf("list journals: %w", err)
	}
	var list []Entry
	for _, name := range names {
		e, err := Read(dir, plan.ID(strings.TrimSuffix(filepath.Base(name), Suffix)))
		e.Err = err
		list = append(list, e)
	}
	slices.SortStableFunc(list, func(x, y Entry) int { return x.begun().Compare(y.begun()) })
	return list, nil
}

// proposalSuffix is that of plans that nobody has approved yet.
const proposalSuffix = ".plan"

// Propose keeps a plan until it is approved or withdrawn.
func Propose(dir string, p plan.Plan) error {
	line, err := frame(p)
	if err != nil {
		return fmt.Errorf("encode plan %s: %w", p.ID, err)
	}
	return Save(filepath.Join(dir, string(p.ID)+proposalSuffix), string(line))
}

// Withdraw forgets a plan that was proposed; none is no error.
func Withdraw(dir string, id plan.ID) error {
	if err := os.Remove(filepath.Join(dir, string(id)+proposalSuffix)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("withdraw plan %s: %w", id, err)
	}
	return nil
}

// Proposals are the plans that nobody has approved, by their IDs. One that cannot be read is in the list with its error.
func Proposals(dir string) ([]Entry, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*"+proposalSuffix))
	if err != nil {
		return nil, fmt.Errorf("list proposals: %w", err)
	}
	var list []Entry
	for _, name := range names {
		data, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		e := Entry{Path: name}
		if err == nil {
			var c content
			c, err = parse(data)
			e.Plan = c.plan
		}
		if err != nil {
			e.Plan.ID = plan.ID(strings.TrimSuffix(filepath.Base(name), proposalSuffix))
			e.Err = fmt.Errorf("read proposal %s (nobody has approved it: it may be removed): %w", name, err)
		}
		list = append(list, e)
	}
	return list, nil
}

// begun is when the plan was first run; the zero time if it was not.
func (e Entry) begun() time.Time {
	if len(e.Records) == 0 {
		return time.Time{}
	}
	return e.Records[0].At
}

// Wish is what another process than the one that runs a plan asks of it: a file beside the journal.
type Wish string

// The wishes.
const (
	WishCancel Wish = ".cancel" // to end between two steps
	WishPause  Wish = ".pause"  // to copy no more, and to end between two steps
)

// Ask leaves a wish for whoever runs the plan.
func Ask(dir string, id plan.ID, w Wish) error {
	if err := durable.WriteFile(filepath.Join(dir, string(id)+string(w)), nil, 0o600); err != nil {
		return fmt.Errorf("ask plan %s: %w", id, err)
	}
	return nil
}

// Resume takes all wishes back.
func Resume(dir string, id plan.ID) error {
	for _, w := range []Wish{WishCancel, WishPause} {
		if err := os.Remove(filepath.Join(dir, string(id)+string(w))); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("resume plan %s: %w", id, err)
		}
	}
	return durable.SyncDir(dir)
}

// Asked reports whether there is a wish.
func Asked(dir string, id plan.ID, w Wish) bool {
	_, err := os.Stat(filepath.Join(dir, string(id)+string(w)))
	return err == nil
}

// Lock keeps other processes from running plans of this directory: plans of one machine may have disks in common.
// fault.Busy while one does.
func Lock(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("lock plans: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock plans: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fault.New(fault.Busy, "another process runs plans (`holdfast agent status`, `holdfast plan list`): %w", err)
	}
	return func() { _ = f.Close() }, nil
}
