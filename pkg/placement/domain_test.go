package placement_test

import (
	"slices"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/placement"
	"github.com/holdfast-storage/holdfast/pkg/placement/placementtest"
)

// TestARuleOfAnotherContentKeepsItsName spreads a pool over racks where a rule has the name
// already that the new one would have: one that says something else, and then one that says
// the same.
func TestARuleOfAnotherContentKeepsItsName(t *testing.T) {
	placementtest.NeedTools(t)
	im, _ := racked(t)
	before := read(t, im)
	taken := *before.Crush.Rules[0]
	taken.ID, taken.Name = len(before.Crush.Rules), "pool1_rack"
	taken.Ruleset = uint8(taken.ID)
	before.Crush.Rules = append(before.Crush.Rules, &taken)
	path := overRacks(t, before)
	if want := []string{
		"ceph osd crush rule create-replicated pool1_rack_2 default rack",
		"ceph osd pool set pool1 crush_rule pool1_rack_2",
	}; !slices.Equal(path.Last, want) {
		t.Errorf("%q, want %q", path.Last, want)
	}
	again := path.After
	again.OSDs.Pools = before.OSDs.Pools
	path = overRacks(t, again)
	if want := []string{"ceph osd pool set pool1 crush_rule pool1_rack_2"}; !slices.Equal(path.Last, want) {
		t.Errorf("with the rule there: %q, want %q", path.Last, want)
	}
	if n := len(path.After.Crush.Rules); n != len(again.Crush.Rules) || path.After.OSDs.Pools[0].Rule != n-1 {
		t.Errorf("pool1 has rule %d of %d", path.After.OSDs.Pools[0].Rule, n)
	}
}

func overRacks(t *testing.T, c placement.Cluster) placement.Path {
	t.Helper()
	edit := c.Edit("")
	if err := edit.SetFailureDomain("pool1", "rack"); err != nil {
		t.Fatal(err)
	}
	path, err := edit.Path()
	if err != nil {
		t.Fatal(err)
	}
	return path
}
