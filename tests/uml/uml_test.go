package uml_test

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-storage/holdfast/tests/uml"
	"github.com/holdfast-storage/holdfast/tests/uml/handover"
)

// TestNodeThroughTheKernelsClients runs the node suite in a guest, against a real Ceph
// cluster on the host's side of a tap device.
func TestNodeThroughTheKernelsClients(t *testing.T) {
	if missing := uml.Missing(); missing != "" {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs " + missing)
		}
		t.Skip("needs " + missing)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	l := newLab(t, ctx)
	machine := &uml.Machine{
		Init: l.build("guest", "./tests/uml/guest", true), Memory: 1024, Network: l.network, Address: "10.99.0.2/24", Dir: l.dir,
		Modules: []string{"loop", "ext4", "xfs"},
	}
	suite := l.buildSuite("suite", "./tests/uml/suite")

	t.Run("suite", func(t *testing.T) {
		g, err := machine.Boot(ctx, "suite", l.argv(suite, "^(TestTheKernelsClientsAreChosen|TestNodeSuite)$"), l.env())
		if err != nil {
			t.Fatal(err)
		}
		l.passes(t, ctx, g)
	})
	t.Run("a crash of the machine loses nothing that was synced", func(t *testing.T) {
		g, err := machine.Boot(ctx, "before", l.argv(suite, "^TestPrepareCrash$"), l.env())
		if err != nil {
			t.Fatal(err)
		}
		for !strings.Contains(g.Output(), handover.Ready) {
			select {
			case <-g.Ended():
				t.Fatalf("the guest ended early:\n%s\n%s", g.Output(), g.Console())
			case <-ctx.Done():
				g.Stop()
				t.Fatalf("the guest does not come up:\n%s\n%s", g.Output(), g.Console())
			case <-time.After(100 * time.Millisecond):
			}
		}
		g.Stop()
		g, err = machine.Boot(ctx, "after", l.argv(suite, "^TestRecoverFromCrash$"), l.env())
		if err != nil {
			t.Fatal(err)
		}
		l.passes(t, ctx, g)
	})
}

// lab is the network, the cluster and the programs of one run.
type lab struct {
	t       *testing.T
	dir     string
	root    string // of the repository
	network *uml.Network
}

// newLab brings a cluster up in a namespace of its own.
func newLab(t *testing.T, ctx context.Context) *lab {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("/var/tmp", "hfu") // short: unix sockets live below it
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{t: t, dir: dir, root: root}
	t.Cleanup(func() {
		if !t.Failed() {
			_ = os.RemoveAll(dir)
		}
	})
	l.network, err = uml.NewNetwork(ctx, filepath.Base(dir), "10.99.0.1/24")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.network.Close(); err != nil {
			t.Error(err)
		}
	})
	holdfast := l.build("holdfast", "./cmd/holdfast", true)
	l.build("holdfastd", "./cmd/holdfastd", false) // beside it: holdfast starts it
	out, err := l.network.Command(ctx, holdfast, "up", "--data-dir", l.ceph(), "--ceph-addr", l.network.Host, "--no-csi").CombinedOutput()
	t.Cleanup(func() {
		down, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if out, err := l.network.Command(down, holdfast, "down", "--data-dir", l.ceph()).CombinedOutput(); err != nil {
			t.Errorf("holdfast down: %v\n%s", err, out)
		}
	})
	if err != nil {
		t.Fatalf("holdfast up: %v\n%s", err, out)
	}
	l.handOver()
	return l
}

func (l *lab) ceph() string { return filepath.Join(l.dir, "c") }

// build compiles a program for the guest.
func (l *lab) build(name, pkg string, static bool) string {
	l.t.Helper()
	path := filepath.Join(l.dir, name)
	l.compile(static, "build", "-tags=pacific,ceph_preview", "-o", path, pkg)
	return path
}

// buildSuite compiles the tests of a package that run in the guest.
func (l *lab) buildSuite(name, pkg string) string {
	l.t.Helper()
	path := filepath.Join(l.dir, name)
	l.compile(false, "test", "-c", "-tags=pacific,ceph_preview,umlguest", "-o", path, pkg)
	return path
}

func (l *lab) compile(static bool, argv ...string) {
	l.t.Helper()
	cmd := exec.CommandContext(l.t.Context(), "go", argv...)
	cmd.Dir, cmd.Env = l.root, os.Environ()
	if static {
		cmd.Env = append(cmd.Env, "CGO_ENABLED=0")
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		l.t.Fatalf("go %s: %v\n%s", strings.Join(argv, " "), err, out)
	}
}

// handOver writes what the guest must know of the cluster.
func (l *lab) handOver() {
	l.t.Helper()
	conf, err := os.ReadFile(filepath.Join(l.ceph(), "ceph.conf"))
	if err != nil {
		l.t.Fatal(err)
	}
	setting := func(key string) string {
		m := regexp.MustCompile(`(?m)^` + key + `\s*=\s*(.+)$`).FindSubmatch(conf)
		if m == nil {
			l.t.Fatalf("ceph.conf has no %q", key)
		}
		return strings.TrimSpace(string(m[1]))
	}
	user := func(name string) handover.User {
		keyring, err := os.ReadFile(filepath.Join(l.ceph(), "keys", "client."+name+".keyring"))
		m := regexp.MustCompile(`key\s*=\s*(\S+)`).FindSubmatch(keyring)
		if err != nil || m == nil {
			l.t.Fatalf("keyring of %s: %v", name, err)
		}
		return handover.User{User: name, Key: string(m[1])}
	}
	data, err := json.Marshal(handover.Cluster{
		FSID: setting("fsid"), Monitors: []string{setting("mon host")}, Provisioner: user("hf-csi-provisioner"), Node: user("hf-csi-node"),
	})
	if err == nil {
		err = os.WriteFile(filepath.Join(l.dir, "cluster.json"), data, 0o600)
	}
	if err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) argv(suite, run string) []string {
	return []string{suite, "-test.v", "-test.timeout=5m", "-test.run", run}
}

func (l *lab) env() []string {
	return []string{handover.Variable + "=" + filepath.Join(l.dir, "cluster.json"), handover.Keep + "=" + l.dir}
}

// passes waits for the guest and shows what its tests say.
func (l *lab) passes(t *testing.T, ctx context.Context, g *uml.Guest) {
	t.Helper()
	output, code, err := g.Wait(ctx)
	var verdicts []string
	for _, line := range strings.Split(output, "\n") {
		if strings.Contains(line, "--- ") {
			verdicts = append(verdicts, line)
		}
	}
	t.Logf("in the guest:\n%s", strings.Join(verdicts, "\n"))
	if err != nil || code != 0 || strings.Contains(output, "--- SKIP") {
		t.Fatalf("in the guest: exit code %d, %v\n%s", code, err, output)
	}
}
