package coordinator

import (
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/holdfast-storage/holdfast/pkg/coordinator/fsm"
	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/plan"
)

// The metrics of a coordinator. States are one-hot.
var (
	descInfo     = describe("holdfast_coordinator_info", "The coordinator that runs.", "member")
	descState    = describe("holdfast_raft_state", "1 for the state that this member is in.", "state")
	descTerm     = describe("holdfast_raft_term", "The newest term that this member knows.")
	descCommit   = describe("holdfast_raft_commit_index", "The newest entry of the log that a majority has, as this member knows.")
	descLag      = describe("holdfast_raft_apply_lag_entries", "Entries that a majority has and this member's state does not show yet.")
	descContact  = describe("holdfast_raft_leader_contact_seconds", "How long ago this member heard of its leader.")
	descMembers  = describe("holdfast_raft_members", "Members of the configuration.")
	descPlans    = describe("holdfast_plans", "Plans by phase.", "state")
	descLeft     = describe("holdfast_plan_left_bytes", "What is still to be copied by a plan at work.", "plan", "subject")
	descForecast = describe("holdfast_plan_forecast_seconds", "What is left of a plan at work, by bound: low, likely or high.", "plan", "bound")
	descUsable   = describe("holdfast_cluster_usable_ratio", "The part of the raw space that can be filled before the fullest OSD is full, as it was looked at last.")
	descBound    = describe("holdfast_cluster_usable_bound_ratio", "The same for the best balance that the rules allow.")
	descBalancer = describe("holdfast_manager_balancer_state", "1 for the state that the Ceph manager's balancer is in.", "state")
	descCheck    = describe("holdfast_coordinator_check", "How many things of a code are wrong now.", "code")
)

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

// collector makes metrics of what is known when they are asked for.
type collector struct{ *Server }

var _ prometheus.Collector = collector{}

// Describe implements prometheus.Collector. It tells nothing: which labels there are depends on the plans.
func (collector) Describe(chan<- *prometheus.Desc) {}

// gauges sends values of metrics.
type gauges chan<- prometheus.Metric

func (g gauges) set(d *prometheus.Desc, value float64, labels ...string) {
	g <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
}

func (g gauges) oneHot(d *prometheus.Desc, is string, states ...string) {
	for _, s := range states {
		value := 0.0
		if s == is {
			value = 1
		}
		g.set(d, value, s)
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	g := gauges(out)
	m := c.members
	g.set(descInfo, 1, m.Name())
	g.oneHot(descState, m.State(), "leader", "candidate", "follower", "shutdown")
	g.set(descTerm, float64(m.Term()))
	commit, applied := m.CommitIndex(), m.AppliedIndex()
	g.set(descCommit, float64(commit))
	g.set(descLag, float64(commit-min(commit, applied)))
	if last := m.LastContact(); !last.IsZero() {
		g.set(descContact, c.now().Sub(last).Seconds())
	}
	if members, err := m.Members(); err == nil {
		g.set(descMembers, float64(len(members)))
	}
	c.plans(g)
	if c.planner != nil {
		g.oneHot(descBalancer, c.planner.Balancer(), "on", "off", "")
		if usable, bound, at := c.planner.Balance(); !at.IsZero() {
			g.set(descUsable, usable)
			g.set(descBound, bound)
		}
	}
	count := map[string]float64{}
	for _, check := range c.checks() {
		count[string(check.Code)]++
	}
	for code, n := range count {
		g.set(descCheck, n, code)
	}
}

// plans tells of all plans by phase, and of those at work how far they are.
func (c collector) plans(g gauges) {
	phases := map[fsm.Phase]float64{fsm.Proposed: 0, fsm.Approved: 0, fsm.Running: 0, fsm.Stopped: 0, fsm.Cancelled: 0, fsm.Completed: 0, fsm.Abandoned: 0}
	type atWork struct {
		plan    plan.Plan
		subject string
		records []executor.Record
	}
	var list []atWork
	c.log.View(func(s *fsm.State) {
		for _, e := range s.Plans {
			phases[e.Phase]++
			if e.Phase == fsm.Running {
				list = append(list, atWork{e.Plan, e.Subject(), append([]executor.Record(nil), e.Records...)})
			}
		}
	})
	for phase, n := range phases {
		g.set(descPlans, n, string(phase))
	}
	for _, e := range list {
		id := string(e.plan.ID)
		f, ok := executor.ForecastOf(e.plan, e.records)
		g.set(descLeft, float64(f.Left), id, e.subject)
		if ok {
			g.set(descForecast, float64(f.Low), id, "low")
			g.set(descForecast, float64(f.Likely), id, "likely")
			g.set(descForecast, float64(f.High), id, "high")
		}
	}
}

// MetricsHandler answers /metrics and /healthz, which says that the process answers.
func (s *Server) MetricsHandler() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector{s})
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{Timeout: 10 * time.Second}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	return mux
}
