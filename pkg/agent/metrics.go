package agent

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/rpc/unixhttp"
	"github.com/holdfast-storage/holdfast/pkg/smart"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// The metrics of the agent. States are one-hot.
var (
	descInfo       = describe("holdfast_agent_info", "The agent that runs.", "node", "version")
	descGeneration = describe("holdfast_disks_generation", "Grows with every change of the node's disks.")
	descScanned    = describe("holdfast_disks_scanned_timestamp_seconds", "When the last full scan of the disks ended.")
	descDisks      = describe("holdfast_disks", "Disks of the node, by whether they are free.", "state")
	descHealth     = describe("holdfast_disk_health", "1 for the state of health that a disk is in.", "disk", "state")
	descSMART      = describe("holdfast_disk_smart", "What a disk tells of itself: celsius, hours, sectors, errors, percent.", "disk", "attribute")
	descRaw        = describe("holdfast_disk_smart_raw", "Raw values of ATA's table.", "disk", "id", "name")
	descArray      = describe("holdfast_array_state", "1 for the state that a stack's array is in: clean, degraded, down.", "stack", "array", "state")
	descSync       = describe("holdfast_array_sync_percent", "How far md is with what it does to an array.", "stack", "array", "action")
	descMismatch   = describe("holdfast_array_mismatch_sectors", "What the last scrub of an array found unequal.", "stack", "array")
	descPlan       = describe("holdfast_plan_state", "1 for the phase that a plan is in, of those that have not come to their end.", "plan", "subject", "state")
	descProgress   = describe("holdfast_plan_step_percent", "How far the step of a plan that runs is.", "plan", "step")
	descForecast   = describe("holdfast_plan_forecast_seconds", "What is left of a plan.", "plan")
	descCheck      = describe("holdfast_agent_check", "How many things of a code are wrong now.", "code", "severity")
)

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

// collector makes metrics of what is known when they are asked for.
type collector struct {
	agent *Agent
	sight func() Sight
}

var _ prometheus.Collector = collector{}

// Describe implements prometheus.Collector. It tells nothing: which labels there are depends on the machine.
func (collector) Describe(chan<- *prometheus.Desc) {}

// gauges sends values of metrics.
type gauges chan<- prometheus.Metric

func (g gauges) set(d *prometheus.Desc, value float64, labels ...string) {
	g <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
}

// oneHot sets 1 for the state that is, and 0 for the others.
func (g gauges) oneHot(d *prometheus.Desc, is string, states []string, labels ...string) {
	for _, s := range states {
		value := 0.0
		if s == is {
			value = 1
		}
		g.set(d, value, append(append([]string(nil), labels...), s)...)
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	g := gauges(out)
	g.set(descInfo, 1, c.agent.Node, c.agent.Version)
	s := c.sight()
	g.disks(s)
	g.arrays(s)
	list, err := c.agent.Ledger.List()
	if err != nil {
		out <- prometheus.NewInvalidMetric(descPlan, err)
		return
	}
	for _, e := range list {
		g.plan(c.agent.view(e).Status, e.Plan.Subject)
	}
	type key struct{ code, severity string }
	count := map[key]float64{}
	for _, check := range c.agent.checks(list) {
		count[key{check.Code, check.Severity}]++
	}
	for k, n := range count {
		g.set(descCheck, n, k.code, k.severity)
	}
}

func (g gauges) disks(s Sight) {
	if s.Inventory.Generation == 0 {
		return // nothing is known, which is not the same as none
	}
	g.set(descGeneration, float64(s.Inventory.Generation))
	g.set(descScanned, float64(s.Inventory.Scanned.Unix()))
	count := map[string]float64{"free": 0, "used": 0}
	for _, d := range s.Inventory.Disks {
		switch {
		case d.Because(storage.ReasonKind):
		case d.Free():
			count["free"]++
		default:
			count["used"]++
		}
	}
	for state, n := range count {
		g.set(descDisks, n, state)
	}
	for id, h := range s.Health {
		g.health(string(id), h)
	}
}

// health leaves out what the disk does not tell.
func (g gauges) health(id string, h smart.Health) {
	g.oneHot(descHealth, string(h.State), []string{string(smart.Good), string(smart.Worn), string(smart.Failing), string(smart.Asleep), string(smart.Unknown)}, id)
	for name, value := range map[string]int64{
		"temperature_celsius": h.Temperature, "power_on_hours": h.PowerOnHours, "reallocated_sectors": h.Reallocated, "pending_sectors": h.Pending,
		"uncorrectable_errors": h.Uncorrectable, "used_percent": h.Used, "available_spare_percent": h.Spare,
	} {
		if value >= 0 {
			g.set(descSMART, float64(value), id, name)
		}
	}
	seen := map[int]bool{}
	for _, a := range h.Attributes {
		if !seen[a.ID] {
			g.set(descRaw, float64(a.Raw), id, strconv.Itoa(a.ID), a.Name)
		}
		seen[a.ID] = true
	}
}

func (g gauges) arrays(s Sight) {
	for _, a := range s.Arrays {
		state := "clean"
		switch {
		case !a.Runs:
			state = "down"
		case a.Array.Degraded > 0:
			state = "degraded"
		}
		g.oneHot(descArray, state, []string{"clean", "degraded", "down"}, a.Stack, a.Name)
		if !a.Runs {
			continue
		}
		g.set(descMismatch, float64(a.Array.Mismatches), a.Stack, a.Name)
		if a.Array.Total > 0 {
			g.set(descSync, 100*float64(a.Array.Done)/float64(a.Array.Total), a.Stack, a.Name, a.Array.Action)
		}
	}
}

func (g gauges) plan(s executor.Status, subject string) {
	if s.Phase.Final() {
		return
	}
	id := string(s.Plan)
	var phases []string
	for _, p := range []executor.Phase{executor.Proposed, executor.Waiting, executor.Running, executor.Failed, executor.Ended, executor.Held} {
		phases = append(phases, string(p))
	}
	g.oneHot(descPlan, string(s.Phase), phases, id, subject)
	g.set(descForecast, float64(s.Forecast), id)
	if s.Progress.Total > 0 {
		g.set(descProgress, 100*float64(s.Progress.Done)/float64(s.Progress.Total), id, strconv.Itoa(s.Step+1))
	}
}

// ListenMetrics listens on a loopback address, of which others on the network see nothing. fault.Invalid for any other.
func ListenMetrics(ctx context.Context, address string) (net.Listener, error) {
	return unixhttp.Loopback(ctx, address)
}

// ServeMetrics answers /metrics and /healthz until ctx ends.
func (a *Agent) ServeMetrics(ctx context.Context, listener net.Listener, sight func() Sight) error {
	return unixhttp.Serve(ctx, listener, a.MetricsHandler(sight))
}

// MetricsHandler answers /metrics and /healthz, which says that the process answers.
func (a *Agent) MetricsHandler(sight func() Sight) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector{a, sight})
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	return mux
}
