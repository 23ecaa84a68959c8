package kube

import (
	"context"
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/disk"
	"github.com/holdfast-storage/holdfast/pkg/rpc/agentapi"
	"github.com/holdfast-storage/holdfast/pkg/storage"
	"github.com/holdfast-storage/holdfast/tests/kube/cluster"
)

// testAgent runs the agent as a DaemonSet and asks the agent of each node for its disks, also after its pod was replaced.
func testAgent(t *testing.T, s *suite) {
	system := space{suite: s, name: cluster.SystemNamespace}
	manifest := filepath.Join(s.cluster.Repo, "deploy", "node", "agent.yaml")
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
		defer cancel()
		if t.Failed() {
			system.explain(ctx, t)
		}
		for _, arguments := range [][]string{
			{"--namespace", system.name, "delete", "--ignore-not-found", "--filename", manifest, "--timeout=110s"}, {"label", "nodes", "--all", "holdfast.io/disks-"},
		} {
			if _, err := s.cluster.Kubectl(ctx, arguments...); err != nil {
				t.Errorf("%v: %v", arguments, err)
			}
		}
	})
	system.kubectl(t, "apply", "--filename", manifest)
	if n := system.kubectl(t, "get", "daemonset", "holdfast-agent", "--output", "jsonpath={.status.desiredNumberScheduled}"); n != "" && n != "0" {
		t.Errorf("%s agents are to run, and no node has the label", n)
	}
	system.kubectl(t, "label", "nodes", "--all", "holdfast.io/disks=true")
	machine := disksHere(t)
	for _, node := range []string{cluster.NodeA, cluster.NodeB} {
		pod := system.agentOn(t, node, "")
		if got := system.agentsDisks(t, pod, node); !slices.Equal(got, machine) {
			t.Errorf("the agent of %s has the disks %v, the machine has %v", node, got, machine)
		}
		system.kubectl(t, "delete", "pod", pod, "--timeout=110s")
		system.agentsDisks(t, system.agentOn(t, node, pod), node)
	}
}

// agentOn waits for a node's agent, another pod than one that was deleted.
func (sp space) agentOn(t *testing.T, node, not string) string {
	t.Helper()
	var pod string
	eventually(t, "the agent of "+node, func() (bool, string) {
		pod = sp.kubectl(t, "get", "pods", "--selector", "app.kubernetes.io/name=holdfast-agent", "--field-selector", "spec.nodeName="+node, "--output", "jsonpath={.items[*].metadata.name}")
		return pod != "" && pod != not && !strings.Contains(pod, " "), pod
	})
	sp.waitReady(t, pod)
	return pod
}

// agentsDisks asks an agent, once it has looked, which disks its node has.
func (sp space) agentsDisks(t *testing.T, pod, node string) []string {
	t.Helper()
	var status agentapi.Status
	ask := func(into any, arguments ...string) {
		t.Helper()
		out := sp.kubectl(t, append([]string{"exec", pod, "--", "holdfast", "--data-dir", "/var/lib/holdfast"}, append(arguments, "--output", "json")...)...)
		if err := json.Unmarshal([]byte(out), into); err != nil {
			t.Fatalf("%v: %v in %s", arguments, err, out)
		}
	}
	eventually(t, "an inventory of "+node, func() (bool, string) {
		ask(&status, "agent", "status")
		return status.Generation > 0 && status.Waiting == "", status.Waiting
	})
	if status.Node != node || len(status.Proposed) > 0 {
		t.Errorf("%s says that it is %q, and proposes %v", node, status.Node, status.Proposed)
	}
	var plans []json.RawMessage
	if ask(&plans, "plan", "--root", "/host", "list"); len(plans) > 0 {
		t.Errorf("%s has plans: %s", node, plans)
	}
	var seen disk.Inventory
	ask(&seen, "disks", "list", "--root", "/host")
	if status.Disks != len(seen.Disks) {
		t.Errorf("the agent of %s has %d disks in its inventory, the command line finds %v", node, status.Disks, names(seen.Disks))
	}
	return names(seen.Disks)
}

// disksHere are the disks of the machine that the nodes run on.
func disksHere(t *testing.T) []string {
	t.Helper()
	found, err := disk.NewScanner(disk.Config{}).Scan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return names(slices.DeleteFunc(found.Disks, func(d storage.Disk) bool { return d.Because(storage.ReasonKind) }))
}

func names(disks []storage.Disk) []string {
	list := []string{}
	for _, d := range disks {
		list = append(list, d.Name)
	}
	slices.Sort(list)
	return list
}
