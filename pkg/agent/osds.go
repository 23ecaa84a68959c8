package agent

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/ledger"
	"github.com/holdfast-storage/holdfast/pkg/lvm"
	"github.com/holdfast-storage/holdfast/pkg/obs"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/rpc/agentapi"
	"github.com/holdfast-storage/holdfast/pkg/stack"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// OSDs are the node's, where it has a cluster; machine.OSDs is one.
type OSDs interface {
	List(ctx context.Context) ([]agentapi.OSD, error)
	// Plan calculates, and changes nothing.
	Plan(ctx context.Context, r agentapi.OSDRequest) (plan.Plan, error)
	// Activate starts what does not run and is to, and returns it. Disks that are busy are left alone: that is asked just before each start, since plans go
	// on meanwhile. fault.NotFound: there is no cluster.
	Activate(ctx context.Context, busy func(storage.DiskID) bool) ([]int, error)
}

// keepEvery is how often it is looked whether the node's OSDs run.
const keepEvery = 10 * time.Second

// KeepOSDs starts the node's OSDs after a boot, as soon as plans may be run here, and those that have died, until ctx ends.
func (a *Agent) KeepOSDs(ctx context.Context) error {
	if !a.awaitRun(ctx) {
		return nil
	}
	ticker := time.NewTicker(keepEvery)
	defer ticker.Stop()
	disks := uint64(0)
	for {
		started, err := a.activate(ctx)
		for _, id := range started {
			a.Log.Info("osd was started", obs.KeyOSD, id)
		}
		if ctx.Err() != nil || errors.Is(err, fault.NotFound) {
			err = nil
		}
		if a.isNews("start of osds", err) {
			a.Log.Warn("osds cannot all be started", obs.KeyError, err)
		}
		a.setStuck(err)
		if now := a.Inventory().Generation; now != disks {
			err := a.proposeOSDs(ctx)
			if err == nil {
				disks = now
			}
			if ctx.Err() != nil || errors.Is(err, fault.NotFound) {
				err = nil
			}
			if a.isNews("growth of disks of osds", err) {
				a.Log.Warn("the growth of osds' disks cannot be used", obs.KeyError, err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// setStuck says why OSDs do not run; nil for no reason.
func (a *Agent) setStuck(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	a.mu.Lock()
	same := a.stuck == text
	a.mu.Unlock()
	if !same {
		a.set(func() { a.stuck = text })
	}
}

// awaitRun waits until the agent may run plans; false if ctx ends before.
func (a *Agent) awaitRun(ctx context.Context) bool {
	for {
		changed := a.Changed()
		if a.mayRun() {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-changed:
		}
	}
}

// activate starts OSDs on disks that no plan is at work on.
func (a *Agent) activate(ctx context.Context) ([]int, error) {
	if !a.mayRun() {
		return nil, nil
	}
	var unread error
	started, err := a.OSDs.Activate(ctx, func(id storage.DiskID) bool {
		busy, err := a.busy(plan.DiskID(id))
		unread = errors.Join(unread, err)
		return busy || err != nil
	})
	return started, errors.Join(err, unread)
}

// busy reports whether a plan is at work on a disk: one that runs, or that has begun and is not at its end. Until a plan has
// begun, nothing on its disks is in its hands. One that was to grow an OSD and rests, by an error say, lets that run.
func (a *Agent) busy(id plan.DiskID) (bool, error) {
	list, err := a.Ledger.List()
	if err != nil {
		return false, err
	}
	a.mu.Lock()
	running := a.running
	a.mu.Unlock()
	for _, e := range list {
		if e.Plan.ID != running && (!e.Touched || e.Status.Phase.Final() || growsOSD(e) && !e.Status.Phase.Moves()) {
			continue
		}
		if slices.ContainsFunc(e.Plan.Disks, func(d plan.Disk) bool { return d.ID == id }) || slices.Contains(atWork(e), id) {
			return true, nil
		}
	}
	return false, nil
}

// growsOSD reports whether a plan is one to grow an OSD, or of a stack and at the OSD on its volume.
func growsOSD(e ledger.Entry) bool {
	steps := e.Plan.Steps
	return len(steps) > 0 && steps[0].Kind == "osd-expand" || e.Status.Step < len(steps) && steps[e.Status.Step].Kind == stack.KindGrowOSD
}

// atWork is the volume of a stack's plan while the plan is at the OSD on it. Through all its other steps, which may take days, the OSD runs.
func atWork(e ledger.Entry) []plan.DiskID {
	if e.Status.Step >= len(e.Plan.Steps) {
		return nil
	}
	step := e.Plan.Steps[e.Status.Step]
	if step.Kind != stack.KindMakeOSD && step.Kind != stack.KindGrowOSD {
		return nil
	}
	var a stack.VolumeArgs
	if err := json.Unmarshal(step.Args, &a); err != nil {
		return nil
	}
	return []plan.DiskID{plan.DiskID(storage.VolumeDisk(lvm.Mapped(a.Volume.Group, a.Volume.Name)))}
}

// osdRoutes are those of the API for OSDs.
func (a *Agent) osdRoutes(mux *http.ServeMux) {
	mux.HandleFunc("GET "+agentapi.PathOSDs, handle(a, func(r *http.Request) ([]agentapi.OSD, error) { return a.OSDs.List(r.Context()) }))
	mux.HandleFunc("POST "+agentapi.PathActivate, handle(a, func(r *http.Request) ([]int, error) { return a.activate(r.Context()) }))
	mux.HandleFunc("POST "+agentapi.PathOSDPlan, handle(a, a.planOSD))
}

func (a *Agent) planOSD(r *http.Request) (agentapi.Plan, error) {
	var want agentapi.OSDRequest
	if err := json.NewDecoder(r.Body).Decode(&want); err != nil {
		return agentapi.Plan{}, fault.New(fault.Invalid, "the request is not about an OSD: %w", err)
	}
	p, err := a.OSDs.Plan(r.Context(), want)
	if err != nil {
		return agentapi.Plan{}, err
	}
	if want.DryRun {
		return agentapi.Plan{Plan: p, Status: executor.Status{Plan: p.ID, Phase: executor.Proposed, Steps: len(p.Steps)}}, nil
	}
	return a.Take(r.Context(), Order{Do: agentapi.Propose, Plan: &p})
}
