package live

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/executor/journal"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/md"
	"github.com/holdfast-storage/holdfast/pkg/stack"
)

// halved is an mdadm that starts an array only when it is told to do so without members.
type halved struct{ started bool }

func (h *halved) Run(_ context.Context, c command.Cmd) (command.Result, error) {
	if !slices.Contains(c.Args, "--run") {
		return command.Result{}, &command.ExitError{Cmd: c.String(), Code: 1}
	}
	h.started = true
	return command.Result{}, nil
}

// half is a member whose superblock (linux/raid/md_p.h) counts so many events.
func half(t *testing.T, events uint64) string {
	t.Helper()
	buf := make([]byte, 8192)
	binary.LittleEndian.PutUint32(buf[4096:], 0xa92b4efc)
	binary.LittleEndian.PutUint64(buf[4096+200:], events)
	path := filepath.Join(t.TempDir(), "member")
	if err := os.WriteFile(path, buf, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestMembersThatMissedWritesAreNotStartedAlone(t *testing.T) {
	for name, c := range map[string]struct {
		known, events uint64
		starts        bool
	}{
		"never looked at":     {0, 10, true},
		"as new as it was":    {10, 10, true},
		"newer":               {10, 30, true},
		"one behind, a crash": {11, 10, true},
		"behind":              {12, 10, false},
	} {
		run := &halved{}
		m := &Machine{MD: md.Tool{Run: run}, Events: t.TempDir()}
		if c.known > 0 {
			if err := journal.Save(m.eventsFile(uuid), strconv.FormatUint(c.known, 10)+"\n"); err != nil {
				t.Fatal(err)
			}
		}
		err := m.assemble(t.Context(), stack.Array{Name: "a", UUID: uuid}, []string{half(t, c.events)})
		if run.started != c.starts || (err == nil) != c.starts || err != nil && !errors.Is(err, fault.Precondition) {
			t.Errorf("%s: started %t, %v", name, run.started, err)
		}
	}
}
