package raftnode_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/certs"
	"github.com/holdfast-storage/holdfast/pkg/coordinator/fsm"
	"github.com/holdfast-storage/holdfast/pkg/coordinator/raftnode"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// cluster is coordinators in one process, over loopback.
type cluster struct {
	t       testing.TB
	ca      certs.Pair
	dir     string
	members []raftnode.Member
	nodes   map[string]*raftnode.Node
	ports   map[string]*certs.Listener
}

func newCluster(t testing.TB, size int) *cluster {
	t.Helper()
	ca, err := certs.NewCA("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{t: t, ca: ca, dir: t.TempDir(), nodes: map[string]*raftnode.Node{}, ports: map[string]*certs.Listener{}}
	for i := range size {
		c.members = append(c.members, c.member(fmt.Sprint("c", i+1)))
	}
	for _, m := range c.members {
		c.start(m, c.members)
	}
	t.Cleanup(func() {
		for name := range c.nodes {
			c.end(name)
		}
	})
	return c
}

// member is a name with an address of its own.
func (c *cluster) member(name string) raftnode.Member {
	c.t.Helper()
	l, err := (&net.ListenConfig{}).Listen(c.t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		c.t.Fatal(err)
	}
	defer l.Close()
	return raftnode.Member{Name: name, Address: l.Addr().String()}
}

func (c *cluster) config(m raftnode.Member, members []raftnode.Member) raftnode.Config {
	c.t.Helper()
	dir := filepath.Join(c.dir, m.Name)
	pair, err := c.ca.Issue(certs.Identity{Role: certs.Coordinator, Name: m.Name}, time.Now())
	if err != nil {
		c.t.Fatal(err)
	}
	if err := certs.Write(filepath.Join(dir, "certs"), c.ca.Cert, pair); err != nil {
		c.t.Fatal(err)
	}
	store, err := certs.Open(filepath.Join(dir, "certs"))
	if err != nil {
		c.t.Fatal(err)
	}
	return raftnode.Config{
		Name: m.Name, Dir: dir, Address: m.Address, Certs: store, Members: members,
		SnapshotEvery: 200, Log: slog.New(slog.NewTextHandler(c.t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo})),
	}
}

