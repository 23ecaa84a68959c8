package disk

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Events is where a Watcher hears of changes. Next waits; an Event without a name means that
// some were lost.
type Events interface {
	Next(ctx context.Context) (Event, error)
}

// Watcher keeps an inventory up to date: by events, of which each makes it look at one disk
// again, and by full scans, because mounts and swaps make no events.
type Watcher struct {
	scanner *Scanner
	settle  time.Duration
	every   time.Duration
	changed func(Inventory)

	mu      sync.Mutex
	current Inventory
	seen    map[string]storage.Disk // by name, before conclude
}

// WatcherConfig says how a Watcher works.
type WatcherConfig struct {
	Settle  time.Duration   // how long events of one disk are gathered; 0: 200 ms
	Every   time.Duration   // between full scans; 0: 5 minutes
	Changed func(Inventory) // called with every new generation, one call at a time; may be nil
}

// NewWatcher makes a watcher; Run does its work.
func NewWatcher(scanner *Scanner, cfg WatcherConfig) *Watcher {
	w := &Watcher{scanner: scanner, settle: cfg.Settle, every: cfg.Every, changed: cfg.Changed, seen: map[string]storage.Disk{}}
	if w.settle == 0 {
		w.settle = 200 * time.Millisecond
	}
	if w.every == 0 {
		w.every = 5 * time.Minute
	}
	if w.changed == nil {
		w.changed = func(Inventory) {}
	}
	return w
}

// Inventory returns the newest inventory; Generation 0 is none yet.
func (w *Watcher) Inventory() Inventory {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.current
}

// Run scans all disks, then follows events until ctx ends. An error of a full scan ends it: a
// stale inventory must not pass for a fresh one.
func (w *Watcher) Run(ctx context.Context, events Events) error {
	if err := w.rescan(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	incoming := make(chan Event, 64)
	failed := make(chan error, 1)
	var listener sync.WaitGroup
	listener.Go(func() { failed <- listen(ctx, events, incoming) })
	defer listener.Wait()
	defer cancel()
	return w.follow(ctx, incoming, failed)
}

func listen(ctx context.Context, events Events, out chan<- Event) error {
	for {
		event, err := events.Next(ctx)
		if err != nil {
			return err
		}
		select {
		case out <- event:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// follow gathers the names that events tell until they settle, then looks at those disks.
func (w *Watcher) follow(ctx context.Context, incoming <-chan Event, failed <-chan error) error {
	full := time.NewTicker(w.every)
	defer full.Stop()
	pending := map[string]bool{}
	settled := time.NewTimer(w.settle)
	settled.Stop()
	defer settled.Stop()
	for {
		var err error
		select {
		case err := <-failed:
			if errors.Is(err, context.Canceled) {
				return nil
			}
			return err
		case <-ctx.Done():
			return nil
		case event := <-incoming:
			if len(pending) == 0 {
				settled.Reset(w.settle)
			}
			pending[event.Name] = true
		case <-settled.C:
			if pending[""] {
				err = w.rescan(ctx)
			} else {
				err = w.look(slices.Sorted(maps.Keys(pending)))
			}
			pending = map[string]bool{}
		case <-full.C:
			err = w.rescan(ctx)
		}
		if err != nil && ctx.Err() == nil {
			return err
		}
	}
}

// rescan looks at all disks.
func (w *Watcher) rescan(ctx context.Context) error {
	if err := w.scanner.askAnew(); err != nil {
		return err
	}
	disks, err := w.scanner.scan(ctx)
	if err != nil {
		return err
	}
	w.seen = map[string]storage.Disk{}
	for _, d := range disks {
		w.seen[d.Name] = d
	}
	w.publish(w.scanner.cfg.Now())
	return nil
}

// look looks at the disks named, and at those below and above them: a device-mapper or md
// device that comes or goes changes the disks that it is made of, which tell nothing of it.
func (w *Watcher) look(names []string) error {
	k, err := readKernel(w.scanner.cfg.Root)
	if err != nil {
		return err
	}
	there, err := w.scanner.names()
	if err != nil {
		return err
	}
	for _, name := range w.related(names) {
		if slices.Contains(there, name) {
			w.seen[name] = w.scanner.probe(k, name)
		} else {
			delete(w.seen, name)
		}
	}
	w.publish(w.Inventory().Scanned)
	return nil
}

// related adds the disks that the named ones are made of, now or when last seen.
func (w *Watcher) related(names []string) []string {
	all := map[string]bool{}
	for _, name := range names {
		all[name] = true
		slaves, _ := filepath.Glob(filepath.Join(w.scanner.cfg.Root, "sys/block", name, "slaves", "*"))
		for _, slave := range slaves {
			all[w.whole(filepath.Base(slave))] = true
		}
		for other, d := range w.seen {
			if slices.Contains(d.Holders, name) {
				all[other] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// whole returns the disk that a partition belongs to.
func (w *Watcher) whole(name string) string {
	for disk, d := range w.seen {
		if slices.ContainsFunc(d.Partitions, func(p storage.Partition) bool { return p.Name == name }) {
			return disk
		}
	}
	return name
}

// publish makes the next generation if anything is other than before.
func (w *Watcher) publish(scanned time.Time) {
	disks := conclude(slices.Collect(maps.Values(w.seen)))
	w.mu.Lock()
	w.current.Scanned = scanned
	same := w.current.Generation > 0 && reflect.DeepEqual(disks, w.current.Disks)
	if !same {
		w.current.Generation++
		w.current.Disks = disks
	}
	current := w.current
	w.mu.Unlock()
	if !same {
		w.changed(current)
	}
}

// String is for logs.
func (i Inventory) String() string {
	free := 0
	for _, d := range i.Disks {
		if d.Free() {
			free++
		}
	}
	return fmt.Sprintf("generation %d: %d devices, %d free", i.Generation, len(i.Disks), free)
}
