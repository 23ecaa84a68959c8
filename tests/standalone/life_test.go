package standalone

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/pkg/rpc/localapi"
)

// TestLife goes through the life of one cluster. The order matters, so it is one test.
func TestLife(t *testing.T) {
	c := newCluster(t)
	started := time.Now()
	said := c.must(small...)
	t.Logf("up in %s", time.Since(started).Round(100*time.Millisecond))
	st := requireHealthy(t, c)
	if st.OSDs.Up != 3 || st.CephConf != filepath.Join(c.dir, "ceph.conf") || st.FSID == "" {
		t.Fatalf("unexpected status: %+v", st)
	}
	if hint := "next:    holdfast --data-dir " + c.dir + " volume create --help"; !strings.Contains(said, hint) || strings.Contains(said, "\r") {
		t.Errorf("up lacks %q, or is not plain lines:\n%q", hint, said)
	}
	c.put("kept", "first")

	t.Run("status counts volumes and answers the four questions", func(t *testing.T) {
		v := c.await("volumes are counted", func(st *localapi.Status) bool { return st.Volumes.RBD == 0 && st.Volumes.CephFS == 0 })
		if !strings.HasPrefix(v.Verdict.Data, "safe") || v.Verdict.Writes != "work" || v.Verdict.Next != "" {
			t.Errorf("verdict: %+v", v.Verdict)
		}
	})
	t.Run("metrics and health are served on loopback", func(t *testing.T) { testHTTP(t, st) })
	t.Run("a second up says that it runs", func(t *testing.T) {
		if out := c.must("up"); !strings.Contains(out, "already up") {
			t.Error(out)
		}
	})
	t.Run("a killed OSD is restarted", func(t *testing.T) { testOSDKilled(t, c) })
	t.Run("a killed supervisor finds its daemons again", func(t *testing.T) { testSupervisorKilled(t, c) })
	t.Run("down stops everything and up brings the data and the users' rights back", func(t *testing.T) {
		rights := c.rights()
		for _, user := range []string{"client.hf-csi-provisioner", "client.hf-csi-node"} { // as an older version left them
			if out, err := c.as("admin", "ceph", "auth", "caps", user, "mon", "allow r"); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
		}
		c.must("down")
		if left := c.left(); len(left) > 0 {
			t.Fatalf("still running: %v", left)
		}
		if st := c.status(); st.State != localapi.StateDown || !check(st, "HF-CLUSTER-DOWN") {
			t.Errorf("status: %+v", st)
		}
		c.must("up")
		requireHealthy(t, c)
		if got := c.get("kept"); got != "first" {
			t.Errorf("read %q", got)
		}
		if after := c.rights(); after != rights {
			t.Errorf("rights were\n%s\nand are\n%s", rights, after)
		}
	})
	t.Run("kill -9 of everything loses nothing", func(t *testing.T) {
		c.put("kept", "second")
		c.killAll()
		c.must("up")
		if after := requireHealthy(t, c); after.FSID != st.FSID {
			t.Errorf("fsid %s became %s", st.FSID, after.FSID)
		}
		if got := c.get("kept"); got != "second" {
			t.Errorf("read %q", got)
		}
	})
	t.Run("users can do what they need and nothing more", func(t *testing.T) { testCaps(t, c) })
	t.Run("keys are neither in a command line nor in a log", func(t *testing.T) { testNoSecrets(t, c) })
	t.Run("options of a cluster cannot be changed", func(t *testing.T) {
		c.must("down")
		c.refused([]string{"--osds 5", "made with 3"}, "up", "--osds", "5")
	})
	t.Run("a cluster that lost an OSD's store is not papered over", func(t *testing.T) {
		osd := filepath.Join(c.dir, "osd.1")
		if err := os.Rename(osd, osd+".away"); err != nil {
			t.Fatal(err)
		}
		c.refused([]string{"parts of the cluster are gone", osd}, "up")
		if err := os.Rename(osd+".away", osd); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("wipe asks first and then leaves nothing", func(t *testing.T) {
		c.refused([]string{"--yes", st.FSID}, "down", "--wipe")
		c.must("down", "--wipe", "--yes")
		if _, err := os.Stat(c.dir); !os.IsNotExist(err) {
			t.Errorf("the directory is still there: %v", err)
		}
	})
}

func testHTTP(t *testing.T, st *localapi.Status) {
	get := func(url string) (int, string) {
		response, err := http.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response.StatusCode, string(body)
	}
	_, body := get(st.MetricsURL)
	for _, want := range []string{`holdfast_cluster_health{state="HEALTH_OK"} 1`, `holdfast_osd_up{osd="2"} 1`, `holdfast_daemon_restarts_total{daemon="mon.a"} 0`, "holdfast_csi_scrape_up 1"} {
		if !strings.Contains(body, want) {
			t.Errorf("metrics lack %s:\n%.2000s", want, body)
		}
	}
	if code, body := get(strings.Replace(st.MetricsURL, "/metrics", "/healthz", 1)); code != http.StatusOK {
		t.Errorf("healthz: %d %s", code, body)
	}
}

func testOSDKilled(t *testing.T, c *cluster) {
	old := daemonNamed(c.status(), "osd.1")
	if err := unix.Kill(old.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	st := c.await("osd.1 is back", func(st *localapi.Status) bool {
		d := daemonNamed(st, "osd.1")
		return healthy(st) && d.State == localapi.DaemonRunning && d.PID != old.PID && st.OSDs.Up == 3
	})
	if d := daemonNamed(st, "osd.1"); d.Restarts != 1 || !strings.Contains(d.LastExit, "killed") {
		t.Errorf("osd.1: %+v", d)
	}
}

func testSupervisorKilled(t *testing.T, c *cluster) {
	before := c.status()
	if err := unix.Kill(c.supervisor(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	st := c.await("the supervisor is gone", func(st *localapi.Status) bool { return st.State == localapi.StateUnsupervised })
	if !check(st, "HF-SUPERVISOR-DOWN") {
		t.Errorf("checks: %+v", st.Checks)
	}
	c.must("up")
	after := requireHealthy(t, c)
	for _, d := range before.Daemons {
		if now := daemonNamed(after, d.Name); now.PID != d.PID || !now.Adopted {
			t.Errorf("%s was %d, is %+v", d.Name, d.PID, now)
		}
	}
	// an adopted daemon is watched like any other
	old := daemonNamed(after, "mds.a")
	if err := unix.Kill(old.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	c.await("mds.a is back", func(st *localapi.Status) bool {
		d := daemonNamed(st, "mds.a")
		return healthy(st) && d.State == localapi.DaemonRunning && d.PID != old.PID
	})
}

func testNoSecrets(t *testing.T, c *cluster) {
	var keys []string
	files, _ := filepath.Glob(filepath.Join(c.dir, "keys", "*.keyring"))
	for _, file := range files {
		info, err := os.Stat(file)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", file, info.Mode(), err)
		}
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if _, key, found := strings.Cut(string(data), "key = "); found {
			keys = append(keys, strings.TrimSpace(strings.SplitN(key, "\n", 2)[0]))
		}
	}
	if len(keys) < 8 {
		t.Fatalf("found %d keys", len(keys))
	}
	texts := map[string]string{}
	for _, line := range c.pids() {
		texts[line] = line
	}
	for _, pattern := range []string{"log/*", "cluster.json", "ceph.conf", "csi/*-params.yaml", "csi/config.json"} {
		files, _ := filepath.Glob(filepath.Join(c.dir, pattern))
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			texts[file] = string(data)
		}
	}
	for name, text := range texts {
		for _, key := range keys {
			if strings.Contains(text, key) {
				t.Errorf("a key stands in %s", name)
			}
		}
	}
}
