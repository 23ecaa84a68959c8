package live

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/holdfast-storage/holdfast/pkg/executor/journal"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/md"
	"github.com/holdfast-storage/holdfast/pkg/stack"
)

// A half of a mirror cannot know that the other half ran without it. So how far an array had come is kept outside of it, at
// each activation: where only members are there that are behind that, starting them would bring old data back.

// assemble starts an array, without members that are missing if those that are there are not stale.
func (m *Machine) assemble(ctx context.Context, want stack.Array, devices []string) error {
	err := m.MD.Assemble(ctx, want.Name, want.UUID, devices)
	if !errors.Is(err, md.ErrMissing) {
		return err
	}
	if stale := m.stale(want, devices); stale != nil {
		return stale
	}
	if degraded := m.MD.AssembleWithout(ctx, want.Name, want.UUID, devices); degraded != nil {
		return errors.Join(err, degraded)
	}
	return nil
}

// stale says why members must not be started alone.
func (m *Machine) stale(want stack.Array, devices []string) error {
	known, err := m.known(want.UUID)
	if err != nil {
		return err
	}
	newest, err := m.MD.Events(devices)
	if err != nil {
		return err
	}
	// A crash may leave members one apart, and md itself takes one back now and then.
	if newest+1 < known {
		return fault.New(fault.Precondition, "array %s had come to event %d, the disks that are there only to %d: they lack what was written without them. Put back the disks that ran last; if those are lost for good, remove %s to go on with old data",
			want.Name, known, newest, m.eventsFile(want.UUID))
	}
	return nil
}

func (m *Machine) eventsFile(uuid string) string { return filepath.Join(m.Events, uuid+".events") }

// known is how far an array had come when it was last looked at; 0 if it never was.
func (m *Machine) known(uuid string) (uint64, error) {
	if m.Events == "" {
		return 0, nil
	}
	data, err := os.ReadFile(m.eventsFile(uuid))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read how far an array had come: %w", err)
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(data)), 10, 64)
	if err != nil {
		return 0, fault.New(fault.Invalid, "%s: %w", m.eventsFile(uuid), err)
	}
	return n, nil
}

// remember keeps how far an array that runs has come.
func (m *Machine) remember(a md.Array) error {
	if m.Events == "" {
		return nil
	}
	var devices []string
	for _, member := range a.Members {
		if filled(member) {
			devices = append(devices, "/dev/"+member.Device)
		}
	}
	n, err := m.MD.Events(devices)
	if err != nil {
		return err
	}
	return journal.Save(m.eventsFile(a.UUID), strconv.FormatUint(n, 10)+"\n")
}
