package coordinator_test

import (
	"context"
	"encoding/json"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi"
	"github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi/coordinatorv1"
)

// BenchmarkRecovery tells how long after the leader of three was killed the next write was committed: the median and the longest of ten.
func BenchmarkRecovery(b *testing.B) {
	for b.Loop() {
		c := start(b, 3, nil)
		admin := c.client(c.open("admin"))
		c.leader(admin)
		ctx, cancel := context.WithTimeout(b.Context(), 5*time.Minute)
		defer cancel()
		var took []float64
		for i := range 10 {
			if err := set(ctx, admin, "before", i+1); err != nil {
				b.Fatal(err)
			}
			leader := c.leader(admin)
			c.end(leader, syscall.SIGKILL)
			since := time.Now()
			if err := set(ctx, admin, "after", i+1); err != nil {
				b.Fatal(err)
			}
			took = append(took, float64(time.Since(since).Milliseconds()))
			c.run(leader)
			c.leader(admin)
			time.Sleep(3 * time.Second) // it catches up
		}
		slices.Sort(took)
		b.ReportMetric(took[len(took)/2], "ms-median")
		b.ReportMetric(took[len(took)-1], "ms-longest")
	}
}

// BenchmarkWatchers tells how long it takes until 500 watchers, each over a connection of its own, have heard of a change: the median and the
// last of them.
func BenchmarkWatchers(b *testing.B) {
	const watchers = 500
	for b.Loop() {
		c := start(b, 3, nil)
		admin := c.client(c.open("admin"))
		leader := c.leader(admin)
		ctx, cancel := context.WithTimeout(b.Context(), 5*time.Minute)
		defer cancel()
		p := waiting(ctx, b, admin)
		agent := c.issue("agent", "n1")
		heard := make(chan time.Time, watchers)
		var ready, wait sync.WaitGroup
		for range watchers {
			client := coordinatorapi.New(agent, []string{c.address[leader]})
			b.Cleanup(client.Close)
			ready.Add(1)
			wait.Go(func() { watchOnce(ctx, b, client, c.address[leader], &ready, heard) })
		}
		ready.Wait()
		since := time.Now()
		if _, err := coordinatorapi.Call(ctx, admin, func(ctx context.Context, api coordinatorv1.CoordinatorClient, o ...coordinatorapi.CallOption) (*coordinatorv1.Plan, error) {
			return api.ChangePlan(ctx, &coordinatorv1.ChangePlanRequest{Id: string(p), Verb: coordinatorv1.ChangePlanRequest_VERB_CANCEL}, o...)
		}); err != nil {
			b.Fatal(err)
		}
		wait.Wait()
		close(heard)
		var took []float64
		for at := range heard {
			took = append(took, float64(at.Sub(since).Milliseconds()))
		}
		if len(took) != watchers {
			b.Fatalf("%d of %d watchers heard of the change", len(took), watchers)
		}
		slices.Sort(took)
		b.ReportMetric(took[len(took)/2], "ms-median")
		b.ReportMetric(took[len(took)-1], "ms-last")
	}
}

// watchOnce watches until the plan has changed.
func watchOnce(ctx context.Context, b *testing.B, client *coordinatorapi.Client, address string, ready *sync.WaitGroup, heard chan<- time.Time) {
	api, err := client.At(address)
	if err != nil {
		ready.Done()
		b.Error(err)
		return
	}
	stream, err := api.WatchPlans(ctx, &coordinatorv1.WatchPlansRequest{})
	if err == nil {
		_, err = stream.Recv()
	}
	ready.Done()
	if err == nil {
		_, err = stream.Recv()
	}
	if err != nil {
		b.Error(err)
		return
	}
	heard <- time.Now()
}

// waiting proposes a plan that waits for approval.
func waiting(ctx context.Context, b *testing.B, admin *coordinatorapi.Client) plan.ID {
	b.Helper()
	state := json.RawMessage(`{"a":1}`)
	parent, err := plan.Hash(state)
	if err != nil {
		b.Fatal(err)
	}
	p, err := plan.Plan{Parent: parent, Subject: "placement", What: "move", State: state, Steps: []plan.Step{{Kind: "wave", What: "wave", Executor: "coordinator", Args: []byte(`{}`)}}}.Seal(1)
	if err != nil {
		b.Fatal(err)
	}
	data, err := json.Marshal(p)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := coordinatorapi.Call(ctx, admin, func(ctx context.Context, api coordinatorv1.CoordinatorClient, o ...coordinatorapi.CallOption) (*coordinatorv1.SetSubjectResponse, error) {
		return api.SetSubject(ctx, &coordinatorv1.SetSubjectRequest{Subject: "placement", State: state}, o...)
	}); err != nil {
		b.Fatal(err)
	}
	if _, err := coordinatorapi.Call(ctx, admin, func(ctx context.Context, api coordinatorv1.CoordinatorClient, o ...coordinatorapi.CallOption) (*coordinatorv1.Plan, error) {
		return api.ProposePlan(ctx, &coordinatorv1.ProposePlanRequest{Plan: data}, o...)
	}); err != nil {
		b.Fatal(err)
	}
	return p.ID
}
