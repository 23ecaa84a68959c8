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
}

// NewMetrics returns metrics in a registry of their own, with those of process and runtime.
func NewMetrics(version string) *Metrics {
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
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "holdfast_build_info", Help: "The version that runs.", ConstLabels: prometheus.Labels{"version": version},
	})
	info.Set(1)
	m.registry.MustRegister(m.calls, m.latency, m.inFlight, m.attach, m.mkfs, info,
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

// Serve answers /metrics and /healthz on address ("host:port" or "unix:///path")
// until ctx ends. healthy is asked for each /healthz.
func (m *Metrics) Serve(ctx context.Context, address string, healthy func(context.Context) error) error {
	listener, err := listenHTTP(ctx, address)
	if err != nil {
		return fmt.Errorf("listen for metrics on %s: %w", address, err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		if err := healthy(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
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
