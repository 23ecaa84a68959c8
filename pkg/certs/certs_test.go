package certs_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/certs"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

func newCA(t *testing.T) certs.Pair {
	t.Helper()
	ca, err := certs.NewCA("시험", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func write(t *testing.T, dir string, trusted []byte, ca certs.Pair, id certs.Identity, now time.Time) {
	t.Helper()
	p, err := ca.Issue(id, now)
	if err != nil {
		t.Fatal(err)
	}
	if err := certs.Write(dir, trusted, p); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, ca certs.Pair, id certs.Identity) *certs.Store {
	t.Helper()
	dir := filepath.Join(t.TempDir(), string(id.Role))
	write(t, dir, ca.Cert, ca, id, time.Now())
	s, err := certs.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// greet listens with server's configuration and returns what a client gets that dials with its own.
func greet(t *testing.T, server, client *tls.Config) error {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	served := make(chan struct{})
	go func() {
		defer close(served)
		c, err := tls.NewListener(l, server).Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.WriteString(c, "hello")
	}()
	defer func() { <-served }()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c, err := (&tls.Dialer{Config: client}).DialContext(ctx, "tcp", l.Addr().String())
	if err != nil {
		return err
	}
	defer c.Close()
	data, err := io.ReadAll(c)
	if err == nil && string(data) != "hello" {
		err = io.ErrUnexpectedEOF
	}
	return err
}

var (
	agents  = map[certs.Protocol][]certs.Role{certs.GRPC: {certs.Agent}}
	members = map[certs.Protocol][]certs.Role{certs.GRPC: {certs.Coordinator}}

	member = certs.Identity{Role: certs.Coordinator, Name: "c1"}
	agent  = certs.Identity{Role: certs.Agent, Name: "n1"}
)

func TestProcessesOfOneClusterMeetByRoleAndName(t *testing.T) {
	ca := newCA(t)
	c, a, foreign := open(t, ca, member), open(t, ca, agent), open(t, newCA(t), agent)
	if err := greet(t, c.Server(agents), a.Client(certs.GRPC, certs.Coordinator, "c1")); err != nil {
		t.Errorf("agent to coordinator: %v", err)
	}
	if err := greet(t, c.Server(members), a.Client(certs.GRPC, certs.Coordinator, "")); err == nil {
		t.Error("an agent speaks where coordinators alone may")
	}
	if err := greet(t, c.Server(agents), a.Client(certs.GRPC, certs.Coordinator, "c2")); !errors.Is(err, fault.Denied) {
		t.Errorf("another coordinator than the one that was meant: %v", err)
	}
	if err := greet(t, a.Server(agents), a.Client(certs.GRPC, certs.Coordinator, "")); !errors.Is(err, fault.Denied) {
		t.Errorf("an agent poses as a coordinator: %v", err)
	}
	if err := greet(t, c.Server(agents), foreign.Client(certs.GRPC, certs.Coordinator, "")); err == nil {
		t.Error("an agent of another cluster")
	}
}

func TestCertificatesChangeWithoutARestart(t *testing.T) {
	old, next := newCA(t), newCA(t)
	both := append(append([]byte{}, old.Cert...), next.Cert...)
	dirs := map[certs.Identity]string{member: t.TempDir(), agent: t.TempDir()}
	stores := map[certs.Identity]*certs.Store{}
	for id, dir := range dirs {
		write(t, dir, old.Cert, old, id, time.Now())
		s, err := certs.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		stores[id] = s
	}
	server, client := stores[member].Server(agents), stores[agent].Client(certs.GRPC, certs.Coordinator, "c1") // both made once
	step := func(id certs.Identity, trusted []byte, ca certs.Pair) {
		t.Helper()
		write(t, dirs[id], trusted, ca, id, time.Now())
		if err := stores[id].Reload(); err != nil {
			t.Fatal(err)
		}
		if err := greet(t, server, client); err != nil {
			t.Fatalf("after a step of %s: %v", id, err)
		}
	}
	for _, id := range []certs.Identity{member, agent} { // trust both, then change, then trust the new one alone
		step(id, both, old)
	}
	for _, id := range []certs.Identity{member, agent} {
		step(id, both, next)
	}
	for _, id := range []certs.Identity{member, agent} {
		step(id, next.Cert, next)
	}
	if err := os.WriteFile(filepath.Join(dirs[agent], "tls.key"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := stores[agent].Reload(); !errors.Is(err, fault.Invalid) {
		t.Errorf("a damaged key: %v", err)
	}
	if err := greet(t, server, client); err != nil {
		t.Errorf("the old certificate is not in use any more: %v", err)
	}
}

func TestOnePortHandsEachProtocolToItsOwn(t *testing.T) {
	ca := newCA(t)
	c, a := open(t, ca, member), open(t, ca, agent)
	l, err := c.Listen(t.Context(), "127.0.0.1:0", map[certs.Protocol][]certs.Role{certs.GRPC: {certs.Agent, certs.Coordinator}, certs.Raft: {certs.Coordinator}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	for _, p := range []certs.Protocol{certs.GRPC, certs.Raft} {
		go func() {
			for {
				conn, err := l.For(p).Accept()
				if err != nil {
					return
				}
				_, _ = io.WriteString(conn, string(p))
				_ = conn.Close()
			}
		}()
	}
	say := func(s *certs.Store, p certs.Protocol) string {
		conn, err := (&tls.Dialer{Config: s.Client(p, certs.Coordinator, "c1")}).DialContext(t.Context(), "tcp", l.Addr().String())
		if err != nil {
			return ""
		}
		defer conn.Close()
		data, _ := io.ReadAll(conn)
		return string(data)
	}
	if got := say(a, certs.GRPC) + " " + say(c, certs.Raft) + " " + say(a, certs.Raft); got != "h2 holdfast-raft " {
		t.Errorf("%q", got)
	}
	silent, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", l.Addr().String()) // holds nobody else up
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	if say(a, certs.GRPC) != "h2" {
		t.Error("somebody who says nothing holds the others up")
	}
	_ = silent.Close()
}

func TestExpiredCertificatesAreRefused(t *testing.T) {
	ca := newCA(t)
	dir := t.TempDir()
	write(t, dir, ca.Cert, ca, agent, time.Now().Add(-certs.Life-time.Hour))
	a, err := certs.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := greet(t, open(t, ca, member).Server(agents), a.Client(certs.GRPC, certs.Coordinator, "")); err == nil {
		t.Error("an expired certificate is taken")
	}
}

func TestKeysAreForTheirOwnerAlone(t *testing.T) {
	ca := newCA(t)
	dir := filepath.Join(t.TempDir(), "a")
	write(t, dir, ca.Cert, ca, agent, time.Now())
	for _, name := range []string{"", "tls.key"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	for _, id := range []certs.Identity{{"root", "a"}, {certs.Agent, ""}, {certs.Agent, "a/b"}, {certs.Agent, "a%2f"}} {
		if _, err := ca.Issue(id, time.Now()); !errors.Is(err, fault.Invalid) {
			t.Errorf("%v: %v", id, err)
		}
	}
}

func TestAJoinTokenIsReadAsItWasWritten(t *testing.T) {
	token, err := certs.NewToken([]string{"10.0.0.1:7480"}, newCA(t).Cert, agent)
	if err != nil {
		t.Fatal(err)
	}
	text, err := token.Reveal()
	if err != nil {
		t.Fatal(err)
	}
	again, err := certs.ParseToken(text + "\n")
	if err != nil || again.For != agent || again.Secret.Reveal() != token.Secret.Reveal() || again.CA != token.CA {
		t.Fatalf("%+v, %v", again, err)
	}
	if again.Hash() != token.Hash() || again.Hash() == certs.HashOf(storage.NewSecret("x")) {
		t.Error("the hash is not the secret's")
	}
	for _, bad := range []string{"", "x", text[:len(text)/2], text[:20] + "!" + text[21:], "holdfast-join-1.e30"} {
		_, err := certs.ParseToken(bad)
		if !errors.Is(err, fault.Invalid) || len(bad) > 20 && strings.Contains(err.Error(), bad[16:]) {
			t.Errorf("%.10q…: %v", bad, err)
		}
	}
}

func FuzzToken(f *testing.F) {
	f.Add("holdfast-join-1.e30")
	f.Fuzz(func(t *testing.T, text string) {
		token, err := certs.ParseToken(text)
		if err != nil {
			return
		}
		again, err := token.Reveal()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := certs.ParseToken(again); err != nil {
			t.Errorf("%q was read, and %q is not", text, again)
		}
	})
}
