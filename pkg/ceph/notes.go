package ceph

import "context"

// Notes are small objects of one pool and namespace that are replaced whole, and only by somebody
// who knows what they hold: no lease is needed, and no right to call the OSD's classes.
type Notes interface {
	// Read returns the whole object, fault.NotFound without one.
	Read(ctx context.Context, name string) ([]byte, error)
	// Swap replaces old by data in one atomic operation. An empty old means that the object is not
	// there, an empty data that it is removed. fault.Aborted when it holds something else by now,
	// or is not there.
	Swap(ctx context.Context, name string, old, data []byte) error
	// List returns all names, sorted.
	List(ctx context.Context) ([]string, error)
}
