package standalone

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/rpc/localapi"
)

// exposition collects metrics in Prometheus' text format, version 0.0.4.
type exposition struct{ b strings.Builder }

// family begins a metric; every line of it must follow before the next one begins.
func (x *exposition) family(name, kind, help string) {
	fmt.Fprintf(&x.b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
}

// sample adds a value; labels are pairs of name and value.
func (x *exposition) sample(name string, value float64, labels ...string) {
	x.b.WriteString(name)
	for i := 0; i+1 < len(labels); i += 2 {
		x.b.WriteString(map[bool]string{true: "{", false: ","}[i == 0])
		x.b.WriteString(labels[i] + `="` + labelEscapes.Replace(labels[i+1]) + `"`)
	}
	if len(labels) > 0 {
		x.b.WriteByte('}')
	}
	x.b.WriteString(" " + strconv.FormatFloat(value, 'g', -1, 64) + "\n")
}

var labelEscapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

// metrics writes a status as metrics.
func metrics(st *localapi.Status) string {
	x := &exposition{}
	x.family("holdfast_cluster_info", "gauge", "The cluster.")
	x.sample("holdfast_cluster_info", 1, "fsid", st.FSID, "data_dir", st.DataDir)
	x.family("holdfast_cluster_health", "gauge", "1 for the state that the cluster is in.")
	for _, state := range []string{localapi.HealthOK, localapi.HealthWarn, localapi.HealthErr, localapi.HealthUnknown} {
		x.sample("holdfast_cluster_health", truth(st.Health == state), "state", state)
	}
	x.family("holdfast_cluster_check", "gauge", "1 for each check that is wrong now.")
	seen := map[string]bool{}
	for _, c := range st.Checks {
		if key := c.Code + c.Ceph; !seen[key] {
			seen[key] = true
			x.sample("holdfast_cluster_check", 1, "code", c.Code, "severity", c.Severity, "ceph", c.Ceph)
		}
	}
	x.family("holdfast_cluster_observation_age_seconds", "gauge", "Age of what is known about Ceph; -1: nothing yet.")
	x.sample("holdfast_cluster_observation_age_seconds", st.AgeSeconds)
	x.storage(st)
	x.daemons(st)
	return x.b.String()
}

func (x *exposition) storage(st *localapi.Status) {
	x.family("holdfast_cluster_bytes", "gauge", "Raw capacity of the cluster by use.")
	x.sample("holdfast_cluster_bytes", float64(st.Capacity.Total), "kind", "total")
	x.sample("holdfast_cluster_bytes", float64(st.Capacity.Used), "kind", "used")
	x.sample("holdfast_cluster_bytes", float64(st.Capacity.Avail), "kind", "available")
	x.family("holdfast_host_free_bytes", "gauge", "Free space of the file system below the data directory.")
	x.sample("holdfast_host_free_bytes", float64(st.Capacity.HostFree))
	x.family("holdfast_osd_up", "gauge", "Whether an OSD is up.")
	for _, osd := range st.OSDs.List {
		x.sample("holdfast_osd_up", truth(osd.Up), "osd", strconv.Itoa(osd.ID))
	}
	x.family("holdfast_osd_in", "gauge", "Whether an OSD takes data.")
	for _, osd := range st.OSDs.List {
		x.sample("holdfast_osd_in", truth(osd.In), "osd", strconv.Itoa(osd.ID))
	}
	x.family("holdfast_osd_used_bytes", "gauge", "Used bytes of an OSD.")
	for _, osd := range st.OSDs.List {
		x.sample("holdfast_osd_used_bytes", float64(osd.Used), "osd", strconv.Itoa(osd.ID))
	}
	x.family("holdfast_pool_stored_bytes", "gauge", "What users stored in a pool, before replication.")
	for _, p := range st.Pools {
		x.sample("holdfast_pool_stored_bytes", float64(p.Stored), "pool", p.Name)
	}
	x.family("holdfast_pool_available_bytes", "gauge", "What can still be stored in a pool, before replication.")
	for _, p := range st.Pools {
		x.sample("holdfast_pool_available_bytes", float64(p.MaxAvail), "pool", p.Name)
	}
	x.family("holdfast_volumes", "gauge", "Number of CSI volumes.")
	for driver, count := range map[string]int{"rbd": st.Volumes.RBD, "cephfs": st.Volumes.CephFS} {
		if count >= 0 {
			x.sample("holdfast_volumes", float64(count), "driver", driver)
		}
	}
}

func (x *exposition) daemons(st *localapi.Status) {
	x.family("holdfast_daemon_restarts_total", "counter", "Restarts of a daemon since the supervisor started.")
	for _, d := range st.Daemons {
		x.sample("holdfast_daemon_restarts_total", float64(d.Restarts), "daemon", d.Name)
	}
	x.family("holdfast_daemon_state", "gauge", "1 for the state that a daemon is in.")
	for _, d := range st.Daemons {
		for _, state := range []string{localapi.DaemonRunning, localapi.DaemonBackoff, localapi.DaemonStopped} {
			x.sample("holdfast_daemon_state", truth(d.State == state), "daemon", d.Name, "state", state)
		}
	}
	x.family("holdfast_daemon_uptime_seconds", "gauge", "For how long a daemon has been running.")
	for _, d := range st.Daemons {
		x.sample("holdfast_daemon_uptime_seconds", d.Uptime, "daemon", d.Name)
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

const scrapeLimit = 16 << 20 // bytes of the CSI services' metrics

// scrapeCSI returns the metrics of the CSI services.
func (s *Supervisor) scrapeCSI(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", s.metricsSocket())
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://csi/metrics", nil)
	if err != nil {
		return "", fmt.Errorf("make request: %w", err)
	}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return "", fmt.Errorf("read the CSI services' metrics: %w", err)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(io.LimitReader(response.Body, scrapeLimit))
	if err == nil && response.StatusCode != http.StatusOK {
		err = errors.New(response.Status)
	}
	if err != nil {
		return "", fmt.Errorf("read the CSI services' metrics: %w", err)
	}
	return string(data), nil
}

func (s *Supervisor) handleMetrics(w http.ResponseWriter, r *http.Request) {
	text := metrics(s.Status(r.Context()))
	up := &exposition{}
	if s.state.CSI {
		own, err := s.scrapeCSI(r.Context())
		up.family("holdfast_csi_scrape_up", "gauge", "Whether the CSI services gave their metrics.")
		up.sample("holdfast_csi_scrape_up", truth(err == nil))
		text += up.b.String() + own
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	_, _ = io.WriteString(w, text) // its only error: the client went away
}

// handleHealthz tells whether the cluster can be used: 200, or 503 and why not.
func (s *Supervisor) handleHealthz(w http.ResponseWriter, r *http.Request) {
	st := s.Status(r.Context())
	if st.State != localapi.StateUp || st.Health == localapi.HealthErr || st.Health == localapi.HealthUnknown {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	fmt.Fprintf(w, "%s %s, %s old\n", st.State, st.Health, time.Duration(st.AgeSeconds*float64(time.Second)).Round(time.Second))
}
