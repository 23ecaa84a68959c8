package crash

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What seccomp_unotify(2) calls them.
const (
	notifReceive  = 0xc0502100 // SECCOMP_IOCTL_NOTIF_RECV
	notifSend     = 0xc0182101 // SECCOMP_IOCTL_NOTIF_SEND
	notifContinue = 1          // SECCOMP_USER_NOTIF_FLAG_CONTINUE
)

type notification struct {
	id         uint64
	pid, flags uint32
	nr         int32
	arch       uint32
	ip         uint64
	args       [6]uint64
}

type leave struct {
	id, value  uint64
	err, flags uint32
}

// gate gives a process leave for each of its system calls that change the machine, and
// kills it at the one asked for.
type gate struct {
	page   *page
	armed  atomic.Bool
	at     atomic.Int64
	mu     sync.Mutex
	passed []string
	end    chan struct{}
	done   sync.WaitGroup
}

var callNames = map[int32]string{
	unix.SYS_MOUNT: "mount", unix.SYS_UMOUNT2: "umount", unix.SYS_EXECVE: "execve", unix.SYS_IOCTL: "ioctl", unix.SYS_OPENAT: "open for writing",
	unix.SYS_RENAMEAT: "rename", unix.SYS_RENAMEAT2: "rename", unix.SYS_UNLINKAT: "unlink", unix.SYS_MKDIRAT: "mkdir",
	unix.SYS_RENAME: "rename", unix.SYS_UNLINK: "unlink", unix.SYS_MKDIR: "mkdir", unix.SYS_RMDIR: "rmdir",
}

// openGate serves the process that is about to start with this page.
func openGate(t *testing.T, p *page) *gate {
	g := &gate{page: p, end: make(chan struct{})}
	g.done.Go(func() {
		if err := g.serve(); err != nil {
			t.Errorf("ask about system calls: %v", err)
		}
	})
	return g
}

func (g *gate) close() {
	close(g.end)
	g.done.Wait()
}

func (g *gate) ended() bool {
	select {
	case <-g.end:
		return true
	default:
		return false
	}
}

func (g *gate) serve() error {
	for atomic.LoadUint32(&g.page.listener) == 0 {
		if g.ended() {
			return nil
		}
		time.Sleep(time.Millisecond)
	}
	number, pid := int32(g.page.listener), int(g.page.pid)
	if number < 0 {
		return unix.Errno(-number)
	}
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	defer unix.Close(pidfd)
	listener, err := unix.PidfdGetfd(pidfd, int(number-1), 0)
	if err != nil {
		return err
	}
	defer unix.Close(listener)
	atomic.StoreUint32(&g.page.listener, 0) // taken
	for !g.ended() {
		ready := []unix.PollFd{{Fd: int32(listener), Events: unix.POLLIN}}
		if n, err := unix.Poll(ready, 100); n == 0 || err == unix.EINTR {
			continue
		}
		if ready[0].Revents&unix.POLLIN == 0 {
			return nil // nobody is left to ask
		}
		var n notification
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(listener), notifReceive, uintptr(unsafe.Pointer(&n))); errno != 0 {
			continue // killed while it asked
		}
		g.point(pid, n)
		answer := leave{id: n.id, flags: notifContinue}
		_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(listener), notifSend, uintptr(unsafe.Pointer(&answer)))
	}
	return nil
}

// point counts a call of the process itself or the start of a program by it.
func (g *gate) point(pid int, n notification) {
	_, err := os.Stat(fmt.Sprintf("/proc/%d/task/%d", pid, n.pid))
	if !g.armed.Load() || err != nil && n.nr != unix.SYS_EXECVE {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.passed = append(g.passed, callNames[n.nr])
	if int64(len(g.passed)) == g.at.Load() {
		_ = unix.Kill(pid, unix.SIGKILL)
	}
}

// arm kills at point number at; 0: only counts.
func (g *gate) arm(at int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.passed = nil
	g.at.Store(int64(at))
	g.armed.Store(true)
}

// disarm returns the calls that were passed.
func (g *gate) disarm() []string {
	g.armed.Store(false)
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.passed
}
