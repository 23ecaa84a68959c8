package placement_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/crush"
	"github.com/holdfast-storage/holdfast/pkg/placement/osdmap"
	"github.com/holdfast-storage/holdfast/pkg/placement/placementtest"
)

// TestOnlyWhatAChangeCanTouchIsMappedAnew compares tables after changes with tables made anew.
func TestOnlyWhatAChangeCanTouchIsMappedAnew(t *testing.T) {
	placementtest.NeedTools(t)
	im := placementtest.Cases()[2].Image(t)
	before := read(t, im)
	table, err := osdmap.NewTable(before.OSDs, before.Crush, true)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Sorted(maps.Keys(changesOfB)) {
		edit := before.Edit("")
		if err := changesOfB[name](edit); err != nil {
			t.Fatal(err)
		}
		c, err := edit.Cluster()
		if err != nil {
			t.Fatal(err)
		}
		quick, err := table.After(c.OSDs, c.Crush)
		if err != nil {
			t.Fatal(err)
		}
		mapper, err := osdmap.NewMapper(c.OSDs, c.Crush)
		if err != nil {
			t.Fatal(err)
		}
		changed := 0
		for seed := range c.OSDs.Pools[0].PGs {
			got := quick.Raw(nil, 0, seed)
			want, err := mapper.Raw(nil, &c.OSDs.Pools[0], seed)
			if err != nil || !slices.Equal(got, want) {
				t.Fatalf("%s: seed %d is on %v, want %v, %v", name, seed, got, want, err)
			}
			if !slices.Equal(want, table.Raw(nil, 0, seed)) {
				changed++
			}
		}
		t.Logf("%s: %d of %d PGs are mapped anew, %d have changed", name, quick.Mapped, c.OSDs.Pools[0].PGs, changed)
		if quick.Mapped > 3*changed+int(c.OSDs.Pools[0].PGs)/50 {
			t.Errorf("%s: %d PGs are mapped anew where %d change", name, quick.Mapped, changed)
		}
	}
	same, err := table.After(before.OSDs, before.Crush)
	if err != nil || same.Mapped != 0 {
		t.Errorf("%d PGs are mapped anew for no change, %v", same.Mapped, err)
	}
	out := *before.OSDs
	out.OSDs = slices.Clone(out.OSDs)
	out.OSDs[3].Weight = crush.One / 2
	partly, err := table.After(&out, before.Crush)
	if err != nil || partly.Mapped == 0 || partly.Mapped > 400 {
		t.Errorf("%d PGs are mapped anew for an OSD that takes half, %v", partly.Mapped, err)
	}
}
