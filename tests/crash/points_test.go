package crash

import (
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/tests/realceph"
)

// kind says what has points.
type kind uint32

const (
	calls    kind = 1 // before and after each call of Ceph's libraries
	messages kind = 2 // before each message that Ceph's messenger sends
)

func (k kind) String() string { return map[kind]string{calls: "calls", messages: "messages"}[k] }

// inProcess matches the calls that do nothing but prepare or free memory: a process
// killed there is one killed at the call before.
var inProcess = regexp.MustCompile(`_op_[a-z0-9_]*$|_options_|_cleanup$|^rados_(create|release)_|^rados_buffer_free|^rados_conf_|_list_free$|^rbd_snap_list_end|^rados_ioctx_(create|destroy|set_namespace)$|^rados_set_pool_full_try$|^rados_get_|^rbd_version|^rados_version`)

func reaches(name string) bool {
	return strings.HasSuffix(name, "_operate") || strings.HasSuffix(name, "_operate2") || !inProcess.MatchString(name)
}

// shim is the library that gives holdfastd its points.
type shim struct {
	library string
	calls   []string
	dir     string
	pages   atomic.Int64
}

// buildShim compiles the library for those functions of Ceph's that holdfastd imports.
func buildShim(t *testing.T) *shim {
	t.Helper()
	s := &shim{dir: t.TempDir()}
	program, err := elf.Open(realceph.Binary(t, "holdfastd"))
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	symbols, err := program.ImportedSymbols()
	if err != nil {
		t.Fatal(err)
	}
	ours := regexp.MustCompile(`^(rados|rbd|ceph)_`)
	var list strings.Builder
	for _, symbol := range symbols {
		if ours.MatchString(symbol.Name) && reaches(symbol.Name) {
			fmt.Fprintf(&list, "CALL(%s, %d)\n", symbol.Name, len(s.calls))
			s.calls = append(s.calls, symbol.Name)
		}
	}
	if len(s.calls) == 0 {
		t.Fatal("holdfastd imports nothing of Ceph's libraries")
	}
	if err := os.WriteFile(filepath.Join(s.dir, "calls.inc"), []byte(list.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	s.library = filepath.Join(s.dir, "points.so")
	cc := exec.CommandContext(t.Context(), "cc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-I", s.dir, "-o", s.library, filepath.Join("shim", "points.c"), "-ldl")
	if out, err := cc.CombinedOutput(); err != nil {
		t.Fatalf("cc: %v\n%s", err, out)
	}
	return s
}

// seenMost is how many points a page remembers.
const seenMost = 2000

// page is what a process under the shim shares with the test; the fields are those of
// points.c.
type page struct {
	what, at, signal, count uint32
	seen                    [seenMost]uint32
	pid, listener           uint32
}

// newPage returns a page and the environment for the process. free unmaps it.
func (s *shim) newPage(t *testing.T) (p *page, env []string, free func()) {
	t.Helper()
	path := filepath.Join(s.dir, fmt.Sprintf("page%d", s.pages.Add(1)))
	if err := os.WriteFile(path, make([]byte, binary.Size(page{})), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	memory, err := unix.Mmap(int(file.Fd()), 0, binary.Size(page{}), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	free = func() {
		_ = unix.Munmap(memory)
		_ = os.Remove(path)
	}
	return (*page)(unsafe.Pointer(&memory[0])), []string{"LD_PRELOAD=" + s.library, "HOLDFAST_CRASH_PAGE=" + path}, free
}

// arm sends signal at point number at of this kind; 0: only count.
func (p *page) arm(k kind, at int, signal unix.Signal) {
	atomic.StoreUint32(&p.count, 0)
	atomic.StoreUint32(&p.at, uint32(at))
	atomic.StoreUint32(&p.signal, uint32(signal))
	atomic.StoreUint32(&p.what, uint32(k))
}

func (p *page) disarm() { atomic.StoreUint32(&p.what, 0) }

// passed is how many points the process came by.
func (p *page) passed() int { return int(atomic.LoadUint32(&p.count)) }

// name says what point number at was, for people.
func (s *shim) name(p *page, k kind, at int) string {
	if k == messages || at < 1 || at > seenMost {
		return fmt.Sprintf("%s %d", k, at)
	}
	seen := atomic.LoadUint32(&p.seen[at-1])
	when := "before"
	if seen%2 == 1 {
		when = "after"
	}
	return fmt.Sprintf("point %d, %s %s", at, when, s.call(p, at))
}

// call is the name of the call at point number at.
func (s *shim) call(p *page, at int) string {
	return s.calls[atomic.LoadUint32(&p.seen[min(at, seenMost)-1])/2]
}
