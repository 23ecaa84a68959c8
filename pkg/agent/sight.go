package agent

import (
	"fmt"
	"strings"

	"github.com/holdfast-storage/holdfast/pkg/layout"
	"github.com/holdfast-storage/holdfast/pkg/obs/codes"
	"github.com/holdfast-storage/holdfast/pkg/rpc/agentapi"
	"github.com/holdfast-storage/holdfast/pkg/rpc/localapi"
	"github.com/holdfast-storage/holdfast/pkg/smart"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Checks concludes from a look what is wrong. It is pure.
func (s Sight) Checks() []agentapi.Check {
	var all []agentapi.Check
	add := func(code codes.Code, severity, action, format string, args ...any) {
		all = append(all, agentapi.Check{Code: string(code), Severity: severity, Message: fmt.Sprintf(format, args...), Action: action})
	}
	for _, d := range s.Inventory.Disks {
		switch h := s.Health[d.ID]; h.State {
		case smart.Failing:
			add(codes.DiskFailing, localapi.HealthErr, "replace it while it still works", "disk %s (%s) fails: %s", d.ID, d.Name, strings.Join(h.Concerns, ", "))
		case smart.Worn:
			add(codes.DiskWorn, localapi.HealthWarn, "have another disk ready", "disk %s (%s): %s", d.ID, d.Name, strings.Join(h.Concerns, ", "))
		}
	}
	for _, m := range s.Missing {
		add(codes.DiskGone, localapi.HealthErr, "put it back; if it is lost: "+replaceBy(m.Stack, m.Disk), "disk %s of stack %s is not in this machine", m.Disk, m.Stack)
	}
	for _, a := range s.Arrays {
		for _, d := range a.Failed {
			add(codes.DiskFailing, localapi.HealthErr, replaceBy(a.Stack, d), "disk %s has failed in array %s of stack %s", d, a.Name, a.Stack)
		}
		switch {
		case !a.Runs:
			add(codes.ArrayDown, localapi.HealthErr, "holdfast plan activate "+a.Stack, "array %s of stack %s does not run", a.Name, a.Stack)
		case a.Array.Degraded > 0:
			add(codes.ArrayDegraded, localapi.HealthWarn, "", "array %s of stack %s lacks %d of %d members: %s", a.Name, a.Stack, a.Array.Degraded, a.Array.Disks, spare(a))
		}
		if a.Runs && a.Array.Mismatches > 0 && !a.Array.Busy() && a.Want.Level != layout.RAID1 { // md counts what a mirror is still writing, too
			add(codes.ArrayMismatch, localapi.HealthWarn, "holdfast explain "+string(codes.ArrayMismatch), "array %s of stack %s: its last scrub found %d sectors whose parity does not match", a.Name, a.Stack, a.Array.Mismatches)
		}
	}
	if s.Err != "" {
		add(codes.ArrayDown, localapi.HealthUnknown, "", "arrays could not be looked at: %s", s.Err)
	}
	return all
}

func replaceBy(stack string, d storage.DiskID) string {
	return fmt.Sprintf("holdfast plan grow %s --step replace:%s=NEW", stack, d)
}

// spare says what a degraded array can still lose, and whether it is being filled.
func spare(a ArraySight) string {
	left := a.Want.Level.Survives(len(a.Want.Members)) - a.Array.Degraded
	text := fmt.Sprintf("it survives the loss of %d more", max(left, 0))
	if a.Array.Syncing() && a.Array.Total > 0 {
		text += fmt.Sprintf("; %s %.0f %%", a.Array.Action, 100*float64(a.Array.Done)/float64(a.Array.Total))
	}
	return text
}
