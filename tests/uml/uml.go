// Package uml boots User Mode Linux guests for tests: a kernel with rbd and ceph on a
// machine whose own kernel has neither. The guest's root is the host's own /,
// read-only, so a program runs there as it is here. Root is needed.
package uml

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Missing returns what this machine lacks, as a message with the way to get it; "" if nothing.
func Missing() string {
	var packages, rest []string
	for program, pkg := range map[string]string{
		"linux.uml": "user-mode-linux", "ip": "iproute2", "nsenter": "util-linux", "modprobe": "kmod",
		"ceph-mon": "ceph-mon", "ceph-osd": "ceph-osd", "ceph-mds": "ceph-mds", "mkfs.xfs": "xfsprogs",
	} {
		if _, err := exec.LookPath(program); err != nil {
			packages = append(packages, pkg)
		}
	}
	if len(packages) > 0 {
		rest = append(rest, "apt-get install -y "+strings.Join(packages, " "))
	}
	if os.Geteuid() != 0 {
		rest = append(rest, "root")
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		rest = append(rest, "/dev/net/tun (modprobe tun)")
	}
	return strings.Join(rest, "; ")
}

// Network is a private network namespace with a tap device for a guest.
type Network struct {
	Name string // of the namespace
	Host string // the host's address in it
}

// tap is the device's name; the namespace is the network's own.
const tap = "tap0"

// NewNetwork makes the namespace. address is the host's, with its prefix ("10.99.0.1/24").
func NewNetwork(ctx context.Context, name, address string) (*Network, error) {
	host, _, _ := strings.Cut(address, "/")
	n := &Network{Name: name, Host: host}
	for _, argv := range [][]string{
		{"ip", "netns", "add", name},
		{"ip", "-n", name, "link", "set", "lo", "up"},
		{"ip", "-n", name, "tuntap", "add", tap, "mode", "tap"},
		{"ip", "-n", name, "addr", "add", address, "dev", tap},
		{"ip", "-n", name, "link", "set", tap, "up"},
	} {
		if err := run(ctx, argv); err != nil {
			return nil, errors.Join(err, n.Close())
		}
	}
	return n, nil
}

// Close removes the namespace.
func (n *Network) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return run(ctx, []string{"ip", "netns", "del", n.Name})
}

// Command returns a command that runs within the namespace.
func (n *Network) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "nsenter", append([]string{"--net=/run/netns/" + n.Name, "--", name}, args...)...)
}

func run(ctx context.Context, argv []string) error {
	if out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// Machine is a guest to be booted.
type Machine struct {
	Init    string   // the built tests/uml/guest
	Memory  int      // MiB
	Network *Network // nil for none
	Address string   // the guest's, with its prefix
	Dir     string   // of the host; writable in the guest at the same path
	Modules []string
	Disks   []Disk
}

// Disk is a file of the host that the guest has as a disk: the first as /dev/ubda and so on, at most 8.
type Disk struct {
	Path   string
	Serial string // as sysfs shows it
}

// disks are the kernel's arguments for them.
func (m *Machine) disks() []string {
	var args []string
	for i, d := range m.Disks {
		args = append(args, fmt.Sprintf("ubd%d=%s,,%s", i, d.Path, d.Serial))
	}
	return args
}

// kernel is the command that runs the guest's kernel.
func (m *Machine) kernel(ctx context.Context, args []string) *exec.Cmd {
	if m.Network == nil {
		return exec.CommandContext(ctx, "linux.uml", args...)
	}
	return m.Network.Command(ctx, "linux.uml", append(args, "vec0:transport=tap,ifname="+tap+",depth=128,gro=1")...)
}

// Guest is a running guest.
type Guest struct {
	output  string
	code    string
	console string
	group   int
	ended   chan struct{}
}

// job is what tests/uml/guest reads.
type job struct {
	Share, Address     string
	Modules, Argv, Env []string
	Output, ExitCode   string
}

// Boot starts the guest, which runs argv and powers off. Stop or Wait must follow.
func (m *Machine) Boot(ctx context.Context, name string, argv, env []string) (*Guest, error) {
	ctl, err := os.MkdirTemp(m.Dir, name)
	if err != nil {
		return nil, err
	}
	g := &Guest{output: filepath.Join(ctl, "out"), code: filepath.Join(ctl, "code"), console: filepath.Join(ctl, "console"), ended: make(chan struct{})}
	data, err := json.Marshal(job{Share: m.Dir, Address: m.Address, Modules: m.Modules, Argv: argv, Env: env, Output: g.output, ExitCode: g.code})
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(ctl, "job.json"), data, 0o600); err != nil {
		return nil, err
	}
	console, err := os.Create(g.console)
	if err != nil {
		return nil, err
	}
	defer console.Close()
	cmd := m.kernel(context.WithoutCancel(ctx), append(m.disks(),
		"mem="+strconv.Itoa(m.Memory)+"M", "umid="+filepath.Base(ctl), "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro",
		"init="+m.Init, "guest="+filepath.Join(ctl, "job.json"), "con=null", "con0=null,fd:1", "ssl=null", "quiet", "panic=1"))
	cmd.Stdout, cmd.Stderr = console, console
	cmd.Env = append(os.Environ(), "TMPDIR=/dev/shm", "HOME="+ctl) // its memory file; its control socket
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start linux.uml: %w", err)
	}
	g.group = cmd.Process.Pid
	go func() { // ends with the guest; Stop and Wait wait for it
		defer close(g.ended)
		_ = cmd.Wait() // the exit code is the kernel's; the program's own is in a file
	}()
	return g, nil
}

// Stop is a crash: the guest ends at once, nothing is written back.
func (g *Guest) Stop() {
	g.killGroup()
	<-g.ended
}

// killGroup ends every process of the guest. The main one may have moved to a group of
// its own, which has its pid.
func (g *Guest) killGroup() {
	_ = syscall.Kill(-g.group, syscall.SIGKILL)
	_ = syscall.Kill(g.group, syscall.SIGKILL)
}

// Wait waits for the guest's end and returns what its program printed and its exit code.
func (g *Guest) Wait(ctx context.Context) (output string, code int, err error) {
	select {
	case <-g.ended:
	case <-ctx.Done():
		g.Stop()
		return g.Output(), -1, fmt.Errorf("guest did not end: %w; console: %s", ctx.Err(), g.Console())
	}
	g.killGroup() // what the kernel left of its processes
	data, err := os.ReadFile(g.code)
	if err != nil {
		return g.Output(), -1, fmt.Errorf("guest ended without an exit code; console: %s", g.Console())
	}
	code, err = strconv.Atoi(string(data))
	return g.Output(), code, err
}

// Ended is closed when the guest has ended.
func (g *Guest) Ended() <-chan struct{} { return g.ended }

// Output returns what the program has printed so far.
func (g *Guest) Output() string {
	data, _ := os.ReadFile(g.output)
	return string(data)
}

// Console returns the kernel's console.
func (g *Guest) Console() string {
	data, _ := os.ReadFile(g.console)
	return string(data)
}
