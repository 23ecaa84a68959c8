package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/tests/kube/node"
)

// Conformance says which of Kubernetes' own storage specs (k8s.io/kubernetes test/e2e, "External
// Storage") to run against both drivers.
type Conformance struct {
	Focus []string // regular expressions over a spec's full text, any of which must match; none: all
	Procs int      // specs at a time
}

// notHere are the specs that cannot be run on this cluster, each with the reason. What a driver
// does not claim (tests/kube/conformance/*.yaml) the specs skip by themselves.
var notHere = []struct{ specs, why string }{
	{`\[Feature:Windows\]`, "there are no Windows nodes"},
	{`\[Disruptive\]`, "they stop kubelet through SSH and systemd, which these nodes have none of (tests/kube stops it by itself)"},
	{`\[Feature:SELinux\]`, "the nodes have no SELinux"},
	{`\[Feature:volumegroupsnapshot\]`, "groups are not announced (README.md says why)"},
	{`any volume data source`, "volume populators are a matter of two programs of Kubernetes that are not built here, not of the driver"},
	{`\[Feature:snapshotmetadata\]`, "their pods fetch and compile a program from the network, which these nodes have none of"},
}

// SpecResult is what became of one spec.
type SpecResult struct {
	Name    string
	State   string // passed, skipped, failed, or one of ginkgo's other words for failed
	Message string // why it was skipped or failed
	Took    time.Duration
}

// Failed says whether the spec ran and did not pass.
func (s SpecResult) Failed() bool { return s.State != "passed" && s.State != "skipped" }

// Conformance runs the specs to their end and returns what became of each that was selected. Their
// output goes to log/conformance.log.
func (c *Cluster) Conformance(ctx context.Context, run Conformance) ([]SpecResult, error) {
	if err := c.BuildConformance(ctx); err != nil {
		return nil, err
	}
	if err := c.importConformanceImages(ctx); err != nil {
		return nil, err
	}
	report := filepath.Join(c.logDir(), "conformance.json")
	if err := os.Remove(report); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove an old report: %w", err)
	}
	failed := c.runGinkgo(ctx, c.conformanceCommand(run))
	results, err := readReport(report)
	if err != nil {
		return nil, errors.Join(failed, err)
	}
	if failed != nil && !slices.ContainsFunc(results, SpecResult.Failed) {
		return results, failed
	}
	return results, nil
}

// conformanceCommand is ginkgo with the compiled specs, in node-a's network.
func (c *Cluster) conformanceCommand(run Conformance) []string {
	argv := []string{
		"nsenter", "--net=/run/netns/" + namespaceA, "--", c.conformanceProgram("ginkgo"), "--no-color", "--silence-skips",
		"--procs=" + strconv.Itoa(max(run.Procs, 1)), "--timeout=24h", "--output-dir=" + c.logDir(), "--json-report=conformance.json",
	}
	focus := "External.Storage"
	if len(run.Focus) > 0 {
		focus += ".*(" + strings.Join(run.Focus, "|") + ")"
	}
	argv = append(argv, "--focus="+focus)
	for _, skip := range notHere {
		argv = append(argv, "--skip="+skip.specs)
	}
	argv = append(argv, c.conformanceProgram("e2e.test"), "--",
		"--kubeconfig="+c.pki("admin.kubeconfig"), "--kubectl-path="+c.program("kubectl"), "--provider=skeleton", "--disable-log-dump")
	for _, driver := range []string{"rbd", "cephfs"} {
		argv = append(argv, "--storage.testdriver="+filepath.Join(c.Repo, "tests/kube/conformance", driver+".yaml"))
	}
	return argv
}

// runGinkgo runs it with its output in a file. When ctx ends, ginkgo is asked to stop, so that its
// specs clean up; it returns when all of them have ended.
func (c *Cluster) runGinkgo(ctx context.Context, argv []string) error {
	path := filepath.Join(c.logDir(), "conformance.log")
	log, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("create log of the specs: %w", err)
	}
	defer log.Close()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, c.logDir()
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = time.Minute
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("run the specs (see %s): %w", path, err)
	}
	return nil
}

// readReport reads ginkgo's JSON report: the specs that were selected.
func readReport(path string) ([]SpecResult, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read report of the specs: %w", err)
	}
	// github.com/onsi/ginkgo/v2/types: Report and SpecReport.
	var reports []struct {
		SpecReports []struct {
			ContainerHierarchyTexts []string
			LeafNodeType            string
			LeafNodeText            string
			State                   string
			RunTime                 time.Duration
			Failure                 struct{ Message string }
		}
	}
	if err := json.Unmarshal(data, &reports); err != nil {
		return nil, fmt.Errorf("decode report of the specs: %w", err)
	}
	var results []SpecResult
	for _, report := range reports {
		for _, spec := range report.SpecReports {
			if spec.State == "skipped" && spec.Failure.Message == "" {
				continue // by focus or skip: it did not begin
			}
			if spec.LeafNodeType != "It" && spec.State == "passed" {
				continue // of the suite as a whole
			}
			name := strings.Join(append(spec.ContainerHierarchyTexts, spec.LeafNodeText), " ")
			results = append(results, SpecResult{Name: strings.TrimSpace(name), State: spec.State, Message: spec.Failure.Message, Took: spec.RunTime})
		}
	}
	return results, nil
}

// importImage imports an archive into a running node's containerd.
func (c *Cluster) importImage(ctx context.Context, name, image string) error {
	pid, err := c.NodeProcess(name)
	if err != nil {
		return err
	}
	_, err = c.Runner.Run(ctx, command.Cmd{Name: "nsenter", Args: []string{
		"--target", strconv.Itoa(pid), "--mount", "--", "ctr", "--address", node.Socket, "--namespace", "k8s.io", "images", "import", image,
	}})
	if err != nil {
		return fmt.Errorf("import image %s into %s: %w", filepath.Base(image), name, err)
	}
	return nil
}
