package live

import (
	"errors"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/md"
)

// raid is an idle array of three with members.
func raid(degraded int, members ...md.Member) md.Array {
	return md.Array{Device: "md127", Level: "raid5", Disks: 3, Action: "idle", Degraded: degraded, Members: members}
}

func member(device string, slot int) md.Member {
	return md.Member{Device: device, Slot: slot, InSync: true}
}

var failed = md.Member{Device: "old", Slot: -1, Faulty: true}

func TestAMemberIsSucceededOnlyInItsOwnPlace(t *testing.T) {
	copying := md.Member{Device: "new", Slot: 0, Replacing: true}
	for name, c := range map[string]struct {
		array md.Array
		ok    bool
	}{
		"the copy is whole and md failed the old one":      {raid(0, failed, member("b", 1), member("c", 2), member("new", 0)), true},
		"the old one is gone":                              {raid(0, member("b", 1), member("c", 2), member("new", 0)), true},
		"the old one failed and the new one is elsewhere":  {raid(1, failed, member("b", 1), member("new", 2)), true},
		"both hold one place":                              {raid(0, member("old", 0), member("b", 1), member("c", 2), member("new", 0)), true},
		"the new one took the place of one that failed":    {raid(0, member("old", 0), member("b", 1), member("new", 2)), false},
		"the copy goes on":                                 {raid(0, member("old", 0), member("b", 1), member("c", 2), copying), false},
		"the copy is whole and the old one has its place":  {raid(0, member("old", 0), md.Member{Device: "new", Slot: 0, InSync: true, Replacing: true}), false},
		"the new one is a spare":                           {raid(0, member("old", 0), member("b", 1), member("c", 2), md.Member{Device: "new", Slot: -1}), false},
		"the new one has failed":                           {raid(1, failed, member("b", 1), member("c", 2), md.Member{Device: "new", Slot: 0, Faulty: true}), false},
		"the new one is not there":                         {raid(1, failed, member("b", 1), member("c", 2)), false},
		"the old one failed while the new one is not full": {raid(1, failed, member("b", 1), member("c", 2), md.Member{Device: "new", Slot: 0}), false},
	} {
		err := succeeded(c.array, "old", "new")
		if (err == nil) != c.ok || err != nil && !errors.Is(err, fault.Precondition) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAMemberThatServesLeavesOnlyAnArrayThatLacksNobody(t *testing.T) {
	busy := raid(0, member("old", 0), member("b", 1), member("c", 2))
	busy.Action = "recover"
	for name, c := range map[string]struct {
		array md.Array
		ok    bool
	}{
		"all are there":                 {raid(0, member("old", 0), member("b", 1), member("c", 2)), true},
		"another one is missing":        {raid(1, member("old", 0), member("b", 1)), false},
		"the array is filling a member": {busy, false},
		"it has failed":                 {raid(2, failed, member("b", 1)), true},
		"it is a spare":                 {raid(1, md.Member{Device: "old", Slot: -1}, member("b", 1)), true},
		"it is gone":                    {raid(1, member("b", 1), member("c", 2)), true},
	} {
		if err := mayGo(c.array, "old"); (err == nil) != c.ok || err != nil && !errors.Is(err, fault.Precondition) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
