// Package coordinator tests coordinators as they run: processes that are killed, stopped, and whose disks hang.
package coordinator_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/certs"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi"
	"github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi/coordinatorv1"
)

// cluster is coordinators of the test's own.
type cluster struct {
	t       testing.TB
	dir     string
	names   []string
	address map[string]string
	data    map[string]string // where a member's log lies
	extra   []string          // more arguments of the members
	running map[string]*exec.Cmd
	network *network // where members are, nil for this machine's own
}

const bin = "../../bin"

// start makes a cluster of processes. data may say where members keep their logs.
func start(t testing.TB, size int, data map[string]string, extra ...string) *cluster {
	t.Helper()
	return startIn(t, nil, size, data, extra...)
}

// startIn makes it in a network of the test's own.
func startIn(t testing.TB, n *network, size int, data map[string]string, extra ...string) *cluster {
	t.Helper()
	c := &cluster{t: t, dir: t.TempDir(), address: map[string]string{}, data: map[string]string{}, extra: extra, running: map[string]*exec.Cmd{}, network: n}
	args := []string{"coordinator", "init", filepath.Join(c.dir, "init")}
	for i := range size {
		name := fmt.Sprint("c", i+1)
		c.names = append(c.names, name)
		if c.address[name] = n.address(i); n == nil {
			c.address[name] = freeAddress(t)
		}
		c.data[name] = filepath.Join(c.dir, name)
		if dir := data[name]; dir != "" {
			c.data[name] = dir
		}
		args = append(args, "--member", name+"="+c.address[name])
	}
	c.holdfast(args...)
	for _, name := range c.names {
		c.run(name)
	}
	t.Cleanup(func() {
		for name := range c.running {
			c.signal(name, syscall.SIGCONT)
			c.end(name, syscall.SIGKILL)
		}
	})
	return c
}

func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// holdfast runs the CLI and returns what it printed.
func (c *cluster) holdfast(args ...string) string {
	c.t.Helper()
	out, err := exec.CommandContext(c.t.Context(), filepath.Join(bin, "holdfast"), args...).CombinedOutput()
	if err != nil {
		c.t.Fatalf("holdfast %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (c *cluster) certs(name string) string { return filepath.Join(c.dir, "init", name) }

// issue makes a certificate and opens it.
func (c *cluster) issue(role, name string) *certs.Store {
	c.t.Helper()
	c.holdfast("coordinator", "certificate", c.certs(role+"-"+name), "--ca", c.certs("ca"), "--role", role, "--name", name)
	return c.open(role + "-" + name)
}

func (c *cluster) open(name string) *certs.Store {
	c.t.Helper()
	store, err := certs.Open(c.certs(name))
	if err != nil {
		c.t.Fatal(err)
	}
	return store
}

// run starts a member's process.
func (c *cluster) run(name string) {
	c.t.Helper()
	var members []string
	for _, each := range c.names {
		members = append(members, each+"="+c.address[each])
	}
	log, err := os.OpenFile(filepath.Join(c.dir, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		c.t.Fatal(err)
	}
	defer log.Close()
	args := []string{"coordinator", "--certs", c.certs(name), "--dir", c.data[name], "--address", c.address[name], "--members", strings.Join(members, ",")}
	args = append([]string{filepath.Join(bin, "holdfastd")}, append(args, c.extra...)...)
	args = append(c.network.within(name), args...)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.running[name] = cmd
}

func (c *cluster) signal(name string, s syscall.Signal) {
	if err := c.running[name].Process.Signal(s); err != nil {
		c.t.Logf("signal %s: %v", name, err)
	}
}

// end ends a member's process and waits for that.
func (c *cluster) end(name string, s syscall.Signal) {
	c.signal(name, s)
	_ = c.running[name].Wait() // killed
	delete(c.running, name)
}

// client talks to all members as somebody.
func (c *cluster) client(store *certs.Store) *coordinatorapi.Client {
	var addresses []string
	for _, name := range c.names {
		addresses = append(addresses, c.address[name])
	}
	client := coordinatorapi.New(store, addresses)
	c.t.Cleanup(client.Close)
	return client
}

// leader asks members, but those left out, who leads, until one is named that is not left out.
func (c *cluster) leader(client *coordinatorapi.Client, but ...string) string {
	c.t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		for _, name := range c.names {
			if slices.Contains(but, name) {
				continue
			}
			ctx, cancel := context.WithTimeout(c.t.Context(), time.Second)
			api, err := client.At(c.address[name])
			if err != nil {
				c.t.Fatal(err)
			}
			s, err := api.GetStatus(ctx, &coordinatorv1.GetStatusRequest{})
			cancel()
			if leads := s.GetLeader().GetName(); err == nil && leads != "" && !slices.Contains(but, leads) {
				return leads
			}
		}
	}
	c.t.Fatalf("nobody leads after a minute\n%s", c.logs())
	return ""
}

func (c *cluster) logs() string {
	var text strings.Builder
	for _, name := range c.names {
		data, err := os.ReadFile(filepath.Join(c.dir, name+".log"))
		fmt.Fprintf(&text, "== %s %v\n%s", name, err, data[max(0, len(data)-3000):])
	}
	return text.String()
}

// planAt is where a plan is: its phase and its step, from 0.
func (c *cluster) planAt(client *coordinatorapi.Client, id plan.ID) (string, int) {
	c.t.Helper()
	phase, status := c.statusOf(client, id)
	return phase, status.Step
}

// set writes a policy whose spec is a number.
func set(ctx context.Context, client *coordinatorapi.Client, name string, value int) error {
	key := fmt.Sprintf("%s=%d", name, value)
	_, err := coordinatorapi.Call(ctx, client, func(ctx context.Context, api coordinatorv1.CoordinatorClient, o ...coordinatorapi.CallOption) (*coordinatorv1.Policy, error) {
		return api.SetPolicy(ctx, &coordinatorv1.SetPolicyRequest{Key: key, Policy: &coordinatorv1.Policy{Name: name, Spec: fmt.Append(nil, value)}}, o...)
	})
	return err
}

// get reads policies' numbers.
func get(ctx context.Context, client *coordinatorapi.Client) (map[string]int, error) {
	list, err := coordinatorapi.Call(ctx, client, func(ctx context.Context, api coordinatorv1.CoordinatorClient, o ...coordinatorapi.CallOption) (*coordinatorv1.ListPoliciesResponse, error) {
		return api.ListPolicies(ctx, &coordinatorv1.ListPoliciesRequest{}, o...)
	})
	values := map[string]int{}
	for _, p := range list.GetPolicies() {
		var n int
		if _, err := fmt.Sscan(string(p.GetSpec()), &n); err != nil {
			return nil, fmt.Errorf("policy %s is %q: %w", p.GetName(), p.GetSpec(), err)
		}
		values[p.GetName()] = n
	}
	return values, err
}
