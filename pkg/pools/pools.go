// Package pools makes pools of a living cluster as policies want them: it reads what there is, plans what is missing, and does the
// plans' steps.
//
// Invariant: a plan keeps what it was made from (the policy, the inventory, the reasons), and a step changes the one pool that it names.
//
// It must not import who runs plans.
package pools

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/crush"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/placement"
	"github.com/holdfast-storage/holdfast/pkg/placement/osdmap"
	"github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi/coordinatorv1"
)

// Subject is what plans for a pool change.
func Subject(pool string) string { return "pool " + pool }

// State is what a plan for a pool is made from; the zero value is a pool that is not there.
type State struct {
	Size    int    `json:"size,omitempty"`
	MinSize int    `json:"min_size,omitempty"`
	PGs     uint32 `json:"pg_num,omitempty"`
	Rule    string `json:"rule,omitempty"`
}

// world is what pools are planned from.
type world struct {
	osds  *osdmap.Map
	crush *crush.Map
}

func read(ctx context.Context, c ceph.Cluster) (w world, err error) {
	dump, err := c.Mon(ctx, map[string]any{"prefix": "osd dump"}, nil)
	if err != nil {
		return w, err
	}
	if w.osds, err = osdmap.Parse(dump); err != nil {
		return w, err
	}
	binary, err := c.Mon(ctx, map[string]any{"prefix": "osd getcrushmap"}, nil)
	if err != nil {
		return w, err
	}
	w.crush, err = crush.Parse(binary)
	return w, err
}

// pool finds a pool by its name; nil for none.
func (w world) pool(name string) *osdmap.Pool {
	i := slices.IndexFunc(w.osds.Pools, func(p osdmap.Pool) bool { return p.Name == name })
	if i < 0 {
		return nil
	}
	return &w.osds.Pools[i]
}

// rule is the rule of a pool, nil for none.
func (w world) rule(p *osdmap.Pool) *crush.Rule {
	if id := osdmap.RuleOf(w.crush, p); id >= 0 {
		return w.crush.Rules[id]
	}
	return nil
}

// state is that of a pool.
func (w world) state(name string) State {
	p := w.pool(name)
	if p == nil {
		return State{}
	}
	s := State{Size: p.Size, MinSize: p.MinSize, PGs: p.Pending}
	if r := w.rule(p); r != nil {
		s.Rule = r.Name
	}
	return s
}

// spread is the failure domain and the device class of a rule, by its last choice and its root.
func (w world) spread(r *crush.Rule) (domain, class string) {
	if r == nil {
		return "", ""
	}
	for _, s := range r.Steps {
		switch s.Op {
		case crush.OpTake:
			if b := w.crush.Bucket(crush.ItemID(s.Arg1)); b != nil {
				class = b.Class
			}
		case crush.OpChooseFirstN, crush.OpChooseIndep, crush.OpChooseleafFirstN, crush.OpChooseleafIndep:
			domain = w.typeName(int(s.Arg2))
		}
	}
	return domain, class
}

func (w world) typeName(id int) string {
	for _, t := range w.crush.Types {
		if t.ID == id {
			return t.Name
		}
	}
	return fmt.Sprint("type ", id)
}

// inventory counts what has weight, from the widest type down, roots left out. class "" counts all devices.
func (w world) inventory(class string) placement.Inventory {
	count, osds := map[int]int{}, map[crush.ItemID]bool{}
	for _, b := range w.crush.Buckets {
		if b == nil || b.Class != class || b.Weight == 0 {
			continue
		}
		for i, item := range b.Items {
			if item >= 0 && b.Weights[i] > 0 {
				osds[item] = true
			}
			if item < 0 && b.Weights[i] > 0 {
				count[w.crush.Bucket(item).Type]++
			}
		}
	}
	types := slices.Clone(w.crush.Types)
	slices.SortFunc(types, func(a, b crush.Type) int { return b.ID - a.ID })
	var v placement.Inventory
	for _, t := range types {
		if n := count[t.ID]; n > 0 {
			v.Levels = append(v.Levels, placement.Level{Type: t.Name, Count: n})
		}
	}
	v.Levels = append(v.Levels, placement.Level{Type: "osd", Count: len(osds)})
	return v
}

// Keeper lists, explains and plans pools of one cluster, once it is connected.
type Keeper struct{ Connected func() (ceph.Cluster, error) }

// List lists all pools by name.
func (k *Keeper) List(ctx context.Context) ([]*coordinatorv1.Pool, error) {
	c, err := k.Connected()
	if err != nil {
		return nil, err
	}
	w, err := read(ctx, c)
	if err != nil {
		return nil, err
	}
	infos, err := c.Pools(ctx)
	if err != nil {
		return nil, err
	}
	var list []*coordinatorv1.Pool
	for _, p := range w.osds.Pools {
		rule := w.rule(&p)
		m := &coordinatorv1.Pool{Name: p.Name, Id: p.ID, Type: "replicated", Size: uint32(p.Size), MinSize: uint32(p.MinSize), PgNum: p.PGs}
		m.FailureDomain, m.DeviceClass = w.spread(rule)
		if rule != nil {
			m.Rule = rule.Name
		}
		if p.Erasure() {
			m.Type = "erasure"
		}
		for _, info := range infos {
			if info.ID == p.ID {
				m.StoredBytes, m.AvailableBytes, m.Applications = uint64(info.Stored), uint64(info.MaxAvail), info.Applications
			}
		}
		list = append(list, m)
	}
	slices.SortFunc(list, func(a, b *coordinatorv1.Pool) int { return strings.Compare(a.GetName(), b.GetName()) })
	return list, nil
}

// Explain says in JSON (placement.Explanation) how well a pool's data can be spread.
func (k *Keeper) Explain(ctx context.Context, name string) ([]byte, error) {
	c, err := k.Connected()
	if err != nil {
		return nil, err
	}
	w, err := read(ctx, c)
	if err != nil {
		return nil, err
	}
	p := w.pool(name)
	if p == nil {
		return nil, fault.New(fault.NotFound, "there is no pool %s", name)
	}
	now := placement.Cluster{OSDs: w.osds, Crush: w.crush}
	dump, err := c.Mgr(ctx, map[string]any{"prefix": "pg dump"}, nil)
	if err != nil {
		return nil, err
	}
	if now.PGs, now.Disks, err = placement.ParsePGDump(dump); err != nil {
		return nil, err
	}
	e, err := placement.ExplainPool(now, p.ID)
	if err != nil {
		return nil, err
	}
	data, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("encode explanation: %w", err)
	}
	return data, nil
}
