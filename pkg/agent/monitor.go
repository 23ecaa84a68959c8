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

	mu    sync.Mutex
	seen  Sight
	asked time.Time
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

// Run looks until ctx ends.
func (m *Monitor) Run(ctx context.Context) error {
	ticker := time.NewTicker(m.Every)
	defer ticker.Stop()
	for {
		if m.Inventory().Generation > 0 {
			m.Look(ctx)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// Look looks once.
func (m *Monitor) Look(ctx context.Context) {
	s := Sight{Inventory: m.Inventory(), Health: m.Sight().Health}
	if err := m.arrays(&s); err != nil {
		s.Err = err.Error()
	}
	if err := m.scrub(s); err != nil {
		m.Log.Warn("scrub does not begin", obs.KeyError, err)
	}
	m.publish(s)
	if m.HealthEvery > 0 && (m.asked.IsZero() || m.Now().Sub(m.asked) >= m.HealthEvery) {
		m.asked = m.Now()
		s.Health = m.ask(ctx, s.Inventory) // last: a disk that fails may take its time
		m.publish(s)
	}
}

func (m *Monitor) publish(s Sight) {
	m.mu.Lock()
	m.seen = s
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

// scrub begins to compare the array that was not for longest, if one is due and none is at work.
func (m *Monitor) scrub(s Sight) error {
	if m.ScrubEvery == 0 {
		return nil
	}
	var due *ArraySight
	var since time.Time
	for i, a := range s.Arrays {
		if a.Runs && a.Array.Busy() {
			return nil
		}
		last, err := m.scrubbed(a.Want.UUID)
		if err != nil {
			return err
		}
		if a.Runs && a.Array.Degraded == 0 && m.Now().Sub(last) >= m.ScrubEvery && (due == nil || last.Before(since)) {
			due, since = &s.Arrays[i], last
		}
	}
	if due == nil {
		return nil
	}
	if err := journal.Save(m.scrubFile(due.Want.UUID), m.Now().UTC().Format(time.RFC3339)+"\n"); err != nil {
		return err
	}
	m.Log.Info("scrub begins", obs.KeyName, due.Name)
	return m.Scrub(due.Array)
}

func (m *Monitor) scrubFile(uuid string) string {
	return filepath.Join(m.Ledger.Dir, "scrubs", uuid)
}

// scrubbed is when an array was last compared. Of one that was not the time begins now: a new array was written whole a moment ago.
func (m *Monitor) scrubbed(uuid string) (time.Time, error) {
	data, err := os.ReadFile(m.scrubFile(uuid))
	if errors.Is(err, os.ErrNotExist) {
		return m.Now(), journal.Save(m.scrubFile(uuid), m.Now().UTC().Format(time.RFC3339)+"\n")
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
