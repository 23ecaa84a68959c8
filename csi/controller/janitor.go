package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/holdfast-storage/holdfast/csi/clustermap"
	"github.com/holdfast-storage/holdfast/csi/record"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/obs"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// The janitor does in the background what no caller need wait for: it frees what deleted
// volumes left, and flattens clones. All that it knows it can find out again from the cluster,
// so a crash costs nothing but time. Of two controllers alive at once both may do the same
// work; each step is one that Ceph lets only one of them do.
type janitor struct {
	woken chan struct{}

	mu    sync.Mutex
	sites map[storage.ClusterID]*chores

	flattened     string // key of the volume that is being flattened
	done, objects uint64 // how far that is

	strange map[storage.ClusterID]map[string]bool // incarnations seen in the trash that this process did not delete
}

// see notes an incarnation in the trash of a cluster; seen returns those noted by now, and forgets them.
func (j *janitor) see(id storage.ClusterID, incarnation string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.strange[id] == nil {
		j.strange[id] = map[string]bool{}
	}
	j.strange[id][incarnation] = true
}

func (j *janitor) seen(id storage.ClusterID) map[string]bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	known := j.strange[id]
	delete(j.strange, id)
	return known
}

// progress notes how far the flattening of a volume is, flattening tells it: 0 of 0 when it is
// not under way in this process.
func (j *janitor) progress(key string, done, total uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.flattened, j.done, j.objects = key, done, total
}

func (j *janitor) flattening(key string) (done, total uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.flattened != key {
		return 0, 0
	}
	return j.done, j.objects
}

// chores are what is to be done on one cluster.
type chores struct {
	site    clustermap.Site
	reap    bool
	deleted map[string]bool // incarnations that this process deleted
	later   bool            // something is to be looked at again
	failed  bool            // an earlier turn did, perhaps because its connection was cut off (record.Evict)
	flatten []string        // keys of volumes
	relieve []string        // handles of volumes that have too many snapshots for their clones

	outlived map[string]creation // by incarnation
}

const (
	// lookAgain is the pause before the janitor tries again what a client still holds.
	lookAgain = 30 * time.Second
	// lookAround is how often the janitor looks for what others left: other controllers, or people
	// who removed a snapshot by hand.
	lookAround = 10 * time.Minute
	// choreLimit bounds one chore; what is cut off goes on at the next turn.
	choreLimit = time.Hour
)

func newJanitor() *janitor {
	return &janitor{woken: make(chan struct{}, 1), sites: map[storage.ClusterID]*chores{}, strange: map[storage.ClusterID]map[string]bool{}}
}

// wake asks for what deleted volumes left on the site to be freed, that of incarnations
// among it.
func (j *janitor) wake(site clustermap.Site, incarnations ...string) {
	j.note(site, func(c *chores) {
		c.reap = true
		for _, i := range incarnations {
			c.deleted[i] = true
		}
	})
}

// flatten asks for the volume under key to be made independent.
func (j *janitor) flatten(site clustermap.Site, key string) {
	j.note(site, func(c *chores) { c.flatten = append(c.flatten, key) })
}

// relieve asks for the volumes made from snapshots of the one with this handle to be made
// independent, so that snapshots that only they need can go.
func (j *janitor) relieve(site clustermap.Site, handle string) {
	j.note(site, func(c *chores) { c.relieve = append(c.relieve, handle) })
}

func (j *janitor) note(site clustermap.Site, change func(*chores)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	c := j.sites[site.Entry.ID]
	if c == nil {
		c = &chores{deleted: map[string]bool{}, outlived: map[string]creation{}}
		j.sites[site.Entry.ID] = c
	}
	c.site = site
	change(c)
	select {
	case j.woken <- struct{}{}:
	default:
	}
}

// distrust notes that work on a site failed.
func (j *janitor) distrust(site clustermap.Site) { j.note(site, func(c *chores) { c.failed = true }) }

// take returns all chores and forgets them.
func (j *janitor) take() []*chores {
	j.mu.Lock()
	defer j.mu.Unlock()
	var all []*chores
	for _, c := range j.sites {
		all = append(all, c)
	}
	clear(j.sites)
	return all
}

// Clean does the background work until ctx ends, beginning with what earlier processes
// left on the clusters of which the service has credentials of its own.
func (s *Server) Clean(ctx context.Context) error {
	s.inherited(ctx)
	ticker := time.NewTicker(lookAround)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			s.inherited(ctx)
		case <-s.janitor.woken:
			s.Tidy(ctx)
		}
	}
}

// Tidy does the background work that there is now.
func (s *Server) Tidy(ctx context.Context) {
	for _, c := range s.janitor.take() {
		s.clean(ctx, c)
	}
}

// inherited finds the chores that earlier processes left.
func (s *Server) inherited(ctx context.Context) {
	clusters, err := s.Clusters.Clusters()
	if err != nil {
		s.Log.Error("background work cannot begin", obs.KeyError, err)
		return
	}
	for _, cluster := range clusters {
		site, err := s.connect(ctx, cluster.ID, nil)
		if err != nil {
			s.Log.Warn("what earlier processes left on the cluster waits for the next deletion there", "cluster", cluster.ID, obs.KeyError, err)
			continue
		}
		s.janitor.wake(site)
		keys, err := s.volumesThat(ctx, site, func(r *record.Record) bool { return r.Flatten && r.State == record.Ready })
		if err != nil && ctx.Err() == nil {
			s.Log.Warn("clones to be flattened cannot be looked for", "cluster", cluster.ID, obs.KeyError, err)
		}
		for _, key := range keys {
			s.janitor.flatten(site, key)
		}
	}
}

