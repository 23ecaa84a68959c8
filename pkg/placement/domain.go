package placement

import (
	"fmt"
	"slices"

	"github.com/holdfast-storage/holdfast/pkg/crush"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/placement/osdmap"
)

// SetFailureDomain gives a pool a rule of its own that spreads its places over buckets of
// that type ("rack", "host", "osd"), and is like the one it has else. It is called POOL_DOMAIN,
// or where another rule is, POOL_DOMAIN_2 and so on. Rules that choose in
// several steps say more than a failure domain, and are refused.
func (e *Editor) SetFailureDomain(pool, domain string) error {
	i := slices.IndexFunc(e.osds.Pools, func(p osdmap.Pool) bool { return p.Name == pool })
	if i < 0 {
		return fault.New(fault.NotFound, "there is no pool %s", pool)
	}
	kind := slices.IndexFunc(e.crush.Types, func(t crush.Type) bool { return t.Name == domain })
	if kind < 0 {
		return fault.New(fault.NotFound, "the CRUSH map has no type %s", domain)
	}
	if err := e.settle(); err != nil {
		return err
	}
	p := &e.osds.Pools[i]
	rule, err := e.spreadOver(p, e.crush.Types[kind])
	if err != nil {
		return err
	}
	e.osds.Pools = slices.Clone(e.osds.Pools)
	if same := e.nameRule(rule, p.Size); same != nil {
		rule = same
	} else {
		e.crush.Rules = append(e.crush.Rules, rule)
		e.last = append(e.last, createRule(e.crush, rule, domain))
	}
	e.osds.Pools[i].Rule = int(rule.Ruleset)
	e.last = append(e.last, "ceph osd pool set "+pool+" crush_rule "+rule.Name)
	return nil
}

// nameRule gives a new rule a name that is free: Ceph leaves a rule of that name as it is, and
// says that all is well. A rule of such a name that is the same for pools of that size is
// returned instead.
func (e *Editor) nameRule(rule *crush.Rule, size int) *crush.Rule {
	wish := rule.Name
	for n := 2; ; n++ {
		i := slices.IndexFunc(e.crush.Rules, func(r *crush.Rule) bool { return r != nil && r.Name == rule.Name })
		if i < 0 {
			return nil
		}
		r := e.crush.Rules[i]
		if r.Type == rule.Type && slices.Equal(r.Steps, rule.Steps) && int(r.MinSize) <= size && size <= int(r.MaxSize) {
			return r
		}
		rule.Name = fmt.Sprintf("%s_%d", wish, n)
	}
}

// spreadOver copies a pool's rule for another failure domain.
func (e *Editor) spreadOver(p *osdmap.Pool, domain crush.Type) (*crush.Rule, error) {
	w := &world{Cluster: Cluster{OSDs: e.osds, Crush: e.crush}}
	id := osdmap.RuleOf(e.crush, p)
	if id < 0 {
		return nil, fault.New(fault.Precondition, "pool %s has no CRUSH rule", p.Name)
	}
	rule := *e.crush.Rules[id]
	rule.ID = len(e.crush.Rules)
	if rule.ID > 255 {
		return nil, fault.New(fault.Precondition, "the CRUSH map has %d rules: remove one that no pool uses", rule.ID)
	}
	rule.Ruleset, rule.Name = uint8(rule.ID), p.Name+"_"+domain.Name
	rule.Steps = slices.Clone(rule.Steps)
	choices, root := 0, crush.ItemID(0)
	for i := range rule.Steps {
		s := &rule.Steps[i]
		switch s.Op {
		case crush.OpTake:
			root = crush.ItemID(s.Arg1)
		case crush.OpChooseFirstN, crush.OpChooseleafFirstN:
			choices++
			s.Op, s.Arg2 = chooseOp(domain.ID, crush.OpChooseFirstN, crush.OpChooseleafFirstN), int32(domain.ID)
		case crush.OpChooseIndep, crush.OpChooseleafIndep:
			choices++
			s.Op, s.Arg2 = chooseOp(domain.ID, crush.OpChooseIndep, crush.OpChooseleafIndep), int32(domain.ID)
		}
	}
	if choices != 1 {
		return nil, fault.New(fault.Precondition, "rule %s of pool %s has %d choose steps: write the rule that you want, and simulate with it in the map", e.crush.Rules[id].Name, p.Name, choices)
	}
	if n := w.countBelow(root, domain.ID); n < p.Size {
		return nil, fault.New(fault.Precondition, "pool %s of size %d needs %d of %s below %s, and there are %d", p.Name, p.Size, p.Size, domain.Name, w.name(int32(root)), n)
	}
	return &rule, nil
}

// chooseOp is the step for a type: OSDs are chosen, all else is descended from.
func chooseOp(kind int, choose, chooseleaf crush.Op) crush.Op {
	if kind == 0 {
		return choose
	}
	return chooseleaf
}

// countBelow counts the items of a type below a bucket that have weight.
func (w *world) countBelow(item crush.ItemID, kind int) (n int) {
	b := w.Crush.Bucket(item)
	if b == nil {
		if kind == 0 {
			return 1
		}
		return 0
	}
	if b.Type == kind {
		return 1
	}
	for i, child := range b.Items {
		if b.Weights[i] > 0 {
			n += w.countBelow(child, kind)
		}
	}
	return n
}

// createRule makes a rule by Ceph's own command, where there is one, or says what to do.
func createRule(m *crush.Map, rule *crush.Rule, domain string) string {
	if rule.Type != crush.Replicated || len(rule.Steps) != 3 {
		return "# add the rule " + rule.Name + " to the CRUSH map: that of the pool, with type " + domain + " in its choose step"
	}
	w := &world{Cluster: Cluster{Crush: m}}
	create := "ceph osd crush rule create-replicated " + rule.Name + " " + w.name(rule.Steps[0].Arg1) + " " + domain
	if b := m.Bucket(crush.ItemID(rule.Steps[0].Arg1)); b != nil && b.Class != "" {
		create += " " + b.Class
	}
	return create
}
