package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process names one process for good: a pid with the time it began, since pids come again.
type process struct {
	Name  string `json:"name"`
	PID   int    `json:"pid"`
	Start string `json:"start"` // field 22 of /proc/PID/stat, clock ticks since boot (proc(5))
}

// spawn starts a program of the cluster in a session of its own, with its output in
// log/NAME.log, and records it. The program outlives this process.
func (c *Cluster) spawn(name string, attributes *syscall.SysProcAttr, argv ...string) (process, error) {
	log, err := os.OpenFile(filepath.Join(c.logDir(), name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return process{}, fmt.Errorf("open log of %s: %w", name, err)
	}
	defer log.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	if attributes == nil {
		attributes = &syscall.SysProcAttr{}
	}
	attributes.Setsid = true
	cmd.SysProcAttr = attributes
	if err := cmd.Start(); err != nil {
		return process{}, fmt.Errorf("start %s: %w", name, err)
	}
	p := process{Name: name, PID: cmd.Process.Pid, Start: startTime(cmd.Process.Pid)}
	if err := cmd.Process.Release(); err != nil {
		return p, fmt.Errorf("let go of %s: %w", name, err)
	}
	return p, c.state.update(func(s *stateData) { s.Processes = append(s.Processes, p) })
}

// alive says whether that very process runs; one that has ended and was not waited for does not.
func (p process) alive() bool {
	fields := statFields(p.PID)
	return len(fields) > 19 && fields[0] != "Z" && fields[0] != "X" && fields[19] == p.Start
}

// stop ends the process: SIGTERM, then SIGKILL after the grace.
func (p process) stop(ctx context.Context, grace time.Duration) error {
	if !p.alive() {
		return nil
	}
	if err := syscall.Kill(p.PID, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("stop %s: %w", p.Name, err)
	}
	graceful, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	gone := func(context.Context) (bool, error) { return !p.alive(), nil }
	if poll(graceful, "the end of "+p.Name, 20*time.Millisecond, gone) == nil {
		return nil
	}
	if err := syscall.Kill(p.PID, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("kill %s: %w", p.Name, err)
	}
	killed, cancelKilled := context.WithTimeout(ctx, 10*time.Second)
	defer cancelKilled()
	return poll(killed, "the end of "+p.Name, 20*time.Millisecond, gone)
}

// forget takes the process out of the record.
func (c *Cluster) forget(p process) error {
	return c.state.update(func(s *stateData) {
		s.Processes = slices.DeleteFunc(s.Processes, func(other process) bool { return other == p })
	})
}

func startTime(pid int) string {
	if fields := statFields(pid); len(fields) > 19 {
		return fields[19]
	}
	return ""
}

// statFields returns the fields of /proc/PID/stat behind the program's name, which may hold
// spaces; the first is the state, the twentieth the start time.
func statFields(pid int) []string {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return nil
	}
	text := string(data)
	return strings.Fields(text[strings.LastIndex(text, ")")+1:])
}