func (c *cluster) start(m raftnode.Member, members []raftnode.Member) {
	c.t.Helper()
	cfg := c.config(m, members)
	l, err := cfg.Certs.Listen(c.t.Context(), m.Address, map[certs.Protocol][]certs.Role{certs.Raft: {certs.Coordinator}})
	if err != nil {
		c.t.Fatal(err)
	}
	c.ports[m.Name], cfg.Listener = l, l.For(certs.Raft)
	n, err := raftnode.Start(cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	c.nodes[m.Name] = n
}

func (c *cluster) end(name string) {
	c.t.Helper()
	if err := c.nodes[name].Close(); err != nil {
		c.t.Errorf("close %s: %v", name, err)
	}
	if err := c.ports[name].Close(); err != nil {
		c.t.Error(err)
	}
	delete(c.nodes, name)
}

// leader waits for a member that leads and knows all.
func (c *cluster) leader() *raftnode.Node {
	c.t.Helper()
	for range 6000 {
		for _, n := range c.nodes {
			if _, ok := n.Leads(); ok {
				return n
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	c.t.Fatal("nobody leads after a minute")
	return nil
}

// write commits a command through whoever leads, with a key, until it is answered.
func (c *cluster) write(name string) {
	c.t.Helper()
	command := fsm.NewCommand("test", "write "+name, time.Now(), &fsm.SetPolicy{Name: name, Policy: &fsm.Policy{}})
	for range 600 {
		ctx, cancel := context.WithTimeout(c.t.Context(), 5*time.Second)
		_, err := c.leader().Apply(ctx, command)
		cancel()
		if err == nil {
			return
		}
		if !errors.Is(err, fault.Unavailable) {
			c.t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	c.t.Fatalf("%s was not written", name)
}

// knows waits until a member's own view has a policy.
func (c *cluster) knows(n *raftnode.Node, name string) {
	c.t.Helper()
	for range 3000 {
		known := false
		n.View(func(s *fsm.State) { _, known = s.Policies[name] })
		if known {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	c.t.Fatalf("%s does not know %s", n.Name(), name)
}

func (c *cluster) all(name string) {
	c.t.Helper()
	for _, n := range c.nodes {
		c.knows(n, name)
	}
}

func TestWhatWasAnsweredSurvivesTheLeaderAndARestartOfAll(t *testing.T) {
	c := newCluster(t, 3)
	c.write("하나")
	c.all("하나")
	was := c.leader().Name()
	c.end(was)
	c.write("둘") // two of three go on
	if c.leader().Name() == was {
		t.Fatal("the leader is gone and leads")
	}
	for name := range c.nodes {
		c.end(name)
	}
	for _, m := range c.members {
		c.start(m, nil)
	}
	c.write("셋")
	for _, name := range []string{"하나", "둘", "셋"} {
		c.all(name)
	}
}

func TestAMemberThatDoesNotLeadSaysWhoDoes(t *testing.T) {
	c := newCluster(t, 3)
	c.write("a")
	leader := c.leader()
	for _, n := range c.nodes {
		err := n.Current(t.Context())
		var not *raftnode.NotLeader
		if n == leader {
			if err != nil {
				t.Error(err)
			}
		} else if !errors.As(err, &not) || not.Leader.Name != leader.Name() || !errors.Is(err, fault.Unavailable) {
			t.Errorf("%s: %v", n.Name(), err)
		}
	}
}

func TestMembersComeAndGo(t *testing.T) {
	c := newCluster(t, 1)
	c.write("a")
	second := ""
	for _, name := range []string{"c2", "c3"} {
		m := c.member(name)
		if name == "c2" {
			second = m.Address
		}
		c.start(m, nil)
		if err := c.leader().Add(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	c.all("a")
	first := c.leader().Name()
	if err := c.leader().Transfer(t.Context(), "c3"); err != nil {
		t.Fatal(err)
	}
	c.write("b")
	if got := c.leader().Name(); got != "c3" {
		t.Errorf("%s leads", got)
	}
	c.end("c2")
	if err := c.leader().Remove(t.Context(), first); !errors.Is(err, fault.Precondition) {
		t.Errorf("one of two is left to decide: %v", err)
	}
	c.start(raftnode.Member{Name: "c2", Address: second}, nil)
	if err := c.leader().Add(t.Context(), raftnode.Member{Name: "c9", Address: second}); !errors.Is(err, fault.Precondition) {
		t.Errorf("another answers there: %v", err)
	}
	if err := c.leader().Remove(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	c.end(first)
	c.write("c")
	if members, err := c.leader().Members(); err != nil || len(members) != 2 {
		t.Errorf("%v, %v", members, err)
	}
	if err := c.leader().Remove(t.Context(), "nobody"); !errors.Is(err, fault.NotFound) {
		t.Error(err)
	}
}

func TestWithoutAMajorityNothingIsAnsweredAndARecoveryKeepsWhatWasThere(t *testing.T) {
	c := newCluster(t, 3)
	c.write("a")
	c.all("a")
	c.end("c2")
	c.end("c3")
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if _, err := c.nodes["c1"].Apply(ctx, fsm.NewCommand("t", "", time.Now(), &fsm.SetPolicy{Name: "b", Policy: &fsm.Policy{}})); !errors.Is(err, fault.Unavailable) {
		t.Errorf("one of three decided: %v", err)
	}
	c.end("c1")
	if err := raftnode.Recover(c.config(c.members[0], nil), c.members[:1]); err != nil {
		t.Fatal(err)
	}
	c.start(c.members[0], nil)
	c.write("d")
	c.knows(c.nodes["c1"], "a")
}

func TestABackupIsRestoredIntoAnotherCluster(t *testing.T) {
	c := newCluster(t, 1)
	c.write("a")
	var backup []byte
	c.leader().View(func(s *fsm.State) {
		var err error
		if backup, err = s.Encode(); err != nil {
			t.Fatal(err)
		}
	})
	other := newCluster(t, 3)
	other.write("z")
	if err := other.leader().Restore(t.Context(), []byte("{}"), "t"); !errors.Is(err, fault.Unsupported) && !errors.Is(err, fault.Invalid) {
		t.Errorf("no backup: %v", err)
	}
	if err := other.leader().Restore(t.Context(), backup, "t"); err != nil {
		t.Fatal(err)
	}
	other.write("b")
	other.all("a")
	other.all("b")
	other.leader().View(func(s *fsm.State) {
		if _, old := s.Policies["z"]; old {
			t.Error("what was before the restore is still there")
		}
	})
}

func TestASnapshotTakesThePlaceOfTheLog(t *testing.T) {
	c := newCluster(t, 3)
	late := c.members[2]
	c.end(late.Name)
	for i := range 5 {
		c.many(i, 200)
	}
	c.write("last")
	snapshots := filepath.Join(c.dir, "*", "snapshots", "*", "state.bin")
	for found := 0; found < 2; time.Sleep(50 * time.Millisecond) { // one of each member that is up
		list, err := filepath.Glob(snapshots)
		if err != nil {
			t.Fatal(err)
		}
		found = len(list)
	}
	c.start(late, nil)
	c.knows(c.nodes[late.Name], "last")
}

// many commits commands side by side.
func (c *cluster) many(round, count int) {
	c.t.Helper()
	leader, failed := c.leader(), make(chan error, count)
	for i := range count {
		go func() { // what is lost with a leader is of no matter here
			_, err := leader.Apply(c.t.Context(), fsm.NewCommand("t", "", time.Now(), &fsm.ReportNode{Node: storage.NodeID(fmt.Sprint("n", i)), Boot: "b", Generation: uint64(round)}))
			failed <- err
		}()
	}
	for range count {
		if err := <-failed; err != nil && !errors.Is(err, fault.Unavailable) {
			c.t.Fatal(err)
		}
	}
}

func TestADirectoryIsOneMembersAlone(t *testing.T) {
	c := newCluster(t, 1)
	c.end("c1")
	cfg := c.config(c.members[0], nil)
	cfg.Name = "c9"
	if _, err := raftnode.Start(cfg); !errors.Is(err, fault.Invalid) {
		t.Error(err)
	}
}

func TestARefusalIsAnAnswer(t *testing.T) {
	c := newCluster(t, 1)
	a, err := c.leader().Apply(t.Context(), fsm.NewCommand("t", "", time.Now(), &fsm.Approve{Plan: plan.ID("x")}))
	if err != nil || !errors.Is(a.Err(), fault.NotFound) {
		t.Errorf("%v, %v", a, err)
	}
}
