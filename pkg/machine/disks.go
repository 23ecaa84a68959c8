package machine

import (
	"context"
	"strings"
	"sync"

	"github.com/holdfast-storage/holdfast/pkg/disk"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/stack/live"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Disks finds disks by the identities of `holdfast disks list`. A WWN or serial number alone, as a label shows it, finds
// its disk, too.
type Disks struct {
	mu      sync.Mutex // the scanner serves one caller at a time
	scanner *disk.Scanner
}

var _ live.Devices = (*Disks)(nil)

// NewDisks returns the disks that a scanner of its own sees.
func NewDisks(cfg disk.Config) *Disks { return &Disks{scanner: disk.NewScanner(cfg)} }

// Find implements live.Devices.
func (d *Disks) Find(ctx context.Context, id plan.DiskID) (live.Device, error) {
	found, err := d.Named(ctx, string(id))
	return live.Device{Path: d.scanner.Path(found), Size: found.Size}, err
}

// Named returns the disk of an identity, WWN or serial number, without what is on it. fault.NotFound without one,
// fault.Precondition when several have it.
func (d *Disks) Named(ctx context.Context, name string) (storage.Disk, error) {
	all, err := d.List(ctx)
	if err != nil {
		return storage.Disk{}, err
	}
	for _, is := range []func(storage.Disk) bool{
		func(d storage.Disk) bool { return string(d.ID) == name },
		func(d storage.Disk) bool { return d.WWN == name || d.Serial == name },
	} {
		var found []storage.Disk
		var names []string
		for _, one := range all {
			if is(one) && name != "" {
				found, names = append(found, one), append(names, one.Name)
			}
		}
		if len(found) == 1 {
			return found[0], nil
		}
		if len(found) > 1 {
			return storage.Disk{}, fault.New(fault.Precondition, "disk %s is there %d times, as %s: paths to one disk belong under multipath", name, len(found), strings.Join(names, ", "))
		}
	}
	return storage.Disk{}, fault.New(fault.NotFound, "disk %s is not there", name)
}

// List lists the disks, without what is on them.
func (d *Disks) List(ctx context.Context) ([]storage.Disk, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.scanner.Identify(ctx)
}
