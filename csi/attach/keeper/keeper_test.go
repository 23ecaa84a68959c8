package keeper

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/keylock"
)

const testID = "0123456789abcdef"

func newKeeper(t *testing.T) *keeper {
	t.Helper()
	dir, err := os.MkdirTemp("", "hfk") // short: unix sockets live below it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return &keeper{cfg: Config{StateDir: dir, OpTimeout: time.Minute, Log: slog.New(slog.DiscardHandler)}, locks: keylock.New()}
}

func rbdSpec() Spec {
	return Spec{
		ID: testID, Kind: KindRBD, Volume: "볼륨, 하나", Monitors: []string{"[v2:10.0.0.1:1,v1:10.0.0.1:2]"}, User: "node", Key: "SECRETKEY",
		Pool: "rbd", Namespace: "팀", Image: "hf-1",
	}
}

func TestAHelperIsKnownByMoreThanItsPid(t *testing.T) {
	p, err := launch([]string{"sleep", "60"}, nil, filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	if !p.alive() {
		t.Error("a helper that runs is not alive")
	}
	for name, change := range map[string]func(*process){
		"its pid was given out again":         func(p *process) { p.Start++ },
		"the machine was booted":              func(p *process) { p.Boot = "other" },
		"another program has the same number": func(p *process) { p.Name = "ceph-fuse" },
	} {
		other := p
		if change(&other); other.alive() {
			t.Errorf("%s, and it is still taken for alive", name)
		}
	}
	if session, err := syscall.Getpgid(p.PID); err != nil || session != p.PID {
		t.Errorf("the helper is in process group %d (%v), not in its own", session, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := p.stop(ctx, syscall.SIGTERM); err != nil || p.alive() {
		t.Errorf("stop: %v, alive: %t", err, p.alive())
	}
	if err := p.stop(ctx, syscall.SIGTERM); err != nil {
		t.Errorf("stop again: %v", err)
	}
}

func TestAHelperReadsItsKeyFromMemory(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	p, err := launch([]string{"cat", keyPath}, secrets(rbdSpec()), log)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := tail(log); got != "[client.node]\nkey = SECRETKEY" {
		t.Errorf("the helper read %q", got)
	}
}

func TestAMissingProgramIsUnsupported(t *testing.T) {
	if _, err := launch([]string{"no-such-program"}, nil, filepath.Join(t.TempDir(), "log")); !errors.Is(err, fault.Unsupported) {
		t.Errorf("got %v, want unsupported", err)
	}
}

func TestNeitherArgumentsNorFilesHoldTheKey(t *testing.T) {
	k := newKeeper(t)
	directory := Spec{ID: testID, Kind: KindCephFS, Monitors: []string{"10.0.0.1"}, User: "node", Key: "SECRETKEY", Filesystem: "cephfs", Directory: "/volumes/csi/한 #1;"}
	for _, s := range []Spec{rbdSpec(), directory} {
		argv, err := k.arguments(s)
		if err != nil {
			t.Fatal(err)
		}
		conf, err := k.config(s)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(k.dir(s.ID), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := k.save(record{Spec: s}); err != nil {
			t.Fatal(err)
		}
		state, err := os.ReadFile(filepath.Join(k.dir(s.ID), "state.json"))
		if err != nil {
			t.Fatal(err)
		}
		if all := strings.Join(argv, " ") + string(conf) + string(state); strings.Contains(all, "SECRETKEY") {
			t.Errorf("the key is in %s", all)
		}
	}
	conf, err := k.config(directory)
	if err != nil || !strings.Contains(string(conf), `client mountpoint = "/volumes/csi/한 #1;"`) {
		t.Errorf("ceph.conf: %v\n%s", err, conf)
	}
	directory.Directory = "/a\nkey = x"
	if _, err := k.config(directory); !errors.Is(err, fault.Invalid) {
		t.Errorf("a line break: got %v, want invalid", err)
	}
}

func TestATornStateFileIsSomethingToCleanUp(t *testing.T) {
	k := newKeeper(t)
	if err := os.MkdirAll(k.dir(testID), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(k.dir(testID), "state.json"), []byte(`{"spec":{"id":`), 0o600); err != nil {
		t.Fatal(err)
	}
	status, err := k.describe(testID)
	if err != nil || status.Alive {
		t.Errorf("got %+v, %v, want a dead attachment", status, err)
	}
	if err := k.stop(t.Context(), testID, false); err != nil {
		t.Error(err)
	}
	if _, err := k.describe(testID); !errors.Is(err, fault.NotFound) {
		t.Errorf("after the clean-up: %v", err)
	}
	if _, err := k.describe("../../etc"); !errors.Is(err, fault.Invalid) {
		t.Errorf("an id with a path in it: got %v, want invalid", err)
	}
}

// serve runs a keeper on a socket.
func serve(t *testing.T) (*Client, string) {
	t.Helper()
	k := newKeeper(t)
	cfg := Config{Socket: filepath.Join(k.cfg.StateDir, "s"), StateDir: filepath.Join(k.cfg.StateDir, "d"), Log: k.cfg.Log}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		if err := Run(ctx, cfg); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() { cancel(); wg.Wait() })
	c := NewClient(cfg.Socket)
	for range 200 {
		if _, err := c.Ability(t.Context()); err == nil {
			return c, cfg.Socket
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("the keeper does not serve")
	return nil, ""
}

func TestErrorsKeepTheirClassesOnTheWire(t *testing.T) {
	c, socket := serve(t)
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket has mode %v (%v), want 0600", info.Mode(), err)
	}
	if _, err := c.Describe(t.Context(), testID); !errors.Is(err, fault.NotFound) {
		t.Errorf("describe: got %v, want not found", err)
	}
	if err := c.Stop(t.Context(), testID); err != nil {
		t.Errorf("stop what is not there: %v", err)
	}
	if _, err := c.Start(t.Context(), Spec{ID: testID}); !errors.Is(err, fault.Invalid) {
		t.Errorf("start nothing: got %v, want invalid", err)
	}
	if _, err := NewClient(socket + "x").List(t.Context()); !errors.Is(err, fault.Unavailable) {
		t.Errorf("nobody there: got %v, want unavailable", err)
	}
	if _, err := NewClient("").List(t.Context()); !errors.Is(err, fault.Unsupported) {
		t.Errorf("no socket: got %v, want unsupported", err)
	}
	if err := Run(t.Context(), Config{Socket: socket, StateDir: filepath.Dir(socket), Log: slog.New(slog.DiscardHandler)}); !errors.Is(err, fault.Exists) {
		t.Errorf("a second keeper on the socket: got %v, want exists", err)
	}
}

func TestEventsBetweenCommandAndAnswerArePassedOver(t *testing.T) {
	path := filepath.Join(newKeeper(t).cfg.StateDir, "qmp")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		for range 2 {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			fmt.Fprintln(conn, `{"QMP": {"version": {}, "capabilities": []}}`)
			lines := bufio.NewScanner(conn)
			for lines.Scan() {
				var r struct{ Execute string }
				_ = json.Unmarshal(lines.Bytes(), &r)
				fmt.Fprintln(conn, `{"event": "BLOCK_IO_ERROR", "data": {}}`)
				if r.Execute == "fail" {
					fmt.Fprintln(conn, `{"error": {"class": "GenericError", "desc": "no such node"}}`)
				} else {
					fmt.Fprintln(conn, `{"return": {}}`)
				}
			}
			conn.Close()
		}
	}()
	if err := qmp(t.Context(), path, "block_resize", map[string]any{"size": 1}); err != nil {
		t.Error(err)
	}
	if err := qmp(t.Context(), path, "fail", nil); err == nil || !strings.Contains(err.Error(), "no such node") {
		t.Errorf("got %v, want what QEMU says", err)
	}
	wg.Wait()
}

func TestAHelperWhoseMountWasHandedOverIsNotEndedByAStart(t *testing.T) {
	k := newKeeper(t)
	if err := os.MkdirAll(k.dir(testID), 0o700); err != nil {
		t.Fatal(err)
	}
	p, err := launch([]string{"sleep", "60"}, nil, filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	s := Spec{ID: testID, Kind: KindCephFS, Volume: "v", Monitors: []string{"10.0.0.1"}, User: "node", Key: "k", Directory: "/d"}
	if err := k.save(record{Spec: s, Process: p, Client: "10.0.0.1:0/1", Device: "0:99"}); err != nil {
		t.Fatal(err)
	}
	soon := func() context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		t.Cleanup(cancel)
		return ctx
	}
	if _, err := k.start(soon(), s); !errors.Is(err, fault.Busy) || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("start: got %v, want busy", err)
	}
	if err := k.stop(soon(), testID, false); !errors.Is(err, fault.Busy) || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("stop: got %v, want busy", err)
	}
	if status, err := k.describe(testID); err != nil || !status.Alive || status.Device != "0:99" {
		t.Errorf("afterwards: %+v, %v", status, err)
	}
	if err := k.stop(t.Context(), testID, true); err != nil || p.alive() {
		t.Errorf("stop of a dead mount's helper: %v, alive: %t", err, p.alive())
	}
}
