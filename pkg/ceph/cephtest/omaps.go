package cephtest

import (
	"context"
	"maps"
	"strings"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
)

type fakeOmaps struct{ *fakeObjects }

func (c *connection) Omaps(pool, namespace string) ceph.Omaps {
	return fakeOmaps{&fakeObjects{c, pool, namespace}}
}

// SetOmap implements Outside.
func (f *Fake) SetOmap(_ *testing.T, pool, namespace, name string, pairs map[string]string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := path(pool, namespace, name)
	if f.objects[key] == nil {
		f.objects[key] = &object{locks: map[string]heldLock{}, changed: f.now()}
	}
	if f.objects[key].omap == nil {
		f.objects[key].omap = map[string]string{}
	}
	maps.Copy(f.objects[key].omap, pairs)
}

func (o fakeOmaps) Pairs(ctx context.Context, name, prefix string) (map[string]string, error) {
	if err := o.begin(ctx, "Pairs", name); err != nil {
		return nil, err
	}
	defer o.mu.Unlock()
	found, err := o.get(name)
	if err != nil {
		return nil, err
	}
	pairs := map[string]string{}
	for key, value := range found.omap {
		if strings.HasPrefix(key, prefix) {
			pairs[key] = value
		}
	}
	return pairs, nil
}

func (o fakeOmaps) RemoveKey(ctx context.Context, name, key string) error {
	if err := o.begin(ctx, "RemoveKey", name); err != nil {
		return err
	}
	defer o.mu.Unlock()
	if found, err := o.get(name); err == nil {
		delete(found.omap, key)
	}
	return nil
}

func (o fakeOmaps) Remove(ctx context.Context, name string) error {
	if err := o.begin(ctx, "Remove", name); err != nil {
		return err
	}
	defer o.mu.Unlock()
	if _, err := o.get(name); err != nil {
		return err
	}
	delete(o.objects, path(o.poolName, o.namespace, name))
	return nil
}
