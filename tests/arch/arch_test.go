// Package arch holds the rules of who may import whom. Imports point down only; two
// packages of one layer may meet where the table of neighbours says so.
package arch

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/holdfast-storage/holdfast/"

// layers, from the top. Every package of the module has a place; images and tests are
// outside of it (they may import anything and nothing may import them).
var layers = [][]string{
	{"cmd/holdfast", "cmd/holdfastd"},
	// Services. They talk to each other over sockets, never by import.
	{"csi/admin", "csi/controller", "csi/identity", "csi/node", "pkg/agent", "pkg/agent/uplink", "pkg/cli", "pkg/coordinator", "pkg/standalone"},
	// Drivers, which combine adapters.
	{"csi/attach", "csi/cephfs", "csi/imageio", "csi/rbd", "csi/registration", "pkg/ledger", "pkg/machine", "pkg/osd", "pkg/pools", "pkg/rebalance", "pkg/stack/live"},
	// Adapters, each of which wraps one outside thing.
	{"csi/attach/keeper", "csi/clustermap", "csi/fence", "csi/journal", "csi/kms", "csi/luks", "csi/nodelabels", "csi/record", "csi/server", "pkg/ceph", "pkg/ceph/native", "pkg/certs", "pkg/command", "pkg/coordinator/raftnode", "pkg/csiclient", "pkg/daemon", "pkg/disk", "pkg/durable", "pkg/executor/journal", "pkg/filesystem", "pkg/gpt", "pkg/lvm", "pkg/md", "pkg/obs", "pkg/partition/edit", "pkg/rpc/agentapi", "pkg/rpc/coordinatorapi", "pkg/rpc/coordinatorapi/coordinatorv1", "pkg/rpc/localapi", "pkg/rpc/unixhttp", "pkg/rpc/volumeapi", "pkg/smart", "pkg/vdisk", "pkg/vdisk/inside", "pkg/vdisk/qcow2", "pkg/vdisk/raw", "pkg/vdisk/transfer", "pkg/vdisk/vdi", "pkg/vdisk/vmdk"},
	// Pure: no files, no network, no clock, no chance.
	{"csi/capability", "csi/parameter", "csi/topology", "csi/volumeid", "pkg/coordinator/fsm", "pkg/crush", "pkg/disk/signature", "pkg/executor", "pkg/flight", "pkg/keylock", "pkg/layout", "pkg/obs/codes", "pkg/partition", "pkg/placement", "pkg/placement/osdmap", "pkg/plan", "pkg/poll", "pkg/stack", "pkg/vdisk/content"},
	// The domain.
	{"pkg/fault", "pkg/storage"},
}

const (
	pureLayer   = 4
	domainLayer = 5
)

// neighbours may be imported from within their own layer, by the packages named, or
// by all ("*").
var neighbours = map[string][]string{
	"pkg/ceph":    {"csi/clustermap", "csi/fence", "csi/journal", "csi/record", "pkg/ceph/native"},
	"csi/kms":     {"csi/clustermap", "csi/record"},
	"csi/journal": {"csi/clustermap", "csi/record"},
	"pkg/agent":   {"pkg/agent/uplink"},
	"pkg/command": {"*"},
	"pkg/durable": {"*"},
	"pkg/obs":     {"*"},
	"pkg/keylock": {"pkg/flight"},
	"pkg/certs":   {"pkg/coordinator/raftnode", "pkg/rpc/coordinatorapi"},

	"pkg/rpc/coordinatorapi/coordinatorv1": {"pkg/rpc/coordinatorapi"},
	"pkg/rpc/unixhttp":                     {"pkg/rpc/agentapi", "pkg/rpc/localapi", "pkg/rpc/volumeapi"},

	"pkg/rpc/volumeapi": {"pkg/csiclient", "pkg/rpc/agentapi"},

	"pkg/ledger":     {"pkg/machine"},
	"pkg/osd":        {"pkg/machine"},
	"pkg/stack/live": {"pkg/machine"},

	"pkg/partition/edit":   {"pkg/vdisk/inside"},
	"pkg/vdisk/qcow2":      {"pkg/vdisk"},
	"pkg/vdisk/raw":        {"pkg/vdisk", "pkg/vdisk/inside", "pkg/vdisk/vmdk"},
	"pkg/vdisk/transfer":   {"pkg/vdisk"},
	"pkg/vdisk/vdi":        {"pkg/vdisk"},
	"pkg/vdisk/vmdk":       {"pkg/vdisk"},
	"pkg/crush":            {"pkg/placement", "pkg/placement/osdmap"},
	"pkg/placement/osdmap": {"pkg/placement"},
	"pkg/partition":        {"pkg/disk/signature"},
	"pkg/layout":           {"pkg/stack"},
	"pkg/plan":             {"pkg/coordinator/fsm", "pkg/executor", "pkg/stack"},
	"pkg/executor":         {"pkg/coordinator/fsm"},
}

