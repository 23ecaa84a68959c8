package standalone

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/daemon"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/obs"
	"github.com/holdfast-storage/holdfast/pkg/rpc/localapi"
)

const (
	firstBackoff = time.Second
	lastBackoff  = 30 * time.Second
	steadyAfter  = time.Minute // a child that ran this long starts over with the first backoff
	termGrace    = 15 * time.Second
	mdsGrace     = 2 * time.Second // it idles for 7 s on SIGTERM; its journal makes a kill the same
)

// child keeps one program running: finds it or starts it, waits for its end, starts it
// again after a backoff. One goroutine (run) owns it.
type child struct {
	name   string
	cmd    command.Cmd
	grace  time.Duration // from SIGTERM to SIGKILL
	record string        // the file that holds its process
	output string        // the file that takes its stdout and stderr
	log    *slog.Logger

	mu       sync.Mutex
	state    string
	current  *handle
	adopted  bool
	restarts int
	lastExit string
	crashes  []time.Time // of the last while, for the crash loop check
}

func newChild(p daemon.Paths, name string, cmd command.Cmd, log *slog.Logger) *child {
	grace := termGrace
	if cmd.Name == mdsRef().Program() {
		grace = mdsGrace
	}
	return &child{
		name: name, cmd: cmd, grace: grace, log: log.With(obs.KeyDaemon, name), state: localapi.DaemonStopped,
		record: filepath.Join(p.Run(), name+".pid"), output: filepath.Join(p.Log(), name+".out"),
	}
}

// run keeps the child running until ctx ends, and leaves it running then: stop ends it.
func (c *child) run(ctx context.Context) {
	backoff := firstBackoff
	for ctx.Err() == nil {
		began := time.Now()
		exit, err := c.once(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			exit = err.Error()
		}
		if time.Since(began) > steadyAfter {
			backoff = firstBackoff
		}
		c.noteExit(exit)
		c.log.Warn("daemon ended; will be started again", "exit", exit, "in", backoff)
		if !sleep(ctx, backoff) {
			return
		}
		backoff = min(2*backoff, lastBackoff)
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// once finds or starts the child and waits for its end; it returns how that was.
func (c *child) once(ctx context.Context) (exit string, err error) {
	h, proc, err := c.obtain(ctx)
	if err != nil {
		return "", err
	}
	c.noteRunning(h, proc == nil)
	err = h.wait(ctx)
	if err != nil {
		if proc != nil {
			_ = proc.Release() // it outlives this supervisor
		}
		h.close()
		return "", err
	}
	c.mu.Lock()
	c.current = nil
	c.mu.Unlock()
	h.close()
	if proc == nil {
		return "ended (started by an earlier supervisor: its exit status is not known)", nil
	}
	state, err := proc.Wait()
	if err != nil {
		return "", fmt.Errorf("wait for %s: %w", c.name, err)
	}
	return state.String(), nil
}

// obtain returns a hold on the running child; the process is nil for one that an earlier
// supervisor started.
func (c *child) obtain(ctx context.Context) (*handle, *os.Process, error) {
	p, err := find(c.record, c.cmd)
	if err == nil {
		if h, err := open(p); err == nil {
			c.log.Info("found running daemon", "pid", p.PID)
			return h, nil, p.record(c.record)
		}
	} else if !errors.Is(err, fault.NotFound) {
		return nil, nil, err
	}
	out, err := os.OpenFile(c.output, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return nil, nil, fmt.Errorf("open log of %s: %w", c.name, err)
	}
	defer out.Close()
	proc, err := command.Start(c.cmd, out)
	if err != nil {
		return nil, nil, err
	}
	p, err = settled(ctx, proc.Pid, append([]string{c.cmd.Name}, c.cmd.Args...))
	var h *handle
	if err == nil {
		h, err = open(p)
	}
	if errors.Is(err, fault.NotFound) { // it ended at once
		state, waitErr := proc.Wait()
		if waitErr != nil {
			return nil, nil, fmt.Errorf("wait for %s: %w", c.name, waitErr)
		}
		return nil, nil, fmt.Errorf("%s ended at once: %s; see %s", c.name, state, c.output)
	}
	if err != nil {
		return nil, nil, err // it runs; the next round finds it by its command line
	}
	c.log.Info("started daemon", "pid", p.PID)
	return h, proc, p.record(c.record)
}

// settled identifies a process that was just started. Its command line is empty for a
// moment: the starter hears of a successful execve(2) before the kernel has set it.
func settled(ctx context.Context, pid int, args []string) (p process, err error) {
	limited, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_ = poll(limited, time.Millisecond, func(context.Context) (bool, error) {
		p, err = identify(pid)
		return err != nil || slices.Equal(p.Args, args), nil
	})
	if err == nil && p.PID == 0 {
		return p, ctx.Err()
	}
	return p, err
}

func (c *child) noteRunning(h *handle, adopted bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state, c.current, c.adopted = localapi.DaemonRunning, h, adopted
}

func (c *child) noteExit(exit string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	c.state, c.current, c.lastExit = localapi.DaemonBackoff, nil, exit
	c.restarts++
	c.crashes = slices.DeleteFunc(c.crashes, func(at time.Time) bool { return now.Sub(at) >= crashWindow })
	c.crashes = append(c.crashes, now)
}

// stop ends the child's process, however it was started: SIGTERM, then SIGKILL. Nothing
// must be running it any more.
func (c *child) stop(ctx context.Context) error {
	p, err := find(c.record, c.cmd)
	if errors.Is(err, fault.NotFound) {
		return c.forget()
	}
	if err != nil {
		return err
	}
	h, err := open(p)
	if err != nil {
		return c.forget()
	}
	defer h.close()
	if err := h.signal(unix.SIGTERM); err != nil {
		return err
	}
	grace, cancel := context.WithTimeout(ctx, c.grace)
	defer cancel()
	if err := h.wait(grace); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		c.log.Info("daemon does not end by SIGTERM: killing it", "pid", p.PID)
		if err := h.signal(unix.SIGKILL); err != nil {
			return err
		}
		if err := h.wait(ctx); err != nil {
			return fmt.Errorf("wait for the end of %s: %w", c.name, err)
		}
	}
	_, _ = unix.Wait4(p.PID, nil, unix.WNOHANG, nil) // reaps it where this process is its parent
	c.log.Info("stopped daemon", "pid", p.PID)
	return c.forget()
}

func (c *child) forget() error {
	c.mu.Lock()
	c.state, c.current = localapi.DaemonStopped, nil
	c.mu.Unlock()
	if err := os.Remove(c.record); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove process record: %w", err)
	}
	return nil
}

// crashWindow and crashLimit say when restarts are a crash loop.
const (
	crashWindow = 10 * time.Minute
	crashLimit  = 3
)

func (c *child) status() (d localapi.Daemon, looping bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	d = localapi.Daemon{Name: c.name, State: c.state, Restarts: c.restarts, LastExit: c.lastExit}
	if c.current != nil {
		d.PID, d.Uptime, d.Adopted = c.current.PID, c.current.age().Seconds(), c.adopted
	}
	recent := 0
	for _, at := range c.crashes {
		if time.Since(at) < crashWindow {
			recent++
		}
	}
	return d, recent >= crashLimit
}
