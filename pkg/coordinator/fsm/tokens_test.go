package fsm_test

import (
	"testing"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/coordinator/fsm"
	"github.com/holdfast-storage/holdfast/pkg/fault"
)

func TestATokenIsForOneKeyAndExpires(t *testing.T) {
	d := newDriver(t)
	admit := func(hash string, d2 time.Duration) *fsm.Admit {
		return &fsm.Admit{Hash: hash, Token: fsm.Token{Role: "agent", Name: "n7", Expires: d.now.Add(d2)}}
	}
	d.refused(fault.Range, "up to", admit("h", -time.Second))
	d.refused(fault.Range, "up to", admit("h", 8*24*time.Hour))
	d.must(admit("h", time.Minute))
	d.refused(fault.Denied, "not for", &fsm.Join{Hash: "x", Role: "agent", Name: "n7", Key: "k"})
	d.refused(fault.Denied, "not for", &fsm.Join{Hash: "h", Role: "coordinator", Name: "n7", Key: "k"})
	d.must(&fsm.Join{Hash: "h", Role: "agent", Name: "n7", Key: "k"})
	d.must(&fsm.Join{Hash: "h", Role: "agent", Name: "n7", Key: "k"}) // its answer was lost
	d.refused(fault.Denied, "already", &fsm.Join{Hash: "h", Role: "agent", Name: "n7", Key: "another"})
	d.now = d.now.Add(time.Hour)
	d.refused(fault.Denied, "expired", &fsm.Join{Hash: "h", Role: "agent", Name: "n7", Key: "k"})
	d.must(admit("i", time.Minute))
	if len(d.s.Tokens) != 1 {
		t.Errorf("tokens that have expired are kept: %v", d.s.Tokens)
	}
}
