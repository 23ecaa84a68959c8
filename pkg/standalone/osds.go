package standalone

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/holdfast-storage/holdfast/pkg/daemon"
	"github.com/holdfast-storage/holdfast/pkg/durable"
)

func (s *Supervisor) osdsMade(context.Context) (bool, error) {
	for _, osd := range s.state.OSDs {
		if !s.isMade(daemon.OSDRef(osd.ID)) {
			return false, nil
		}
	}
	return true, nil
}

// agentOSDs are the OSDs that the agent made and starts: their stores lie in the directory, and the cluster's record has none of them.
func (s *Supervisor) agentOSDs() []daemon.Ref {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil // then nothing of them is here
	}
	var list []daemon.Ref
	for _, entry := range entries {
		text, isOSD := strings.CutPrefix(entry.Name(), string(daemon.OSD)+".")
		id, err := strconv.Atoi(text)
		own := slices.ContainsFunc(s.state.OSDs, func(o OSDState) bool { return o.ID == id })
		if isOSD && err == nil && entry.IsDir() && !own {
			list = append(list, daemon.OSDRef(id))
		}
	}
	return list
}

// makeOSDs makes the stores that are missing, all at once.
func (s *Supervisor) makeOSDs(ctx context.Context) error {
	if err := s.takeDisks(ctx); err != nil {
		return err
	}
	errs := make([]error, len(s.state.OSDs))
	var wg sync.WaitGroup
	for i, osd := range s.state.OSDs {
		if !s.isMade(daemon.OSDRef(osd.ID)) {
			wg.Go(func() { errs[i] = s.makeOSD(ctx, osd) })
		}
	}
	wg.Wait()
	return errors.Join(errs...)
}

// makeOSD makes one store. What a mkfs that was cut off left goes first: an OSD without
// the mark never ran.
func (s *Supervisor) makeOSD(ctx context.Context, osd OSDState) error {
	r := daemon.OSDRef(osd.ID)
	data := s.paths.Data(r)
	if err := os.RemoveAll(data); err != nil {
		return fmt.Errorf("clear the unfinished store of %s: %w", r.Name(), err)
	}
	if err := os.Mkdir(data, 0o750); err != nil {
		return fmt.Errorf("make the store of %s: %w", r.Name(), err)
	}
	if osd.Disk != "" {
		if err := os.Symlink(osd.Disk, filepath.Join(data, "block")); err != nil {
			return fmt.Errorf("make the store of %s: %w", r.Name(), err)
		}
	}
	if _, err := s.tools.Runner.Run(ctx, s.config.OSDMkfsCommand(r, osd.UUID)); err != nil {
		return fmt.Errorf("make the store of %s: %w", r.Name(), err)
	}
	return durable.WriteFile(s.made(r), nil, 0o644)
}

// takeDisks looks at every disk that no mkfs was begun on, refuses those that are not
// blank, and writes down that they are taken before anything is written to them.
func (s *Supervisor) takeDisks(ctx context.Context) error {
	changed := false
	for i := range s.state.OSDs {
		osd := &s.state.OSDs[i]
		if osd.Disk == "" || s.isMade(daemon.OSDRef(osd.ID)) {
			continue
		}
		d, err := openDisk(osd.Disk)
		if err != nil {
			return err
		}
		if err := d.checkIdentity(osd.DiskID); err != nil {
			return err
		}
		if osd.Taken {
			if err := d.checkOurs(ctx, s.tools.Runner, osd.UUID); err != nil {
				return err
			}
			continue
		}
		if err := d.checkBlank(ctx, s.tools.Runner); err != nil {
			return err
		}
		osd.Taken, changed = true, true
	}
	if changed {
		return s.state.save(s.dir)
	}
	return nil
}
