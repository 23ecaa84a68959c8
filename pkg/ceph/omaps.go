package ceph

import "context"

// Omaps are the sorted maps that objects of one pool and namespace carry, keys and values as
// text. Holdfast keeps nothing in such maps; ceph-csi does, so there is a way to read them and to
// take things out of them, and none to put anything in.
type Omaps interface {
	// Pairs returns the pairs of an object's map whose keys begin with prefix: fault.NotFound
	// without the object.
	Pairs(ctx context.Context, name, prefix string) (map[string]string, error)
	// RemoveKey removes a key from an object's map. That key or object are not there is no error.
	RemoveKey(ctx context.Context, name, key string) error
	// Remove removes an object with its map: fault.NotFound without one.
	Remove(ctx context.Context, name string) error
}