// outside says who alone may import a module from outside.
var outside = map[string][]string{
	"github.com/ceph/go-ceph":             {"pkg/ceph/native"},
	"github.com/spf13/cobra":              {"cmd/holdfast", "cmd/holdfastd", "pkg/cli"},
	"github.com/prometheus/client_golang": {"csi/server", "pkg/agent", "pkg/coordinator", "pkg/standalone"},
	"os/exec":                             {"pkg/command", "csi/attach/keeper", "pkg/standalone", "pkg/cli"},
	"C":                                   {"pkg/ceph/native"},
	"github.com/hashicorp":                {"pkg/coordinator/raftnode"},
	"github.com/diskfs/go-diskfs":         {"pkg/partition/edit"},
	"github.com/lima-vm/go-qcow2reader":   {"pkg/vdisk/qcow2"},
}

// impure is what pure packages must not import.
var impure = []string{"os", "net", "net/http", "math/rand", "math/rand/v2", "crypto/rand", "os/exec", "io/ioutil"}

type pkg struct {
	ImportPath, Dir string
	Imports         []string
	GoFiles         []string
}

func packages(t *testing.T) map[string]pkg {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Dir,Imports,GoFiles", "./...")
	cmd.Dir = filepath.Join("..", "..")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	all := map[string]pkg{}
	decoder := json.NewDecoder(strings.NewReader(string(out)))
	for decoder.More() {
		var p pkg
		if err := decoder.Decode(&p); err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(p.ImportPath, module)
		if !offLayers(name) && len(p.GoFiles) > 0 {
			all[name] = p
		}
	}
	return all
}

// offLayers are the packages beside the layers: tests, test suites and image tools.
func offLayers(name string) bool {
	return strings.HasPrefix(name, "tests/") || strings.HasPrefix(name, "images/") || strings.HasSuffix(name, "test")
}

func layerOf(name string) int {
	return slices.IndexFunc(layers, func(names []string) bool { return slices.Contains(names, name) })
}

func TestImportsPointDown(t *testing.T) {
	all := packages(t)
	for name, p := range all {
		from := layerOf(name)
		if from < 0 {
			t.Errorf("%s has no layer: give it one in tests/arch", name)
			continue
		}
		for _, path := range p.Imports {
			imported, own := strings.CutPrefix(path, module)
			if !own {
				continue
			}
			to := layerOf(imported)
			switch {
			case offLayers(imported):
				t.Errorf("%s imports %s, which is for tests", name, imported)
			case to > from:
			case to == from && mayMeet(name, imported):
			default:
				t.Errorf("%s imports %s: imports point down only", name, imported)
			}
		}
	}
	for _, names := range layers {
		for _, name := range names {
			if _, ok := all[name]; !ok {
				t.Errorf("the layers name %s, which is not there", name)
			}
		}
	}
}

func mayMeet(from, to string) bool {
	return slices.Contains(neighbours[to], from) || slices.Contains(neighbours[to], "*")
}

func TestOutsideThingsHaveOneDoor(t *testing.T) {
	for name, p := range packages(t) {
		for _, path := range p.Imports {
			for thing, doors := range outside {
				if (path == thing || strings.HasPrefix(path, thing+"/")) && !slices.Contains(doors, name) {
					t.Errorf("%s imports %s: only %v may", name, path, doors)
				}
			}
		}
	}
}

func TestPurePackagesArePure(t *testing.T) {
	for name, p := range packages(t) {
		layer := layerOf(name)
		if layer < pureLayer {
			continue
		}
		for _, path := range p.Imports {
			if slices.Contains(impure, path) {
				t.Errorf("%s is pure and imports %s", name, path)
			}
			if layer == domainLayer && strings.Contains(path, ".") && !strings.HasPrefix(path, "google.golang.org/grpc/") {
				t.Errorf("%s is of the domain and imports %s", name, path)
			}
		}
		for _, file := range p.GoFiles {
			readsClock(t, filepath.Join(p.Dir, file))
		}
	}
}

// readsClock reports calls of time.Now, time.Since and time.Sleep.
func readsClock(t *testing.T, file string) {
	t.Helper()
	tree, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(tree, func(n ast.Node) bool {
		selector, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if x, ok := selector.X.(*ast.Ident); ok && x.Name == "time" && slices.Contains([]string{"Now", "Since", "Until", "Sleep"}, selector.Sel.Name) {
			t.Errorf("%s reads the clock: time.%s", file, selector.Sel.Name)
		}
		return true
	})
}

func TestProductionCodeDoesNotSleep(t *testing.T) {
	for _, p := range packages(t) {
		for _, file := range p.GoFiles {
			path := filepath.Join(p.Dir, file)
			tree, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(tree, func(n ast.Node) bool {
				selector, ok := n.(*ast.SelectorExpr)
				if ok && selector.Sel.Name == "Sleep" {
					t.Errorf("%s sleeps: wait on a timer and the context", path)
				}
				return true
			})
		}
	}
}

func TestEverySuiteIsRun(t *testing.T) {
	script, err := os.ReadFile(filepath.Join("..", "run.sh"))
	if err != nil {
		t.Fatal(err)
	}
	suites, err := filepath.Glob(filepath.Join("..", "*", "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, suite := range suites {
		if name := "./tests/" + filepath.Base(filepath.Dir(suite)); !strings.Contains(string(script), name) {
			t.Errorf("tests/run.sh does not run %s", name)
		}
	}
}