// clean does the chores of one cluster, one after the other: it must not starve callers.
func (s *Server) clean(ctx context.Context, c *chores) {
	if c.failed {
		if own, err := s.connect(ctx, c.site.Entry.ID, nil); err == nil {
			c.site = own
		}
	}
	for _, o := range c.outlived {
		s.chore(ctx, s.takeBack(ctx, c.site, o), "take back what was made without a lease", o.record.Name)
	}
	for _, handle := range c.relieve {
		keys, err := s.madeFrom(ctx, c.site, handle)
		s.chore(ctx, err, "look for clones", handle)
		c.flatten = append(c.flatten, keys...)
	}
	for _, key := range c.flatten {
		s.chore(ctx, s.flattenVolume(ctx, c.site, key), "flatten", key)
		c.reap = true // the parent may have waited for this one
	}
	if !c.reap {
		return
	}
	bounded, cancel := context.WithTimeout(ctx, choreLimit)
	defer cancel()
	more, err := s.Backend.Reap(bounded, c.site, s.deleted(c))
	s.chore(ctx, err, "free what was deleted", string(c.site.Entry.ID))
	if (more || c.later || err != nil) && ctx.Err() == nil {
		s.retry(c.site, err, func() { s.janitor.wake(c.site) })
	}
}

// deleted returns a function that tells whether the volume of an incarnation was deleted: by
// this process, or by another, which left no record of it. While there is a record the image may be
// on its way into the trash this moment, and librbd does not bear that it is removed then; so
// what is not this process's own is judged by records that are read after it was first seen.
func (s *Server) deleted(c *chores) func(context.Context, string) (bool, error) {
	known := s.janitor.seen(c.site.Entry.ID)
	var recorded map[string]bool
	return func(ctx context.Context, incarnation string) (bool, error) {
		if c.deleted[incarnation] {
			return true, nil
		}
		if !known[incarnation] {
			s.janitor.see(c.site.Entry.ID, incarnation)
			c.later = true
			return false, nil
		}
		if recorded == nil {
			var err error
			if recorded, err = s.incarnations(ctx, c.site); err != nil {
				return false, err
			}
		}
		return !recorded[incarnation], nil
	}
}

// retry asks for a chore again after the pause; err is what it failed with, if it did.
func (s *Server) retry(site clustermap.Site, err error, ask func()) {
	time.AfterFunc(s.LookAgain, func() {
		if err != nil {
			s.janitor.distrust(site)
		}
		ask()
	})
}

func (s *Server) chore(ctx context.Context, err error, what, of string) {
	if err != nil && ctx.Err() == nil {
		s.Log.Warn("background work failed; it is tried again", obs.KeyDriver, s.Backend.Driver(), "work", what, "of", of, obs.KeyError, err)
	}
}

// incarnations returns those of all volumes that have a record, whatever entry of the cluster map
// they belong to. A record that cannot be read is an error: it may be of any of them.
func (s *Server) incarnations(ctx context.Context, site clustermap.Site) (map[string]bool, error) {
	store := s.store(site)
	keys, err := store.Keys(ctx)
	if err != nil {
		return nil, err
	}
	found := map[string]bool{}
	var unread error
	for list := range slices.Chunk(keys, batch) {
		records, err := store.ReadAll(ctx, list, func(key string, err error) { unread = fmt.Errorf("record %s: %w", key, err) })
		if err = errors.Join(err, unread); err != nil {
			return nil, err
		}
		for _, r := range records {
			if r != nil {
				found[r.Incarnation] = true
			}
		}
	}
	return found, nil
}

// flattenVolume makes a clone independent and notes it in its record. The lease is held for
// the note alone: users of the volume need not wait.
func (s *Server) flattenVolume(ctx context.Context, site clustermap.Site, key string) error {
	ctx, cancel := context.WithTimeout(ctx, choreLimit)
	defer cancel()
	r, err := s.store(site).Read(ctx, key)
	if errors.Is(err, fault.NotFound) || err == nil && (r.State != record.Ready || r.Depth == 0) {
		return nil
	}
	if err != nil {
		return err
	}
	err = s.Backend.Flatten(ctx, site, r, func(done, total uint64) { s.janitor.progress(key, done, total) })
	s.janitor.progress("", 0, 0)
	if errors.Is(err, fault.NotFound) { // deleted meanwhile
		return nil
	}
	if err != nil {
		s.retry(site, err, func() { s.janitor.flatten(site, key) })
		return err
	}
	work, held, err := s.store(site).Hold(ctx, key)
	if err != nil {
		return err
	}
	defer held.Release(ctx)
	if held.Record.Incarnation != r.Incarnation || held.Record.State != record.Ready {
		return nil
	}
	held.Record.Depth, held.Record.Flatten = 0, false
	s.log(r).Info("clone flattened: it shares no data any more")
	return held.Outcome(held.Finish(work))
}
