package stack_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/layout"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/stack"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

func gone(id string, size storage.Bytes) layout.Disk { return layout.Disk{ID: id, Size: size} }

// TestAPlanMayBeGivenUpAtEveryStep gives plans up before and after every step, and makes of what is left what the plan was to make.
func TestAPlanMayBeGivenUpAtEveryStep(t *testing.T) {
	const tb = 1000 * storage.GiB
	first, _, err := stack.New("media", "6a5f3c2e-0000-4000-8000-000000000001", []layout.Disk{gone("A", 4*tb), gone("B", 8*tb), gone("C", 8*tb)},
		layout.Policy{Tolerance: 1, Reserve: storage.GiB}, stack.Volume{FileSystem: "ext4", MountPoint: "/mnt"}, storage.MiB)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]layout.Change{
		"add":     {Add: []layout.Disk{gone("D", 8*tb)}},
		"replace": {Replace: []layout.Replacement{{Old: "A", New: gone("D", 8*tb)}}},
	} {
		want, p, err := first.Grow(change, storage.MiB)
		if err != nil {
			t.Fatal(err)
		}
		for at := range len(p.Steps) + 1 {
			for _, begun := range []bool{false, true} {
				for _, after := range []bool{false, true} {
					left, exists, err := stack.Abandon(first, true, p, at, begun && at < len(p.Steps), func(stack.ArrayArgs) (bool, error) { return after, nil })
					if err != nil || !exists {
						t.Fatalf("%s, %d steps done: %v", name, at, err)
					}
					goOn(t, first, left, want)
				}
			}
		}
	}
}

// goOn closes what a plan left and grows it to what was wanted.
func goOn(t *testing.T, parent, left, want stack.Stack) {
	t.Helper()
	if closing, needed, err := left.Close(parent, func(stack.Array) bool { return true }, storage.MiB); err != nil {
		t.Fatal(err)
	} else if needed {
		hash, _ := plan.Hash(left)
		if closing.Parent != hash || len(closing.Of(plan.Take)) > 0 || len(closing.Of(plan.Release)) > 0 {
			t.Fatalf("closing takes disks: %s", closing.Text())
		}
		if left, err = stack.Parse(closing.State); err != nil {
			t.Fatal(err)
		}
	}
	var change layout.Change
	has := map[string]bool{}
	for _, d := range left.Layout.Disks {
		has[d.ID] = true
	}
	for _, d := range want.Layout.Disks {
		switch {
		case has["A"] && len(want.Layout.Disks) == 3 && d.ID == "D" && !has["D"]:
			change.Replace = []layout.Replacement{{Old: "A", New: d}}
		case !has[d.ID]:
			change.Add = append(change.Add, d)
		case d.ID == "D":
			change.Grown = []layout.Disk{d}
		}
	}
	if len(change.Add) > 0 || len(change.Replace) > 0 {
		change.Grown = nil
	}
	if has["A"] && has["D"] && len(want.Layout.Disks) == 3 {
		return // A and D are both in: it has become an addition of D, whose A can be replaced again
	}
	grown, _, err := left.Grow(change, storage.MiB)
	if err != nil {
		t.Fatalf("from %s: %v", left.Layout.Picture(), err)
	}
	if diff := cmp.Diff(want.Layout.Capacity(), grown.Layout.Capacity()); diff != "" {
		t.Fatalf("from %s to %s:\n%s", left.Layout.Picture(), grown.Layout.Picture(), diff)
	}
}

func TestANewStackThatIsGivenUpLeavesNone(t *testing.T) {
	_, p, err := stack.New("media", "6a5f3c2e-0000-4000-8000-000000000001", []layout.Disk{gone("A", storage.TiB), gone("B", storage.TiB)},
		layout.Policy{Tolerance: 1, Reserve: storage.GiB}, stack.Volume{FileSystem: "ext4", MountPoint: "/mnt"}, storage.MiB)
	if err != nil {
		t.Fatal(err)
	}
	if _, exists, err := stack.Abandon(stack.Stack{}, false, p, 3, true, nil); err != nil || exists {
		t.Fatal(exists, err)
	}
	if _, _, err := stack.Abandon(stack.Stack{}, false, p, len(p.Steps)-1, true, nil); !errors.Is(err, fault.Precondition) {
		t.Fatal(err)
	}
}
