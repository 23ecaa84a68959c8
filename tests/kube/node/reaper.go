package node

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
)

// reaper starts the node's services and waits for every child of the first process, its own and
// the orphans that fall to it. Nothing else in this process may wait for a child.
type reaper struct {
	mu      sync.Mutex // held while a child is started, so that its end cannot come unseen
	ends    map[int]func(syscall.WaitStatus)
	signals chan os.Signal
	done    chan struct{}
}

func newReaper() *reaper {
	r := &reaper{ends: map[int]func(syscall.WaitStatus){}, signals: make(chan os.Signal, 1), done: make(chan struct{})}
	signal.Notify(r.signals, syscall.SIGCHLD)
	go func() {
		defer close(r.done)
		for range r.signals {
			r.reap()
		}
	}()
	return r
}

func (r *reaper) close() {
	signal.Stop(r.signals)
	close(r.signals)
	<-r.done
}

func (r *reaper) reap() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if err == syscall.EINTR {
			continue
		}
		if pid <= 0 {
			return
		}
		if end := r.ends[pid]; end != nil {
			delete(r.ends, pid)
			end(status)
		}
	}
}

// start starts a service with its output in LogDir/NODE-NAME.log; its name is sent to ended
// when it ends.
func (r *reaper) start(config Config, name string, argv []string, ended chan<- string) error {
	_, err := r.spawn(config, name, argv, func(syscall.WaitStatus) { ended <- name })
	return err
}

// run runs a program to its end.
func (r *reaper) run(ctx context.Context, config Config, name string, argv []string) error {
	status := make(chan syscall.WaitStatus, 1)
	pid, err := r.spawn(config, name, argv, func(s syscall.WaitStatus) { status <- s })
	if err != nil {
		return err
	}
	select {
	case s := <-status:
		if s.ExitStatus() != 0 {
			return fmt.Errorf("%s: exit status %d: see %s-%s.log", argv[0], s.ExitStatus(), config.Name, name)
		}
		return nil
	case <-ctx.Done():
		if err := syscall.Kill(pid, syscall.SIGKILL); err == nil {
			<-status
		}
		return ctx.Err()
	}
}

func (r *reaper) spawn(config Config, name string, argv []string, end func(syscall.WaitStatus)) (int, error) {
	path := filepath.Join(config.LogDir, config.Name+"-"+name+".log")
	log, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return 0, fmt.Errorf("open log of %s: %w", name, err)
	}
	defer log.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("start %s: %w", name, err)
	}
	pid := cmd.Process.Pid
	r.ends[pid] = end
	if err := cmd.Process.Release(); err != nil {
		return pid, fmt.Errorf("let go of %s: %w", name, err)
	}
	return pid, nil
}
