package placement_test

import (
	"strings"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/crush"
	"github.com/holdfast-storage/holdfast/pkg/placement"
	"github.com/holdfast-storage/holdfast/pkg/placement/osdmap"
	"github.com/holdfast-storage/holdfast/pkg/placement/placementtest"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// wavesOf plans a change of the racked cluster, whose OSDs take backfill up to a ratio.
func wavesOf(t *testing.T, backfillFull float64, change func(*placement.Editor, placement.Cluster) error) *placement.Waves {
	t.Helper()
	im, _ := racked(t)
	before := filled(read(t, im), im, placementtest.Mappings(t, im.Write(t)), 0.88)
	before.OSDs.Ratios = osdmap.Ratios{NearFull: backfillFull, BackfillFull: backfillFull, Full: 0.95}
	edit := before.Edit("")
	if err := change(edit, before); err != nil {
		t.Fatal(err)
	}
	path, err := edit.Path()
	if err != nil {
		t.Fatal(err)
	}
	c, err := placement.PlanChange(path.Before, path.After, placement.PreferBytes)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := placement.PlanWaves(path, c, placement.WaveOptions{Backfills: 6})
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

// TestAHostThatDataCannotLeaveIsNotPurged removes a host where there is no room for its data, or
// for a part of it only: what can move moves, and no step purges an OSD.
func TestAHostThatDataCannotLeaveIsNotPurged(t *testing.T) {
	placementtest.NeedTools(t)
	for name, full := range map[string]float64{"no room": 0.01, "room for some": 0.75} {
		t.Run(name, func(t *testing.T) {
			plan := wavesOf(t, full, func(e *placement.Editor, _ placement.Cluster) error { return e.RemoveHost("h2") })
			t.Logf("%d steps, %d PGs held back; %v", len(plan.Steps), plan.HeldBack, plan.Why)
			if plan.HeldBack == 0 || len(plan.Why) == 0 || !strings.Contains(strings.Join(plan.LeftOut, "\n"), "the removal of osd.") || strings.Contains(strings.Join(plan.LeftOut, "\n"), "purge") {
				t.Errorf("%d PGs are held back, left out %q: %q", plan.HeldBack, plan.LeftOut, plan.Why)
			}
			if (len(plan.Steps) == 0) != (name == "no room") {
				t.Errorf("%d steps", len(plan.Steps))
			}
			for _, step := range plan.Steps {
				if step.Kind != placement.Wave || len(step.Change) > 0 {
					t.Errorf("%s: %q", step, step.Change)
				}
			}
		})
	}
}

// TestASmallerDiskComesAfterItsDataHasLeft replaces a disk by one of half its size.
func TestASmallerDiskComesAfterItsDataHasLeft(t *testing.T) {
	placementtest.NeedTools(t)
	const osd = crush.ItemID(3)
	shrink := func(e *placement.Editor, c placement.Cluster) error {
		return e.Replace(osd, storage.Bytes(c.Disks[osd].Size/2))
	}
	plan := wavesOf(t, 0.9, shrink)
	if len(plan.Steps) < 2 || plan.Steps[0].Kind != placement.Wave {
		t.Fatalf("%d steps, the first is %s", len(plan.Steps), plan.Steps[0])
	}
	last := plan.Steps[len(plan.Steps)-1]
	if last.Kind != placement.Finish || last.Moves > 0 || !strings.Contains(strings.Join(last.Change, " "), "replace the disk of osd.3") {
		t.Errorf("the last step is %s: %q", last, last.Change)
	}
	plan = wavesOf(t, 0.01, shrink)
	t.Log(plan.Why)
	if plan.LeftOut == nil || len(plan.Steps) > 0 {
		t.Errorf("with no room there are %d steps, left out %q", len(plan.Steps), plan.LeftOut)
	}
}
