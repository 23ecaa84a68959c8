package fsm

import (
	"maps"
	"slices"
	"time"
)

// Restored makes a backup's state fit to go on from: what was at work when it was taken may have been done, cancelled or
// abandoned since, so every plan that is held waits for a person, and no lease of then is good; a join token may have been used since, so none
// is good either. Terms go on from after.
func (s *State) Restored(at time.Time, who string, after uint64) {
	s.Term, s.Tokens = max(s.Term, after), nil
	if at.After(s.Clock) {
		s.Clock = at
	}
	for _, id := range slices.Sorted(maps.Keys(s.Plans)) {
		e := s.Plans[id]
		e.Lease = nil
		if e.Phase == Approved || e.Phase == Running || e.Phase == Stopped {
			e.Pause = &Pause{By: who, Why: "restored from a backup: look at what it has done since, then resume or abandon it", At: s.Clock}
		}
	}
	s.note(Command{Who: who, At: s.Clock}, "coordinators", "restored from a backup")
}
