package fsm_test

import (
	"encoding/json"
	"fmt"
	"runtime"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/coordinator/fsm"
	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// large is the state of a placement of so many OSDs, with an upmap for each.
func large(t testing.TB, osds, turn int) json.RawMessage {
	t.Helper()
	in, upmaps := map[string]string{}, map[string][][2]int{}
	for i := range osds {
		in[fmt.Sprint("osd.", i)] = "65536"
		upmaps[fmt.Sprintf("1.%x", i)] = [][2]int{{i, (i + turn + 1) % osds}}
	}
	data, err := json.Marshal(map[string]any{"crush": "x", "osds": in, "upmaps": upmaps})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// rebalanced is a plan of so many waves from one state to another.
func rebalanced(t testing.TB, number int, from, to json.RawMessage, steps, upmaps int) plan.Plan {
	t.Helper()
	parent, err := plan.Hash(from)
	if err != nil {
		t.Fatal(err)
	}
	p := plan.Plan{Parent: parent, Subject: "placement", What: fmt.Sprint("balance the pools over the OSDs, for time ", number), State: to, Disks: []plan.Disk{}}
	for i := range steps {
		var wave []map[string]any
		for j := range upmaps {
			wave = append(wave, map[string]any{"pg": fmt.Sprintf("1.%x", i*upmaps+j), "from": [][2]int{}, "to": [][2]int{{j, j + 1}}})
		}
		args, err := json.Marshal(wave)
		if err != nil {
			t.Fatal(err)
		}
		p.Steps = append(p.Steps, plan.Step{Kind: "upmap-wave", What: fmt.Sprintf("wave %d of %d", i+1, steps), Executor: fsm.Coordinator, Sync: 1 << 40, Args: args})
	}
	if p, err = p.Seal(1); err != nil {
		t.Fatal(err)
	}
	return p
}

// through runs a plan to its end.
func (d *driver) through(p plan.Plan) {
	d.t.Helper()
	d.must(&fsm.Propose{Plan: p})
	d.must(&fsm.Approve{Plan: p.ID, Token: p.Token()})
	w := d.lease(p.ID, fsm.Coordinator)
	for i := range p.Steps {
		d.step(p.ID, w.Lease.Term, i, executor.StepBegun)
		d.step(p.ID, w.Lease.Term, i, executor.StepVerified)
	}
	d.log = nil
}

func TestPlansThatAreOverForLongAreTrimmed(t *testing.T) {
	d := newDriver(t)
	from, to := large(t, 4, 0), large(t, 4, 1)
	d.must(&fsm.SetSubject{Subject: "placement", State: from})
	var ids []plan.ID
	for i := range 25 {
		p := rebalanced(t, i, from, to, 1, 5)
		d.through(p)
		ids, from, to = append(ids, p.ID), to, from
	}
	first, last := d.s.Plans[ids[0]], d.s.Plans[ids[24]]
	if !first.Trimmed || first.Plan.State != nil || first.Plan.Steps[0].Args != nil || first.Plan.Steps[0].What == "" || first.Status().Step != 1 {
		t.Errorf("the first plan is %+v", first)
	}
	if last.Trimmed || last.Plan.Check() != nil {
		t.Errorf("the last plan is trimmed: %v, %v", last.Trimmed, last.Plan.Check())
	}
	again := restored(t, d.s)
	if string(encoded(t, again)) != string(encoded(t, d.s)) {
		t.Error("the state is another after it was written and read")
	}
}

// BenchmarkMemory tells what the state of 10,000 OSDs on 400 nodes takes, with 1000 plans in its history.
func BenchmarkMemory(b *testing.B) {
	for b.Loop() {
		runtime.GC()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		d := newDriver(b)
		from, to := large(b, 10_000, 0), large(b, 10_000, 1)
		d.must(&fsm.SetSubject{Subject: "placement", State: from})
		for i := range 400 {
			inventory := []byte(fmt.Sprintf(`{"disks":["%0*d"]}`, 25_000, i))
			d.must(&fsm.ReportNode{Node: storage.NodeID(fmt.Sprint("n", i)), Boot: "b", Generation: 1, Inventory: inventory})
		}
		for i := range 1000 {
			d.through(rebalanced(b, i, from, to, 20, 100))
			from, to = to, from
		}
		d.log = nil
		runtime.GC()
		runtime.ReadMemStats(&after)
		if n := len(d.s.Plans); n != 1000 {
			b.Fatalf("there are %d plans", n)
		}
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/(1<<20), "MiB")
		b.ReportMetric(float64(len(encoded(b, d.s)))/(1<<20), "MiB-snapshot")
	}
}
