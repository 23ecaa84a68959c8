// Package sanity runs the CSI project's conformance suite, csi-sanity, against both
// drivers on the real Ceph cluster: once against a service that stays up, once with
// controller and node service killed and started anew before every single call.
package sanity

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/holdfast-storage/holdfast/tests/realceph"
	"github.com/holdfast-storage/holdfast/tests/services"
)

// binaries are the suites: the one for the spec that Kubernetes 1.36 speaks (v1.12.0),
// and the newest (spec v1.13.0). tests/run.sh builds them and says where they are.
var binaries = map[string]string{
	"v5.4.0": "HOLDFAST_CSI_SANITY",
	"v5.6.0": "HOLDFAST_CSI_SANITY_NEXT",
}

// notAnnounced matches name and message of the specs that csi-sanity skips because the
// capability is not announced (README: "What csi-sanity skips"). Any other skip fails.
var notAnnounced = regexp.MustCompile(`(?i)modify ?volume|GroupController|GroupSnapshot|GetSnapshot|SNAPSHOT_ACCESSIBILITY|StorageHealth|VolumeHealth|readonly field not supported|testnodevolumeattachlimit not enabled`)

// leastPassed is how many specs pass with the capabilities announced now.
const leastPassed = 76

func TestDriversPassCSISanity(t *testing.T) {
	cluster := realceph.Need(t)
	for version, variable := range binaries {
		for _, driver := range []string{"rbd", "cephfs"} {
			t.Run(version+"/"+driver, func(t *testing.T) {
				s := services.Start(t, cluster, services.Options{Attach: true})
				runSuite(t, cluster, variable, driver, s.Socket(driver))
			})
		}
	}
}

func TestDriversPassCSISanityWithServicesKilledBeforeEveryCall(t *testing.T) {
	cluster := realceph.Need(t)
	for version, variable := range binaries {
		for _, driver := range []string{"rbd", "cephfs"} {
			t.Run(version+"/"+driver, func(t *testing.T) {
				s := services.Start(t, cluster, services.Options{Attach: true})
				proxy := startProxy(t, s, driver)
				runSuite(t, cluster, variable, driver, proxy.socket)
				t.Logf("services killed %d times", proxy.calls.Load())
			})
		}
	}
}

func runSuite(t *testing.T, cluster realceph.Cluster, variable, driver, socket string) {
	t.Helper()
	binary := os.Getenv(variable)
	if binary == "" {
		realceph.Missing(t, variable+" does not name a csi-sanity binary: run `make test`")
	}
	for attempt := 1; ; attempt++ {
		report, out, err := runOnce(t, cluster, binary, driver, socket)
		if err == nil {
			checkReport(t, report)
			return
		}
		if attempt == 3 || !strings.Contains(out, lostRace) {
			t.Fatalf("csi-sanity: %v\n%s", err, out)
		}
		t.Log("csi-sanity did not notice that it was connected: run anew")
	}
}

// lostRace is what csi-sanity says when it was connected before it looked: its utils.Connect asks for the connection's state and waits
// for a change of it, which never comes if the state was READY already.
const lostRace = "Connection timed out"

// runOnce runs a suite and returns the path of its report, and what it printed.
func runOnce(t *testing.T, cluster realceph.Cluster, binary, driver, socket string) (report, printed string, err error) {
	t.Helper()
	dir := t.TempDir()
	report = filepath.Join(dir, "report.xml")
	files := filepath.Join(cluster.Dir, "csi")
	cmd := exec.CommandContext(t.Context(), binary, "--csi.endpoint="+socket,
		"--csi.secrets="+filepath.Join(files, "secrets.yaml"),
		"--csi.testvolumeparameters="+filepath.Join(files, driver+"-params.yaml"),
		"--csi.testsnapshotparameters="+filepath.Join(files, "snapshot-params.yaml"),
		"--csi.mountdir="+filepath.Join(dir, "mount"), "--csi.stagingdir="+filepath.Join(dir, "stage"),
		"--csi.junitfile="+report, "--ginkgo.no-color")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	return report, out.String(), err
}

// checkReport fails on a skip that is not by a capability left out.
func checkReport(t *testing.T, path string) {
	t.Helper()
	suite := readReport(t, path)
	passed, skipped := 0, 0
	for _, c := range suite {
		switch {
		case c.Skipped == nil:
			passed++
		case notAnnounced.MatchString(c.Name + " " + c.Skipped.Message):
			skipped++
		case strings.Contains(c.Skipped.Message, "pending") || c.Status == "pending":
			skipped++
		default:
			t.Errorf("skipped without a reason that the README gives: %s (%s)", c.Name, c.Skipped.Message)
		}
	}
	t.Logf("%d specs passed, %d skipped for capabilities not announced", passed, skipped)
	if passed < leastPassed {
		t.Errorf("only %d specs passed, want %d at least", passed, leastPassed)
	}
}
