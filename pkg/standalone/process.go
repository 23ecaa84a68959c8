package standalone

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/durable"
	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// process identifies a process beyond its pid, which the kernel uses again: by boot,
// start time and command line.
type process struct {
	PID   int      `json:"pid"`
	Boot  string   `json:"boot"`
	Start uint64   `json:"start_ticks"` // since boot, proc(5) stat field 22
	Args  []string `json:"args"`
}

// identify reads what /proc knows about pid: fault.NotFound when it is gone or a zombie.
func identify(pid int) (process, error) {
	gone := fault.New(fault.NotFound, "process %d is gone", pid)
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return process{}, gone
	}
	// the second field is the name in parentheses and may hold anything: count after the last one
	end := bytes.LastIndexByte(stat, ')')
	if end < 0 {
		return process{}, fmt.Errorf("read state of process %d: no name in %q", pid, stat)
	}
	fields := strings.Fields(string(stat[end+1:]))
	if len(fields) < 20 || fields[0] == "Z" || fields[0] == "X" {
		return process{}, gone
	}
	start, err := strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return process{}, fmt.Errorf("read start time of process %d: %w", pid, err)
	}
	cmdline, err := os.ReadFile(filepath.Join(dir, "cmdline"))
	if err != nil {
		return process{}, gone
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return process{}, fmt.Errorf("read boot id: %w", err)
	}
	args := strings.Split(strings.TrimSuffix(string(cmdline), "\x00"), "\x00")
	return process{PID: pid, Boot: strings.TrimSpace(string(boot)), Start: start, Args: args}, nil
}

func (p process) same(other process) bool {
	return p.PID == other.PID && p.Boot == other.Boot && p.Start == other.Start && slices.Equal(p.Args, other.Args)
}

// age returns for how long the process has been running; clock ticks are 1/100 s on
// every Linux that Go runs on (sysconf(_SC_CLK_TCK)).
func (p process) age() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return 0
	}
	return time.Duration(now.Nano()) - time.Duration(p.Start)*10*time.Millisecond
}

// find returns the running process of a child: the recorded one where that is still
// itself, otherwise one with exactly the child's command line (its parent died between
// starting and recording it). fault.NotFound: none runs.
func find(record string, cmd command.Cmd) (process, error) {
	dir := filepath.Dir(record)
	data, err := os.ReadFile(record)
	if err == nil {
		var recorded process
		if json.Unmarshal(data, &recorded) == nil && recorded.PID > 0 {
			now, err := identify(recorded.PID)
			if err == nil && now.same(recorded) && sees(now.PID, dir) {
				return now, nil
			}
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return process{}, fmt.Errorf("read process record: %w", err)
	}
	want := append([]string{cmd.Name}, cmd.Args...)
	list, err := processes(dir, func(p process) bool { return slices.Equal(p.Args, want) })
	if err != nil {
		return process{}, err
	}
	if len(list) == 0 {
		return process{}, fault.New(fault.NotFound, "no such process")
	}
	return list[0], nil
}

// processes returns all that match accepts and for which dir is the directory that it is
// here.
func processes(dir string, match func(process) bool) ([]process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var list []process
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if p, err := identify(pid); err == nil && match(p) && sees(pid, dir) {
			list = append(list, p)
		}
	}
	return list, nil
}

// sees reports whether a process means the same by dir as this one: a container's process
// may have the very same command line and be of another cluster. Its mount namespace alone
// does not tell, since `ip netns exec` makes one at each call, in which dir is the same
// directory. A process that cannot be looked at is not ours.
func sees(pid int, dir string) bool {
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	here, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return false
	}
	if there, err := os.Readlink(filepath.Join(proc, "ns/pid")); err != nil || there != here {
		return false
	}
	var ours, theirs unix.Stat_t
	if err := unix.Stat(dir, &ours); err != nil {
		return false
	}
	root, err := unix.Open(filepath.Join(proc, "root"), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(root)
	// a symlink on the way must lead to where it leads for that process, not for this one
	fd, err := unix.Openat2(root, dir, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT})
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return unix.Fstat(fd, &theirs) == nil && theirs.Dev == ours.Dev && theirs.Ino == ours.Ino
}

func (p process) record(path string) error {
	data, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("encode process record: %w", err)
	}
	return durable.WriteFile(path, append(data, '\n'), 0o644)
}

// handle is a hold on one process by a pidfd: it cannot come to mean another one.
type handle struct {
	process
	fd int
}

// open takes hold of p, fault.NotFound when it has ended meanwhile.
func open(p process) (*handle, error) {
	fd, err := unix.PidfdOpen(p.PID, 0)
	if err != nil {
		return nil, fault.New(fault.NotFound, "open process %d: %w", p.PID, err)
	}
	now, err := identify(p.PID)
	if err != nil || !now.same(p) {
		unix.Close(fd)
		return nil, fault.New(fault.NotFound, "process %d is gone", p.PID)
	}
	return &handle{process: p, fd: fd}, nil
}

func (h *handle) close() { unix.Close(h.fd) }

// signal sends a signal; a process that has ended is no error.
func (h *handle) signal(sig unix.Signal) error {
	err := unix.PidfdSendSignal(h.fd, sig, nil, 0)
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("signal process %d: %w", h.PID, err)
	}
	return nil
}

// wait returns nil when the process has ended, and ctx's error when that comes first.
func (h *handle) wait(ctx context.Context) error {
	var wake [2]int
	if err := unix.Pipe2(wake[:], unix.O_CLOEXEC); err != nil {
		return fmt.Errorf("wait for process %d: %w", h.PID, err)
	}
	defer unix.Close(wake[0])
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { unix.Close(wake[1]); close(woken) })
	defer func() {
		if stop() {
			unix.Close(wake[1])
		} else {
			<-woken
		}
	}()
	for {
		fds := []unix.PollFd{{Fd: int32(h.fd), Events: unix.POLLIN}, {Fd: int32(wake[0]), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); err != nil {
			if errors.Is(err, unix.EINTR) {
				continue
			}
			return fmt.Errorf("wait for process %d: %w", h.PID, err)
		}
		if fds[0].Revents != 0 {
			return nil
		}
		if fds[1].Revents != 0 {
			return ctx.Err()
		}
	}
}
