package main

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/holdfast-storage/holdfast/pkg/daemon"
)

const nodeFiles = "../../deploy/node"

func read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(nodeFiles, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// knows fails the test if the agent does not know one of the flags.
func knows(t *testing.T, args []string) {
	t.Helper()
	cmd := agentCommand()
	cmd.Flags().String("log-format", "", "the root's")
	if err := cmd.ParseFlags(args); err != nil || cmd.Flags().NArg() > 0 {
		t.Errorf("agent %v: %v", args, err)
	}
}

func TestTheUnitIsOneThatSystemdTakes(t *testing.T) {
	unit := read(t, "holdfast-agent.service")
	start := regexp.MustCompile(`(?m)^ExecStart=/usr/local/bin/holdfastd (.*)$`).FindStringSubmatch(unit)
	if start == nil {
		t.Fatal("it starts something else")
	}
	knows(t, strings.Fields(start[1])[1:])
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("needs systemd-analyze: apt-get install systemd")
	}
	program, err := os.Executable() // systemd asks that there is a program
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "holdfast-agent.service")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(unit, "/usr/local/bin/holdfastd", program)), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "systemd-analyze", "verify", "--man=no", file).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("%v: %s", err, out)
	}
	// A mount namespace of its own would hide the file systems that it mounts.
	for _, hides := range []string{"ProtectSystem", "ProtectHome", "PrivateTmp", "PrivateDevices", "ReadOnlyPaths", "InaccessiblePaths", "ProtectKernelTunables", "ProtectControlGroups", "PrivateMounts"} {
		if regexp.MustCompile(`(?m)^` + hides + `=`).MatchString(unit) {
			t.Errorf("%s= gives it mounts of its own", hides)
		}
	}
}

// manifest is what is checked of a Kubernetes object; other fields are not looked at.
type manifest struct {
	Kind     string `json:"kind"`
	Metadata struct {
		Name, Namespace string
	} `json:"metadata"`
	Spec struct {
		Template struct {
			Spec struct {
				HostNetwork                  bool
				HostPID                      bool
				AutomountServiceAccountToken *bool
				NodeSelector                 map[string]string
				Containers                   []struct {
					Command, Args []string
					VolumeMounts  []struct{ Name, MountPath, MountPropagation string }
				}
				Volumes []struct{ Name string }
			}
		}
	} `json:"spec"`
}

func TestTheManifestSaysWhatTheAgentNeeds(t *testing.T) {
	var kinds []string
	for _, text := range strings.Split(read(t, "agent.yaml"), "\n---\n") {
		var m manifest
		if err := yaml.Unmarshal([]byte(text), &m); err != nil {
			t.Fatal(err)
		}
		kinds = append(kinds, m.Kind)
		if m.Metadata.Namespace != "holdfast-system" {
			t.Errorf("%s %s is in namespace %q", m.Kind, m.Metadata.Name, m.Metadata.Namespace)
		}
		if m.Kind != "DaemonSet" {
			continue
		}
		pod := m.Spec.Template.Spec
		if !pod.HostNetwork || !pod.HostPID || pod.AutomountServiceAccountToken == nil || *pod.AutomountServiceAccountToken || len(pod.NodeSelector) == 0 || len(pod.Containers) != 1 {
			t.Errorf("the pod is %+v", pod)
		}
		c := pod.Containers[0]
		if !slices.Equal(c.Command, []string{"holdfastd", "agent"}) {
			t.Errorf("it runs %v", c.Command)
		}
		knows(t, c.Args)
		for _, mount := range c.VolumeMounts {
			if !slices.ContainsFunc(pod.Volumes, func(v struct{ Name string }) bool { return v.Name == mount.Name }) {
				t.Errorf("no volume %s", mount.Name)
			}
			if mount.MountPath == "/mnt/holdfast" && mount.MountPropagation != "Bidirectional" {
				t.Error("the node does not see the file systems")
			}
		}
	}
	if !slices.Equal(kinds, []string{"ServiceAccount", "DaemonSet"}) {
		t.Errorf("it holds %v", kinds)
	}
}

func TestTheCoordinatorsPageGivesTheUserThatUpMakes(t *testing.T) {
	page, err := os.ReadFile("../../deploy/coordinators.md")
	if err != nil {
		t.Fatal(err)
	}
	told := daemon.Caps{}
	for _, m := range regexp.MustCompile(`(?m)^  (mon|mgr|osd|mds) "([^"]*)"`).FindAllStringSubmatch(string(page), -1) {
		told[m[1]] = m[2]
	}
	if !maps.Equal(told, daemon.CoordinatorCaps()) || !strings.Contains(string(page), "get-or-create-key "+daemon.Coordinator+" ") {
		t.Errorf("the page has %v, and %s is made with %v", told, daemon.Coordinator, daemon.CoordinatorCaps())
	}
}
