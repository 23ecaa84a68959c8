package standalone

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/rpc/localapi"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

func TestPackagesAreNamedInOneCommand(t *testing.T) {
	err := checkPackages(func(name string) (string, error) {
		if name == "ceph-osd" || name == "qemu-storage-daemon" || name == qemuRBD {
			return "", os.ErrNotExist
		}
		return "/usr/bin/" + name, nil
	}, true)
	if err == nil || !strings.Contains(err.Error(), "apt-get install -y --no-install-recommends ceph-osd qemu-block-extra qemu-system-common") {
		t.Errorf("got %v", err)
	}
}

func TestSpaceIsRefusedBelowTheFloorAndToldAboveIt(t *testing.T) {
	if _, err := checkSpace("/d", storage.GiB, 3, 4*storage.GiB); !errors.Is(err, fault.Exhausted) {
		t.Errorf("1 GiB free: %v", err)
	}
	if note, err := checkSpace("/d", 5*storage.GiB, 3, 4*storage.GiB); err != nil || note == "" {
		t.Errorf("5 GiB free: %q, %v", note, err)
	}
	if note, err := checkSpace("/d", 50*storage.GiB, 3, 4*storage.GiB); err != nil || note != "" {
		t.Errorf("50 GiB free: %q, %v", note, err)
	}
}

func TestPortsStayWithinTheirWindow(t *testing.T) {
	for _, o := range []Options{{DataDir: "/a"}, {DataDir: "/a", OSDs: 32, Mons: 5}} {
		s, err := found(o)
		if err != nil {
			t.Fatal(err)
		}
		need := 2 * (portsPerOSD*len(s.OSDs) + 4)
		if first := s.Mons[0].V2; first < portsFrom || s.PortHigh >= portsTo || s.PortHigh-s.PortLow+1 < need {
			t.Errorf("%d OSDs: monitors from %d, daemons %d to %d (need %d)", len(s.OSDs), first, s.PortLow, s.PortHigh, need)
		}
		if last := s.Mons[len(s.Mons)-1].V1; last >= s.PortLow {
			t.Errorf("monitor port %d lies in the daemons' window from %d", last, s.PortLow)
		}
	}
}

func TestATakenPortNamesItsHolder(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	err = checkPort("127.0.0.1", l.Addr().(*net.TCPAddr).Port)
	if !errors.Is(err, fault.Busy) || !strings.Contains(err.Error(), "pid ") {
		t.Errorf("got %v", err)
	}
}

func TestAnUnfinishedFirstUpLeavesAFreeDirectory(t *testing.T) {
	dir := t.TempDir()
	if len(dir) > maxDataDir {
		t.Skip("the temporary directory's path is too long")
	}
	for _, name := range []string{"run", "log"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	half := filepath.Join(dir, ".cluster.json.123")
	if err := os.WriteFile(half, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	lock, err := claim(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if _, err := os.Stat(half); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what was cut off is still there: %v", err)
	}
	other := t.TempDir()
	if err := os.WriteFile(filepath.Join(other, "cluster.json.123"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := checkDir(other); !errors.Is(err, fault.Precondition) {
		t.Errorf("somebody's file: %v", err)
	}
}

func TestStepsRunOnlyWhatIsNotDone(t *testing.T) {
	var did []string
	done := func(v bool) func(context.Context) (bool, error) {
		return func(context.Context) (bool, error) { return v, nil }
	}
	note := func(s string) func(context.Context) error {
		return func(context.Context) error { did = append(did, s); return nil }
	}
	boom := errors.New("boom")
	var events []string
	err := runSteps(t.Context(), []step{
		{name: "a", check: done(true), do: note("a"), verify: note("verify a")},
		{name: "b", check: done(false), do: note("b")},
		{name: "c", check: done(false), do: func(context.Context) error { return boom }},
		{name: "d", check: done(false), do: note("d")},
	}, func(e localapi.Event) { events = append(events, e.Step+" "+e.State) })
	if !errors.Is(err, boom) || !strings.HasPrefix(err.Error(), "c: ") {
		t.Errorf("got %v", err)
	}
	if got := strings.Join(did, ","); got != "verify a,b" {
		t.Errorf("did %s", got)
	}
	if got := strings.Join(events, ","); got != "a start,a skip,b start,b done,c start" {
		t.Errorf("events %s", got)
	}
}

func TestAProcessIsFoundByRecordAndByCommandLine(t *testing.T) {
	cmd := command.Cmd{Name: "sleep", Args: []string{"61.0417"}}
	record := filepath.Join(t.TempDir(), "pid")
	proc, err := command.Start(cmd, nil)
	if err != nil {
		t.Fatal(err)
	}
	p, err := settled(t.Context(), proc.Pid, []string{"sleep", "61.0417"})
	if err != nil {
		t.Fatal(err)
	}
	if found, err := find(record, cmd); err != nil || !found.same(p) {
		t.Errorf("by command line: %+v, %v", found, err)
	}
	if err := p.record(record); err != nil {
		t.Fatal(err)
	}
	renamed := command.Cmd{Name: "sleep", Args: []string{"other"}} // as after an upgrade
	if found, err := find(record, renamed); err != nil || !found.same(p) {
		t.Errorf("by record: %+v, %v", found, err)
	}
	recycled := p
	recycled.Start++
	if _, err := open(recycled); !errors.Is(err, fault.NotFound) {
		t.Errorf("a recycled pid was taken for the process: %v", err)
	}
	h, err := open(p)
	if err != nil {
		t.Fatal(err)
	}
	defer h.close()
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := h.wait(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("wait for a living process: %v", err)
	}
	if err := h.signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := h.wait(t.Context()); err != nil {
		t.Errorf("wait for its end: %v", err)
	}
	if _, err := find(record, cmd); !errors.Is(err, fault.NotFound) {
		t.Errorf("a zombie was found: %v", err)
	}
	if _, err := proc.Wait(); err != nil {
		t.Error(err)
	}
}

func TestEveryFollowerSeesAllEvents(t *testing.T) {
	h := newHub()
	h.publish(localapi.Event{Step: "early", State: localapi.EventDone})
	seen := make(chan string, 8)
	go func() {
		defer close(seen)
		_ = h.follow(t.Context(), func(e localapi.Event) error { seen <- e.Step + e.State; return nil })
	}()
	h.publish(localapi.Event{State: localapi.EventReady})
	var got []string
	for s := range seen {
		got = append(got, s)
	}
	if strings.Join(got, ",") != "earlydone,ready" {
		t.Errorf("saw %v", got)
	}
}
