package osd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/daemon"
	"github.com/holdfast-storage/holdfast/pkg/poll"
)

// Processes runs OSDs as plain processes that outlive their starter. A running one is known
// by its command line, which is the same for the life of a cluster; nothing starts one again
// that ended.
type Processes struct{ Paths daemon.Paths }

var _ Daemons = Processes{}

const (
	stopAsk    = 20 * time.Second // for SIGTERM
	stopInsist = 5 * time.Second  // for SIGKILL
	stopPoll   = 20 * time.Millisecond
)

func (p Processes) command(id int) command.Cmd {
	return daemon.Config{Paths: p.Paths}.Command(daemon.OSDRef(id))
}

// Start starts the daemon unless it runs.
func (p Processes) Start(_ context.Context, id int) error {
	pids, err := p.find(id)
	if err != nil || len(pids) > 0 {
		return err
	}
	if err := os.MkdirAll(p.Paths.Log(), 0o755); err != nil {
		return fmt.Errorf("start %s: %w", name(id), err)
	}
	output, err := os.OpenFile(filepath.Join(p.Paths.Log(), name(id)+".out"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("start %s: %w", name(id), err)
	}
	defer output.Close()
	process, err := command.Start(p.command(id), output)
	if err != nil {
		return err
	}
	go func() { _, _ = process.Wait() }() // reaps it while this program lives
	return nil
}

// Running reports whether the daemon runs.
func (p Processes) Running(id int) (bool, error) {
	pids, err := p.find(id)
	return len(pids) > 0, err
}

// Stop asks the daemon to end and, in the end, makes it.
func (p Processes) Stop(ctx context.Context, id int) error {
	running, err := p.open(id)
	if err != nil {
		return err
	}
	for _, process := range running {
		defer unix.Close(process)
	}
	for _, process := range running {
		if err := end(ctx, process); err != nil {
			return fmt.Errorf("stop %s: %w", name(id), err)
		}
	}
	return nil
}

// open returns a descriptor (pidfd_open(2)) of each of the daemon's processes. It tells when
// all of the process is gone, its open devices included; its place in /proc is empty before.
func (p Processes) open(id int) ([]int, error) {
	pids, err := p.find(id)
	if err != nil {
		return nil, err
	}
	var open []int
	for _, pid := range pids {
		fd, err := unix.PidfdOpen(pid, 0)
		if errors.Is(err, unix.ESRCH) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("look for %s: %w", name(id), err)
		}
		open = append(open, fd)
	}
	return open, nil
}

func end(ctx context.Context, process int) error {
	for _, try := range []struct {
		signal   unix.Signal
		patience time.Duration
	}{{unix.SIGTERM, stopAsk}, {unix.SIGKILL, stopInsist}} {
		if err := unix.PidfdSendSignal(process, try.signal, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
		if ended, err := awaitEnd(ctx, process, try.patience); ended || err != nil {
			return err
		}
	}
	return errors.New("it does not end")
}

func awaitEnd(ctx context.Context, process int, patience time.Duration) (ended bool, err error) {
	bounded, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err = poll.Until(bounded, stopPoll, func() (bool, error) {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(process), Events: unix.POLLIN}}, 0)
		if errors.Is(err, unix.EINTR) {
			err = nil
		}
		return n > 0, err
	})
	if bounded.Err() != nil && ctx.Err() == nil {
		return false, nil
	}
	return err == nil, err
}

// find returns the processes with the daemon's command line; one that is ending has none.
func (p Processes) find(id int) ([]int, error) {
	cmd := p.command(id)
	want := []byte(strings.Join(append([]string{cmd.Name}, cmd.Args...), "\x00") + "\x00")
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("look for %s: %w", name(id), err)
	}
	var pids []int
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		line, err := os.ReadFile(filepath.Join("/proc", entry.Name(), "cmdline"))
		if err == nil && bytes.Equal(line, want) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}
