package kube

import (
	"os"
	"testing"

	"github.com/holdfast-storage/holdfast/tests/kube/cluster"
)

// quickSpecs are those of Kubernetes' own storage specs that show most of what our own cases do
// not, in little time. HOLDFAST_CONFORMANCE=all runs all of them; another value is a focus.
var quickSpecs = []string{
	`Dynamic PV \(default fs\)\] volumes should allow exec`,
	`Dynamic PV \(default fs\)\] subPath should support file as subpath`,
	`Dynamic PV \(default fs\)\] fsgroupchangepolicy \(OnRootMismatch\)\[LinuxOnly\], pod created with an initial fsgroup, new pod fsgroup applied`,
	`Generic Ephemeral-volume \(default fs\) \(late-binding\)\] ephemeral should create read/write inline`,
	`Pre-provisioned Snapshot \(retain policy\)\] .*\(persistent\)`,
}

// testConformance runs Kubernetes' own storage specs against both drivers.
func testConformance(t *testing.T, s *suite) {
	run := cluster.Conformance{Focus: quickSpecs, Procs: 4}
	switch focus := os.Getenv("HOLDFAST_CONFORMANCE"); focus {
	case "":
	case "all":
		run.Focus = nil
	default:
		run.Focus = []string{focus}
	}
	results, err := s.cluster.Conformance(t.Context(), run)
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for _, spec := range results {
		count[spec.State]++
		t.Logf("%-8s %5.0f s  %s", spec.State, spec.Took.Seconds(), spec.Name)
		if spec.State == "skipped" {
			t.Logf("         because %s", spec.Message)
		}
		if spec.Failed() {
			t.Errorf("%s: %s", spec.Name, spec.Message)
		}
	}
	t.Logf("specs by what became of them: %v", count)
	if count["passed"] == 0 {
		t.Error("no spec passed: the focus selects none")
	}
}
