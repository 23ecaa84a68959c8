package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/disk"
	"github.com/holdfast-storage/holdfast/pkg/executor/journal"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/ledger"
	"github.com/holdfast-storage/holdfast/pkg/md"
	"github.com/holdfast-storage/holdfast/pkg/obs"
	"github.com/holdfast-storage/holdfast/pkg/smart"
	"github.com/holdfast-storage/holdfast/pkg/stack"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Monitor looks at what the node's disks and arrays say of themselves. It changes nothing but for scrubs, which compare and repair nothing.
type Monitor struct {
	Ledger    ledger.Ledger
	Inventory func() disk.Inventory
	Arrays    func() ([]md.Array, error)
	Scrub     func(md.Array) error
	// Health asks a disk by its kernel name.
	Health func(ctx context.Context, name string) (smart.Health, error)
	// Looked hears of each look; nil for nobody.
	Looked func(Sight)
	// Every is how often arrays are looked at, HealthEvery how often disks are asked, ScrubEvery how often an array is compared; 0 never asks, or
	// never compares.
	Every, HealthEvery, ScrubEvery time.Duration
	Log                            *slog.Logger
	Now                            func() time.Time

	telling   sync.Mutex // of who hears of looks
	mu        sync.Mutex
	seen      Sight
	asked     time.Time // by Ask alone
	complaint string    // by Look alone
}

// Sight is what there was at one look.
type Sight struct {
	Inventory disk.Inventory
	Health    map[storage.DiskID]smart.Health
	Arrays    []ArraySight
	Missing   []Missing
	Err       string // why the arrays could not be looked at
}

// ArraySight is an array of a stack.
type ArraySight struct {
	Stack, Name string
	Want        stack.Array
	Runs        bool
	Array       md.Array
	Failed      []storage.DiskID // disks of members that md calls faulty
}

// Missing is a disk of a stack that is not in the machine.
type Missing struct {
	Stack string
	Disk  storage.DiskID
}

// Sight returns the newest look.
func (m *Monitor) Sight() Sight {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.seen
}

// Run looks until ctx ends. Disks are asked beside it, since one that hangs does so for minutes, or for good: that is not waited for in the end.
func (m *Monitor) Run(ctx context.Context) error {
	if m.HealthEvery > 0 {
		go m.keep(ctx, m.Ask)
	}
	m.keep(ctx, m.Look)
	return nil
}

