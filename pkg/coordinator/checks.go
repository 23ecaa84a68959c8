package coordinator

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/certs"
	"github.com/holdfast-storage/holdfast/pkg/coordinator/fsm"
	"github.com/holdfast-storage/holdfast/pkg/obs/codes"
)

// check is one thing that is wrong.
type check struct {
	Code    codes.Code
	Message string
}

// quietLeader is how long nothing may be heard of a leader.
const quietLeader = 10 * time.Second

// checks are what is wrong, as this member sees it.
func (s *Server) checks() []check { return append(s.ownChecks(), s.planChecks()...) }

// ownChecks are what is wrong beside the plans.
func (s *Server) ownChecks() (list []check) {
	add := func(code codes.Code, format string, args ...any) {
		list = append(list, check{code, fmt.Sprintf(format, args...)})
	}
	if last := s.members.LastContact(); s.members.Leader().Name == "" || s.now().Sub(last) > quietLeader {
		add(codes.CoordinatorNoLeader, "nobody leads, as %s knows", s.members.Name())
	}
	if left := s.certs.Expires().Sub(s.now()); left < certs.Soon {
		add(codes.CertificateExpires, "the certificate of %s ends in %s", s.members.Name(), left.Round(time.Hour))
	}
	if s.planner != nil && s.planner.Balancer() == "on" {
		add(codes.BalancerOn, "the Ceph manager's balancer is on, beside the coordinators")
	}
	return list
}

// planChecks are what is wrong with plans, of all nodes.
func (s *Server) planChecks() (list []check) {
	add := func(code codes.Code, format string, args ...any) {
		list = append(list, check{code, fmt.Sprintf(format, args...)})
	}
	s.log.View(func(state *fsm.State) {
		for _, id := range slices.Sorted(maps.Keys(state.Plans)) {
			switch e := state.Plans[id]; {
			case e.Phase == fsm.Stopped:
				add(codes.PlanStopped, "plan %s: %s", id, e.Status())
			case e.Held() && e.Pause != nil && e.Pause.By == fsm.Coordinator:
				add(codes.PlanWaits, "plan %s waits: %s", id, e.Pause.Why)
			}
		}
	})
	return list
}
