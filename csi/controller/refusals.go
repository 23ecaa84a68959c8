package controller

import (
	"maps"
	"slices"
	"sync"
	"time"
)

// refusal is the last answer to a CreateVolume or CreateSnapshot that failed: what is not made has
// no record, and the person who waits for it looks at a claim that says nothing of Ceph.
type refusal struct {
	kind, name string
	owner      map[string]string
	err        error
	at         time.Time
}

// refusals are the last ones of this process.
type refusals struct {
	mu   sync.Mutex
	last map[string]refusal // by kind and name
}

// rememberedRefusals bounds them; the oldest are forgotten.
const rememberedRefusals = 512

// note keeps the outcome of a call; one that went well forgets what was refused before.
func (f *refusals) note(kind, name string, parameters map[string]string, err error, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := kind + " " + name
	if err == nil {
		delete(f.last, key)
		return
	}
	if f.last == nil {
		f.last = map[string]refusal{}
	}
	_, owner := splitParameters(parameters)
	f.last[key] = refusal{kind, name, owner, err, now}
	if len(f.last) > rememberedRefusals {
		oldest := slices.MinFunc(slices.Collect(maps.Keys(f.last)), func(a, b string) int { return f.last[a].at.Compare(f.last[b].at) })
		delete(f.last, oldest)
	}
}

// all returns them.
func (f *refusals) all() []refusal {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Collect(maps.Values(f.last))
}
