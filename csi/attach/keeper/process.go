package keeper

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/poll"
)

// process identifies a running program beyond its pid, which the kernel gives out
// again: start time (clock ticks since boot, proc(5) field 22) and the boot itself.
type process struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"`
	Boot  string `json:"boot"`
	Name  string `json:"name"` // argv[0]
}

// launch starts argv in a session of its own with the secrets inherited as file descriptors
// from 3 on (keyPath, unlockPath), output appended to logPath. The child is nobody's to wait for: it outlives
// this process, and reap collects it while it does not.
func launch(argv []string, secrets [][]byte, logPath string) (process, error) {
	var files []*os.File
	for _, content := range secrets {
		f, err := memfd(content)
		if err != nil {
			return process{}, err
		}
		defer f.Close()
		files = append(files, f)
	}
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return process{}, fmt.Errorf("open log: %w", err)
	}
	defer log.Close()
	c := command.Cmd{Name: argv[0], Args: argv[1:], Dir: "/", Env: []string{"LC_ALL=C.UTF-8"}}
	child, err := command.Start(c, log, files...)
	if errors.Is(err, exec.ErrNotFound) {
		return process{}, fault.As(fault.Unsupported, err)
	}
	if err != nil {
		return process{}, err
	}
	p := process{PID: child.Pid, Name: argv[0], Boot: bootID()}
	p.Start, _ = startTime(p.PID)
	// Within execve(2) a process has no arguments for a moment, after Start has returned:
	// it would be taken for another program.
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = poll.Until(ctx, time.Millisecond, func() (bool, error) {
		_, state := startTime(p.PID)
		return p.alive() || state == 'Z' || state == 0, nil
	})
	return p, child.Release()
}

// keyPath is where a helper finds its keyring, unlockPath the passphrase of an encrypted image.
const (
	keyPath    = "/proc/self/fd/3"
	unlockPath = "/proc/self/fd/4"
)

// memfd returns a sealed file in memory with the given content.
func memfd(content []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("keyring", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("make a file in memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), "keyring")
	if _, err := f.Write(content); err != nil {
		f.Close()
		return nil, fmt.Errorf("write a file in memory: %w", err)
	}
	seals := unix.F_SEAL_WRITE | unix.F_SEAL_GROW | unix.F_SEAL_SHRINK | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		f.Close()
		return nil, fmt.Errorf("seal a file in memory: %w", err)
	}
	return f, nil
}

// alive reports whether the process still runs; a zombie does not.
func (p process) alive() bool {
	if p.PID <= 1 || p.Boot != bootID() {
		return false
	}
	start, state := startTime(p.PID)
	if start == 0 || start != p.Start || state == 'Z' || state == 'X' {
		return false
	}
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.PID))
	if err != nil {
		return false
	}
	argv0, _, _ := bytes.Cut(cmdline, []byte{0})
	return string(argv0) == p.Name
}

// reap collects the process if it ended and is this process's child.
func (p process) reap() {
	start, state := startTime(p.PID)
	if p.PID > 1 && start == p.Start && state == 'Z' {
		_, _ = unix.Wait4(p.PID, nil, unix.WNOHANG, nil) // ECHILD: somebody else's child
	}
}

// wait returns when the process has ended or ctx has.
func (p process) wait(ctx context.Context) error {
	return poll.Until(ctx, 20*time.Millisecond, func() (bool, error) {
		p.reap()
		return !p.alive(), nil
	})
}

// stop asks the process to end and waits; when ctx ends first it is left running.
func (p process) stop(ctx context.Context, signal syscall.Signal) error {
	if !p.alive() {
		p.reap()
		return nil
	}
	if err := unix.Kill(p.PID, signal); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("signal %s (pid %d): %w", p.Name, p.PID, err)
	}
	if err := p.wait(ctx); err != nil { // no %w: that the wait ran out is not the cluster's slowness
		return fault.New(fault.Busy, "%s (pid %d) did not end: %v", p.Name, p.PID, err)
	}
	return nil
}

// startTime returns field 22 and the state (field 3) of /proc/PID/stat, 0 if there is none.
func startTime(pid int) (start uint64, state byte) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0
	}
	// The command's name stands in parentheses and may hold anything: begin after the last.
	i := bytes.LastIndexByte(data, ')')
	if i < 0 {
		return 0, 0
	}
	fields := strings.Fields(string(data[i+1:]))
	if len(fields) < 20 {
		return 0, 0
	}
	start, _ = strconv.ParseUint(fields[19], 10, 64)
	return start, fields[0][0]
}

// bootID identifies the running boot (random(4)).
func bootID() string {
	data, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(data))
}

// find looks for a helper by its command line: name as argv[0] and mark in an argument.
// It covers the moment between the start of a helper and the note of its pid.
func find(name, mark string) (process, bool) {
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil || !bytes.HasPrefix(cmdline, []byte(name+"\x00")) || !bytes.Contains(cmdline, []byte(mark)) {
			continue
		}
		start, _ := startTime(pid)
		return process{PID: pid, Start: start, Boot: bootID(), Name: name}, true
	}
	return process{}, false
}
