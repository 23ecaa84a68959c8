package standalone

import (
	"errors"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/certs"
	"github.com/holdfast-storage/holdfast/pkg/fault"
)

func TestCoordinatorsStayInTheClustersOwnWindow(t *testing.T) {
	base, err := choosePorts("/coordinators", DefaultAddress, 0, portBlock)
	if err != nil {
		t.Fatal(err)
	}
	old := State{Address: DefaultAddress, PortLow: base + 3, PortHigh: base + portBlock - 1}
	s := old
	if err := s.giveCoordinators(3); err != nil || s.Coordinators[0].Port != old.PortHigh-2 || s.Coordinators[2].Port != old.PortHigh || s.PortHigh != old.PortHigh-3 {
		t.Errorf("%+v, %v", s, err)
	}
	again := s
	if err := again.giveCoordinators(1); err != nil || !slices.Equal(again.Coordinators, s.Coordinators) || again.PortHigh != s.PortHigh {
		t.Errorf("a second time: %+v, %v", again, err)
	}
	l, err := net.Listen("tcp", net.JoinHostPort(DefaultAddress, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s = old
	s.PortHigh = l.Addr().(*net.TCPAddr).Port
	high := s.PortHigh
	if err := s.giveCoordinators(1); s.PortHigh != high || err == nil && s.Coordinators[0].Port <= high+1 || err != nil && !errors.Is(err, fault.Exhausted) {
		t.Errorf("the window's top is taken: %+v, %v", s, err)
	}
	s = old
	s.Address = "192.0.2.1"
	if err := s.giveCoordinators(1); !errors.Is(err, fault.Invalid) {
		t.Errorf("the address is not this machine's: %v", err)
	}
	if err := s.adjust(Options{Stop: true}); err != nil || len(s.Coordinators) > 0 {
		t.Errorf("to stop it: %+v, %v", s.Coordinators, err)
	}
}

func TestAHostMayHaveTheCoordinatorsName(t *testing.T) {
	s := &Supervisor{dir: t.TempDir(), state: &State{NodeName: "coordinator"}}
	if err := s.certify(time.Now()); err != nil {
		t.Fatal(err)
	}
	store, err := certs.Open(s.coordinatorDir(agentDir))
	if err != nil || !slices.Contains(s.agentCommand().Args, store.Identity().Name) {
		t.Errorf("the agent of %v has the command %v, %v", store.Identity(), s.agentCommand().Args, err)
	}
}
