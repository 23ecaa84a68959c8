package standalone

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"

	"github.com/holdfast-storage/holdfast/pkg/daemon"
	"github.com/holdfast-storage/holdfast/pkg/durable"
	"github.com/holdfast-storage/holdfast/pkg/executor/journal"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/rpc/localapi"
)

// wipe removes the cluster's directory; its daemons have ended. cluster.json goes last:
// whatever cuts this off, the directory stays Holdfast's, and is marked, so that another
// `down --wipe` finishes the work and no `up` takes the rest for a cluster.
func (s *Supervisor) wipe() error {
	if err := noMountsBelow(s.dir); err != nil {
		return err
	}
	s.state.Wiping = true
	if err := s.state.save(s.dir); err != nil {
		return err
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return fmt.Errorf("list what is to be removed: %w", err)
	}
	known := s.ownEntries()
	var foreign []string
	for _, entry := range entries {
		switch path := filepath.Join(s.dir, entry.Name()); {
		case path == localapi.StateFile(s.dir) || path == s.paths.Run():
		case !known[entry.Name()] && !durable.IsLeftover(s.paths.Conf(), entry.Name()):
			foreign = append(foreign, entry.Name())
		default:
			if err := os.RemoveAll(path); err != nil {
				return fmt.Errorf("remove %s: %w", path, err)
			}
		}
	}
	err = errors.Join(os.RemoveAll(s.paths.Run()), os.Remove(localapi.StateFile(s.dir)))
	if err != nil {
		return fmt.Errorf("remove the cluster's record: %w", err)
	}
	if len(foreign) > 0 {
		return fault.New(fault.Precondition, "the cluster is gone; left in %s, because Holdfast did not put it there: %s", s.dir, strings.Join(foreign, ", "))
	}
	if err := os.Remove(s.dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", s.dir, err)
	}
	return nil
}

// ownEntries are the names that Holdfast makes in the directory.
func (s *Supervisor) ownEntries() map[string]bool {
	names := map[string]bool{"csi": true, "mounts": true, filepath.Base(localapi.CoordinatorDir(s.dir)): true} // mounts: staging places of the volume commands
	for _, path := range []string{s.paths.Conf(), s.paths.Keys(), s.paths.Log(), s.paths.Crash(), s.paths.Run()} {
		names[filepath.Base(path)] = true
	}
	for _, r := range append(s.state.daemons(), s.agentOSDs()...) {
		names[filepath.Base(s.paths.Data(r))] = true
	}
	names[plansDir] = !s.hasStacks()
	return names
}

// plansDir is where the agent keeps plans, below the cluster's directory.
const plansDir = "plans"

// hasStacks reports whether a plan of a storage stack is kept here: a stack has nothing to do with the cluster, and is known by its
// plans alone.
func (s *Supervisor) hasStacks() bool {
	list, err := journal.List(filepath.Join(s.dir, plansDir))
	return err != nil || slices.ContainsFunc(list, func(e journal.Entry) bool { return e.Err != nil || strings.HasPrefix(e.Plan.Subject, "stack ") })
}

// noMountsBelow: removing a tree would go on into what is mounted in it.
func noMountsBelow(dir string) error {
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		return fmt.Errorf("read mounts: %w", err)
	}
	for _, m := range mounts {
		if m.Mountpoint != dir {
			return fault.New(fault.Busy, "%s is still mounted: unmount it (umount %s), then try again", m.Mountpoint, m.Mountpoint)
		}
	}
	return nil
}

// checkLife refuses to start a cluster of which an essential part is gone. A new one in
// its place would hide the loss.
func (s *Supervisor) checkLife() error {
	if s.state.Wiping {
		return fault.New(fault.Precondition, "the cluster in %s is being removed: `holdfast down --wipe` finishes that", s.dir)
	}
	if !s.state.Formed {
		return nil
	}
	var missing []string
	if _, err := os.Stat(s.paths.BootKeyring()); err != nil {
		missing = append(missing, s.paths.BootKeyring())
	}
	for _, r := range s.state.daemons() {
		if (r.Kind == daemon.Mon || r.Kind == daemon.OSD) && !s.isMade(r) {
			missing = append(missing, s.paths.Data(r))
		}
	}
	if len(missing) > 0 {
		return fault.New(fault.Precondition, "parts of the cluster are gone: %s; nothing was touched. Put them back (from a backup, or mount the file system that holds them), then run `holdfast up` again", strings.Join(missing, ", "))
	}
	return nil
}
