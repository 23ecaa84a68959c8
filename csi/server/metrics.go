package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc/codes"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Metrics are what the CSI services count and time.
type Metrics struct {
	registry *prometheus.Registry
	calls    *prometheus.CounterVec
	latency  *prometheus.HistogramVec
	inFlight *prometheus.GaugeVec
	attach   *prometheus.HistogramVec
	mkfs     *prometheus.HistogramVec
	fences   *prometheus.CounterVec

	reclaims       *prometheus.CounterVec
	reclaimedBytes *prometheus.CounterVec
	orphans        *prometheus.GaugeVec
}

// NewMetrics returns metrics in a registry of their own, with those of process and
// runtime. mapError says why the cluster map could not be read the last time.
func NewMetrics(version string, mapError func() error) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "holdfast_csi_calls_total", Help: "CSI calls answered, by driver, method and gRPC code.",
		}, []string{"driver", "method", "code"}),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "holdfast_csi_call_seconds", Help: "How long CSI calls took.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 17), // 1 ms to 65 s
		}, []string{"driver", "method"}),
		inFlight: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "holdfast_csi_calls_in_flight", Help: "CSI calls under way.",
		}, []string{"driver", "method"}),
		attach: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "holdfast_csi_attach_seconds", Help: "How long attaching a volume to the node took, by attacher.",
			Buckets: prometheus.ExponentialBuckets(0.01, 2, 13),
		}, []string{"driver", "attacher", "code"}),
		mkfs: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "holdfast_csi_mkfs_seconds", Help: "How long making a file system took.",
			Buckets: prometheus.ExponentialBuckets(0.01, 2, 13),
		}, []string{"fs", "code"}),
	}
	m.fences = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "holdfast_csi_fences_total", Help: "Nodes that were cut off from a volume (set), and that were let back (lifted).",
	}, []string{"driver", "change"})
	m.reclaims = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "holdfast_csi_reclaims_total", Help: "Volumes whose unused space was given back (trim, sparsify), by gRPC code.",
	}, []string{"driver", "how", "code"})
	m.reclaimedBytes = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "holdfast_csi_reclaimed_bytes_total", Help: "Bytes that file systems trimmed, and that images held less after sparsify.",
	}, []string{"driver", "how"})
	m.orphans = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "holdfast_csi_orphans", Help: "What the last search found that no volume or snapshot has a use for (holdfast volume orphans).",
	}, []string{"driver", "kind"})
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "holdfast_build_info", Help: "The version that runs.", ConstLabels: prometheus.Labels{"version": version},
	})
	info.Set(1)
	stale := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "holdfast_csi_cluster_map_stale", Help: "1 while the cluster map cannot be read and the last good one is in force.",
	}, func() float64 {
		if mapError() != nil {
			return 1
		}
		return 0
	})
	m.registry.MustRegister(m.calls, m.latency, m.inFlight, m.attach, m.mkfs, m.fences, m.reclaims, m.reclaimedBytes, m.orphans, info, stale,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *Metrics) start(driver, method string) func(codes.Code, time.Duration) {
	m.inFlight.WithLabelValues(driver, method).Inc()
	return func(code codes.Code, took time.Duration) {
		m.inFlight.WithLabelValues(driver, method).Dec()
		m.calls.WithLabelValues(driver, method, code.String()).Inc()
		m.latency.WithLabelValues(driver, method).Observe(took.Seconds())
	}
}

// Attached notes an attachment by an attacher ("" when none was found).
func (m *Metrics) Attached(driver storage.Driver, attacher string, took time.Duration, err error) {
	m.attach.WithLabelValues(string(driver), attacher, fault.Code(err).String()).Observe(took.Seconds())
}

// Formatted notes an mkfs.
func (m *Metrics) Formatted(fs string, took time.Duration, err error) {
	m.mkfs.WithLabelValues(fs, fault.Code(err).String()).Observe(took.Seconds())
}

// Fenced notes that a node was cut off from a volume, or that this was lifted.
func (m *Metrics) Fenced(driver storage.Driver, lifted bool) {
	change := "set"
	if lifted {
		change = "lifted"
	}
	m.fences.WithLabelValues(string(driver), change).Inc()
}

// Trimmed notes what a file system gave back.
func (m *Metrics) Trimmed(driver storage.Driver, bytes storage.Bytes, err error) {
	m.Reclaimed(driver, "trim", bytes, err)
}

// Reclaimed notes what a volume gave back to the cluster.
func (m *Metrics) Reclaimed(driver storage.Driver, how string, bytes storage.Bytes, err error) {
	m.reclaims.WithLabelValues(string(driver), how, fault.Code(err).String()).Inc()
	m.reclaimedBytes.WithLabelValues(string(driver), how).Add(float64(bytes))
}

// Orphans notes what a search found.
func (m *Metrics) Orphans(driver storage.Driver, byKind map[string]int) {
	for kind, n := range byKind {
		m.orphans.WithLabelValues(string(driver), kind).Set(float64(n))
	}
}

// Serve answers /metrics and /healthz on address ("host:port" or "unix:///path")
// until ctx ends. /healthz says that the process answers: a cluster that does not, or a
// bad edit of the cluster map, is no reason to kill it.
func (m *Metrics) Serve(ctx context.Context, address string) error {
	listener, err := listenHTTP(ctx, address)
	if err != nil {
		return fmt.Errorf("listen for metrics on %s: %w", address, err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		_ = server.Shutdown(ending)
	})
	err = server.Serve(listener)
	if !stop() {
		<-stopped
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

func listenHTTP(ctx context.Context, address string) (net.Listener, error) {
	if path, isUnix := strings.CutPrefix(address, "unix://"); isUnix {
		return ListenUnix(ctx, path)
	}
	return (&net.ListenConfig{}).Listen(ctx, "tcp", address)
}
