package pools

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/crush"
	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/placement"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi/coordinatorv1"
)

// rules are those of the fake's pools.
const rules = `
rule vms {
	id 0
	type replicated
	min_size 1
	max_size 10
	step take default
	step chooseleaf firstn 0 type host
	step emit
}
rule bulk {
	id 1
	type erasure
	min_size 3
	max_size 10
	step take default
	step chooseleaf indep 0 type host
	step emit
}
`

// mapOf is a CRUSH map of hosts of an OSD, with these weights.
func mapOf(t *testing.T, weights []string) *crush.Map {
	t.Helper()
	text, root := "type 0 osd\ntype 1 host\ntype 10 root\n", "root default {\nid -1\nalg straw2\nhash 0\n"
	for osd := range weights {
		text = fmt.Sprintf("device %d osd.%d\n", osd, osd) + text
	}
	for osd, weight := range weights {
		text += fmt.Sprintf("host h%d {\nid %d\nalg straw2\nhash 0\nitem osd.%d weight %s\n}\n", osd, -2-osd, osd, weight)
		root += fmt.Sprintf("item h%d weight %s\n", osd, weight)
	}
	m, err := crush.Parse([]byte(text + root + "}\n" + rules))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// fakeCeph models pools: their fields, and the commands that set them.
type fakeCeph struct {
	ceph.Cluster // what is not asked for

	crush *crush.Map
	pools []map[string]any
	asked int
	fail  func(cmd map[string]any) error
	busy  int // looks until all PGs are settled
}

func newFake(t *testing.T, weights ...string) *fakeCeph {
	t.Helper()
	return &fakeCeph{crush: mapOf(t, weights), pools: []map[string]any{
		{"pool": 1, "pool_name": "vms", "flags": 1, "type": 1, "size": 3, "min_size": 2, "crush_rule": 0, "pg_num": 8, "pg_placement_num": 8},
		{"pool": 2, "pool_name": "bulk", "flags": 1, "type": 3, "size": 3, "min_size": 2, "crush_rule": 1, "pg_num": 8, "pg_placement_num": 8},
	}}
}

func (f *fakeCeph) Mon(_ context.Context, cmd map[string]any, _ []byte) ([]byte, error) {
	if f.asked++; f.fail != nil {
		if err := f.fail(cmd); err != nil {
			return nil, err
		}
	}
	switch cmd["prefix"] {
	case "osd pool set":
		return nil, f.set(cmd["pool"].(string), cmd["var"].(string), cmd["val"].(string))
	case "osd dump":
		var osds []map[string]any
		for osd := range f.crush.Devices {
			osds = append(osds, map[string]any{"osd": osd, "up": 1, "in": 1, "weight": 1})
		}
		return json.Marshal(map[string]any{"epoch": 1, "max_osd": len(f.crush.Devices), "pools": f.pools, "osds": osds})
	case "osd getcrushmap":
		return f.crush.Binary()
	default:
		return nil, fault.New(fault.Unsupported, "the fake knows no %q", cmd["prefix"])
	}
}

// set sets a field of a pool. PGs with fewer copies than min_size stand still.
func (f *fakeCeph) set(pool, field, text string) error {
	value, err := strconv.Atoi(text)
	if err != nil {
		return err
	}
	for _, p := range f.pools {
		if p["pool_name"] != pool {
			continue
		}
		if p[field] = value; field == "pg_num" {
			p["pg_placement_num"] = value
		}
		if field == "size" {
			f.busy = 20
		}
		if f.busy > 0 && field == "min_size" {
			return fault.New(fault.Busy, "copies are missing still")
		}
	}
	return nil
}

func (f *fakeCeph) Mgr(_ context.Context, cmd map[string]any, _ []byte) ([]byte, error) {
	if cmd["prefix"] != "pg stat" {
		return nil, fault.New(fault.Unsupported, "the fake knows no %q", cmd["prefix"])
	}
	state := "active+clean"
	if f.busy > 0 {
		f.busy--
		state = "active+undersized+degraded+backfilling"
	}
	return json.Marshal(map[string]any{"pg_summary": map[string]any{"num_pg_by_state": []map[string]any{{"name": state, "num": 8}}}})
}

// setting plans to set a pool.
func setting(t *testing.T, f *fakeCeph, pool string, p placement.Policy) (Set, error) {
	t.Helper()
	policy, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	k := Keeper{Connected: func() (ceph.Cluster, error) { return f, nil }}
	made, _, err := k.Plan(t.Context(), &coordinatorv1.PlanPoolRequest{Name: pool, Policy: policy, Set: true}, func(string) []byte { return nil })
	if err != nil {
		return Set{}, err
	}
	var s Set
	if err := json.Unmarshal(made.Steps[0].Args, &s); err != nil {
		t.Fatal(err)
	}
	return s, nil
}

func TestWhatAPoolSurvivesIsLoweredOnlyWhereSomebodyAskedForThat(t *testing.T) {
	drained := newFake(t, "1", "1", "0")
	if s, err := setting(t, drained, "vms", placement.Policy{Bytes: 2e12}); err == nil || !strings.Contains(err.Error(), "--failures 1") {
		t.Errorf("two hosts for a while: %+v, %v", s.To, err)
	}
	if s, err := setting(t, drained, "vms", placement.Policy{Bytes: 2e12, Failures: 1}); err != nil || s.To.Size != 2 || s.To.MinSize != 1 {
		t.Errorf("asked for: %+v, %v", s.To, err)
	}
	if s, err := setting(t, newFake(t, "1", "1", "1"), "vms", placement.Policy{Bytes: 2e12}); err != nil || s.To.Size != 3 || s.To.MinSize != 2 || s.To.PGs <= 8 {
		t.Errorf("three hosts: %+v, %v", s.To, err)
	}
}

func TestSizesOfErasureCodedPoolsAreLeftAlone(t *testing.T) {
	f := newFake(t, "1", "1", "1", "1", "1", "1")
	f.pools[1]["min_size"] = 3 // somebody wants it so
	if s, err := setting(t, f, "bulk", placement.Policy{Bytes: 2e12, Profile: placement.Backup}); err != nil || s.To.Size != 3 || s.To.MinSize != 3 || s.To.PGs <= 8 {
		t.Errorf("%+v, %v", s.To, err)
	}
}

// TestAPoolIsSetThroughElections raises min_size, which has to wait for the copies.
func TestAPoolIsSetThroughElections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, "1", "1", "1", "1", "1")
		s, err := setting(t, f, "vms", placement.Policy{Bytes: 2e12, Failures: 4})
		if err != nil || s.To.Size != 5 || s.To.MinSize != 4 {
			t.Fatalf("%+v, %v", s.To, err)
		}
		f.fail = func(map[string]any) error {
			if f.asked%3 == 0 {
				return fault.New(fault.Unavailable, "an election")
			}
			return nil
		}
		args, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		told := 0
		step, err := Steps(f)[KindSet](plan.Step{Args: args}, func(executor.Progress) { told++ })
		if err != nil {
			t.Fatal(err)
		}
		if state, err := step.Check(t.Context()); err != nil || state != executor.Todo {
			t.Errorf("check: %v, %v", state, err)
		}
		if err := errors.Join(step.Do(t.Context()), step.Verify(t.Context())); err != nil {
			t.Error(err)
		}
		if told < 20 {
			t.Errorf("it told %d times that it is at work", told)
		}
	})
}

func TestAPoolThatIsLargerThanTheOneToBeMadeIsAnothers(t *testing.T) {
	f := newFake(t, "1", "1", "1")
	args, err := json.Marshal(Create{Name: "vms", Advice: &placement.Advice{Type: "replicated", Size: 2, MinSize: 1, Domain: "host", PGs: 8}})
	if err != nil {
		t.Fatal(err)
	}
	step, err := Steps(f)[KindCreate](plan.Step{Args: args}, func(executor.Progress) {})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := step.Check(t.Context()); !errors.Is(err, fault.Precondition) || !strings.Contains(err.Error(), "of size 3") {
		t.Error(err)
	}
}
