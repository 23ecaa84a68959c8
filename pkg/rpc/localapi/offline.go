package localapi

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/obs/codes"
)

// Offline tells, from the directory and the process table alone, how a cluster is that
// has no supervisor. fault.NotFound: the directory holds no cluster.
func Offline(dir string) (*Status, error) {
	id, err := ReadIdentity(dir)
	if err != nil {
		return nil, err
	}
	s := &Status{
		Health: HealthUnknown, State: StateDown, FSID: id.FSID, DataDir: dir,
		CephConf: filepath.Join(dir, "ceph.conf"),
		CSI:      CSI{RBDSocket: filepath.Join(dir, "csi", "rbd.sock"), CephFSSocket: filepath.Join(dir, "csi", "cephfs.sock"), Dir: filepath.Join(dir, "csi")},
		Pools:    []Pool{}, OSDs: OSDs{List: []OSD{}}, Daemons: []Daemon{},
		Volumes: Volumes{RBD: -1, CephFS: -1}, ObservedAt: time.Now(), AgeSeconds: -1,
	}
	if _, _, err := net.SplitHostPort(id.Listen); err == nil {
		s.MetricsURL = "http://" + id.Listen + "/metrics"
	}
	up := "holdfast up --data-dir " + dir
	if n := running(dir); n > 0 {
		s.State = StateUnsupervised
		s.Checks = []Check{{
			Code: string(codes.SupervisorDown), Severity: HealthWarn, Action: up,
			Message: strconv.Itoa(n) + " daemons run without a supervisor: nobody restarts them, and their state is not known",
		}}
		s.Verdict = Verdict{Data: "unknown", Writes: "probably work", Spare: "unknown", Next: up}
		return s, nil
	}
	s.Checks = []Check{{Code: string(codes.ClusterDown), Severity: HealthUnknown, Message: "the cluster is not running", Action: up}}
	s.Verdict = Verdict{Data: "on disk, untouched since the cluster ended", Writes: "impossible: nothing runs", Spare: "unknown until it runs", Next: up}
	return s, nil
}

// running counts the Ceph daemons that use the cluster's ceph.conf.
func running(dir string) int {
	n := 0
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		args := strings.Split(string(data), "\x00")
		if strings.HasPrefix(filepath.Base(args[0]), "ceph-") && strings.Contains(string(data), "\x00"+filepath.Join(dir, "ceph.conf")+"\x00") {
			n++
		}
	}
	return n
}
