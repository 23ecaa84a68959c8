package coordinator_test

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
)

// network is a bridge with a namespace for each member, so that they can be cut off from each other while clients reach all of them.
type network struct{ id int }

// newNetwork makes one for so many members, c1 and so on.
func newNetwork(t *testing.T, size int) *network {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("network namespaces need root")
	}
	n := freeNetwork(t)
	t.Cleanup(func() {
		for i := range size {
			_ = exec.Command("ip", "netns", "del", n.space(fmt.Sprint("c", i+1))).Run()
		}
		_ = exec.Command("ip", "link", "del", n.bridge()).Run()
	})
	run(t, "ip", "addr", "add", fmt.Sprintf("10.98.%d.254/24", n.id), "dev", n.bridge())
	run(t, "ip", "link", "set", n.bridge(), "up")
	for i := range size {
		space, outer := n.space(fmt.Sprint("c", i+1)), fmt.Sprintf("hfv%d-%d", n.id, i+1)
		run(t, "ip", "netns", "add", space)
		run(t, "ip", "link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", space)
		run(t, "ip", "link", "set", outer, "master", n.bridge(), "up")
		n.in(t, space, "ip", "link", "set", "lo", "up")
		n.in(t, space, "ip", "addr", "add", n.host(i)+"/24", "dev", "eth0")
		n.in(t, space, "ip", "link", "set", "eth0", "up")
	}
	return n
}

// freeNetwork takes one that no other run has.
func freeNetwork(t *testing.T) *network {
	t.Helper()
	var out []byte
	for i := range 250 {
		n := &network{(os.Getpid() + i) % 250}
		var err error
		if out, err = exec.Command("ip", "link", "add", n.bridge(), "type", "bridge").CombinedOutput(); err == nil {
			return n
		}
	}
	t.Fatalf("no network is free: %s", out)
	return nil
}

func (n *network) bridge() string { return fmt.Sprint("hfb", n.id) }

func (n *network) space(member string) string { return fmt.Sprintf("hf%d-%s", n.id, member) }

func (n *network) host(i int) string { return fmt.Sprintf("10.98.%d.%d", n.id, i+1) }

// address is a member's; "" in this machine's own network.
func (n *network) address(i int) string {
	if n == nil {
		return ""
	}
	return n.host(i) + ":7480"
}

// within is what a member's command begins with.
func (n *network) within(member string) []string {
	if n == nil {
		return nil
	}
	return []string{"ip", "netns", "exec", n.space(member)}
}

func (n *network) in(t testing.TB, space string, args ...string) {
	t.Helper()
	run(t, "ip", append([]string{"netns", "exec", space}, args...)...)
}

// part drops all that one member sends to another, without a word.
func (n *network) part(t testing.TB, from, to int) {
	t.Helper()
	n.in(t, n.space(fmt.Sprint("c", from+1)), "ip", "neigh", "replace", n.host(to), "lladdr", "02:00:00:00:00:99", "dev", "eth0", "nud", "permanent")
}

// join lets it through again.
func (n *network) join(t testing.TB, from, to int) {
	t.Helper()
	n.in(t, n.space(fmt.Sprint("c", from+1)), "ip", "neigh", "del", n.host(to), "dev", "eth0")
}