// keep does something again and again, once there is an inventory.
func (m *Monitor) keep(ctx context.Context, do func(context.Context)) {
	ticker := time.NewTicker(m.Every)
	defer ticker.Stop()
	for {
		if m.Inventory().Generation > 0 {
			do(ctx)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// Look looks once at what the system knows of disks and arrays, and begins a scrub that is due.
func (m *Monitor) Look(context.Context) {
	s := Sight{Inventory: m.Inventory()}
	if err := m.arrays(&s); err != nil {
		s.Err = err.Error()
	}
	m.complain(m.scrub(s))
	m.publish(func(seen *Sight) {
		s.Health = seen.Health
		*seen = s
	})
}

// complain says why a scrub does not begin, once.
func (m *Monitor) complain(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != "" && text != m.complaint {
		m.Log.Warn("scrub does not begin", obs.KeyError, err)
	}
	m.complaint = text
}

// Ask asks all disks for their health, if it is time to. One call at a time.
func (m *Monitor) Ask(ctx context.Context) {
	if !m.asked.IsZero() && m.Now().Sub(m.asked) < m.HealthEvery {
		return
	}
	m.asked = m.Now()
	health := m.ask(ctx, m.Inventory())
	if ctx.Err() == nil {
		m.publish(func(seen *Sight) { seen.Health = health })
	}
}

// publish changes what is seen and tells of it, one after the other.
func (m *Monitor) publish(change func(*Sight)) {
	m.telling.Lock()
	defer m.telling.Unlock()
	m.mu.Lock()
	change(&m.seen)
	s := m.seen
	m.mu.Unlock()
	if m.Looked != nil {
		m.Looked(s)
	}
}

// ask asks all disks for their health, one after the other.
func (m *Monitor) ask(ctx context.Context, i disk.Inventory) map[storage.DiskID]smart.Health {
	all := map[storage.DiskID]smart.Health{}
	for _, d := range i.Disks {
		if d.ID == "" || d.Because(storage.ReasonKind) || ctx.Err() != nil {
			continue
		}
		h, err := m.Health(ctx, d.Name)
		if errors.Is(err, fault.Unsupported) {
			m.Log.Warn("disks are not asked for their health", obs.KeyError, err)
			return all
		}
		all[d.ID] = h
	}
	return all
}

// arrays finds the arrays and disks of all stacks.
func (m *Monitor) arrays(s *Sight) error {
	stacks, err := m.stacks()
	if err != nil {
		return err
	}
	running, err := m.Arrays()
	if err != nil {
		return err
	}
	for _, one := range stacks {
		for _, d := range one.Disks {
			if i := slices.IndexFunc(s.Inventory.Disks, func(x storage.Disk) bool { return named(x, string(d.ID)) }); i < 0 {
				s.Missing = append(s.Missing, Missing{one.Name, storage.DiskID(d.ID)})
			}
		}
		for _, want := range one.Arrays {
			a := ArraySight{Stack: one.Name, Name: want.Name, Want: want}
			if i := slices.IndexFunc(running, func(x md.Array) bool { return x.UUID == want.UUID }); i >= 0 {
				a.Runs, a.Array = true, running[i]
				a.Failed = failed(running[i], s.Inventory.Disks)
			}
			s.Arrays = append(s.Arrays, a)
		}
	}
	return nil
}

// named reports whether a plan's name for a disk is one of the disk's.
func named(d storage.Disk, name string) bool {
	return string(d.ID) == name || d.WWN == name || d.Serial == name
}

// stacks are all stacks as they are, those in the middle of a plan too.
func (m *Monitor) stacks() ([]stack.Stack, error) {
	last, err := m.Ledger.LastOfAll()
	if err != nil {
		return nil, err
	}
	var list []stack.Stack
	for name, p := range last {
		s, there, err := m.Ledger.Stack(name)
		if errors.Is(err, fault.Busy) {
			s, err = stack.Parse(p.State)
			there = true
		}
		if err != nil {
			return nil, err
		}
		if there {
			list = append(list, s)
		}
	}
	slices.SortFunc(list, func(a, b stack.Stack) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// failed are the disks that an array calls faulty, or wants replaced.
func failed(a md.Array, disks []storage.Disk) []storage.DiskID {
	var list []storage.DiskID
	for _, member := range a.Members {
		if !member.Faulty {
			continue
		}
		for _, d := range disks {
			if slices.ContainsFunc(d.Partitions, func(p storage.Partition) bool { return p.Name == member.Device }) {
				list = append(list, d.ID)
			}
		}
	}
	return list
}

// scrub begins to compare the array that was not for longest, if one is due and none is at work. One that does not begin does not keep the next from it.
func (m *Monitor) scrub(s Sight) error {
	if m.ScrubEvery == 0 {
		return nil
	}
	since := map[string]time.Time{}
	var due []ArraySight
	for _, a := range s.Arrays {
		if a.Runs && a.Array.Busy() {
			return nil
		}
		last, err := m.scrubbed(a.Want.UUID)
		if err != nil {
			return err
		}
		if a.Runs && a.Array.Degraded == 0 && m.Now().Sub(last) >= m.ScrubEvery {
			since[a.Want.UUID], due = last, append(due, a)
		}
	}
	slices.SortStableFunc(due, func(a, b ArraySight) int { return since[a.Want.UUID].Compare(since[b.Want.UUID]) })
	var errs []error
	for _, a := range due {
		err := m.begin(a, since[a.Want.UUID])
		if err == nil {
			break
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// begin begins a scrub. Its date is kept before, or a crash would begin it at every boot, and is the old one again if it does not begin.
func (m *Monitor) begin(a ArraySight, last time.Time) error {
	if err := m.keepDate(a.Want.UUID, m.Now()); err != nil {
		return err
	}
	if err := m.Scrub(a.Array); err != nil {
		return errors.Join(err, m.keepDate(a.Want.UUID, last))
	}
	m.Log.Info("scrub begins", obs.KeyName, a.Name)
	return nil
}

func (m *Monitor) keepDate(uuid string, at time.Time) error {
	return journal.Save(m.scrubFile(uuid), at.UTC().Format(time.RFC3339)+"\n")
}

func (m *Monitor) scrubFile(uuid string) string {
	return filepath.Join(m.Ledger.Dir, "scrubs", uuid)
}

// scrubbed is when an array was last compared. Of one that was not the time begins now: a new array was written whole a moment ago.
func (m *Monitor) scrubbed(uuid string) (time.Time, error) {
	data, err := os.ReadFile(m.scrubFile(uuid))
	if errors.Is(err, os.ErrNotExist) {
		return m.Now(), m.keepDate(uuid, m.Now())
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("read when an array was scrubbed: %w", err)
	}
	at, err := time.Parse(time.RFC3339, strings.TrimSpace(string(data)))
	if err != nil {
		return time.Time{}, fault.New(fault.Invalid, "%s: %w", m.scrubFile(uuid), err)
	}
	return at, nil
}
