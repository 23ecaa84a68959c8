package machine

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/daemon"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/osd"
	"github.com/holdfast-storage/holdfast/pkg/rpc/agentapi"
	"github.com/holdfast-storage/holdfast/pkg/rpc/localapi"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

func TestWhoStartsAnOSD(t *testing.T) {
	const ours, theirs = "11111111-2222-4333-8444-555555555555", "99999999-2222-4333-8444-555555555555"
	for name, c := range map[string]struct {
		placed        osd.Placed
		state, keeper string
	}{
		"one that the agent made":        {osd.Placed{ID: 5, Known: true, Up: true, Label: storage.OSD{FSID: ours}}, "up", "agent"},
		"one that has died":              {osd.Placed{ID: 5, Known: true, Label: storage.OSD{FSID: ours}}, "down", "agent"},
		"one of the supervisor":          {osd.Placed{ID: 1, Known: true, Up: true, Label: storage.OSD{FSID: ours}}, "up", "supervisor"},
		"one that the cluster has not":   {osd.Placed{ID: 5, Label: storage.OSD{FSID: ours}}, "removed", ""},
		"one of another cluster":         {osd.Placed{ID: 5, Label: storage.OSD{FSID: theirs}}, "foreign", ""},
		"one that does not say of which": {osd.Placed{ID: -1}, "foreign", ""},
	} {
		if s, k := state(c.placed, ours), keeperOf(c.placed, ours, []int{0, 1, 2}); s != c.state || k != c.keeper {
			t.Errorf("%s: %q started by %q, want %q by %q", name, s, k, c.state, c.keeper)
		}
	}
}

func TestOSDsAreNotStartedBesideASupervisorThatIsGone(t *testing.T) {
	o := &OSDs{Paths: daemon.Paths{Dir: t.TempDir()}}
	if !o.wanted(t.Context()) {
		t.Error("there is no supervisor")
	}
	if err := os.WriteFile(localapi.StateFile(o.Paths.Dir), []byte(`{"kind": "`+localapi.IdentityKind+`", "osds": [{"id": 0}, {"id": 4}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if o.wanted(t.Context()) {
		t.Error("the cluster is down because somebody wants it so")
	}
	if ids, err := localapi.OwnOSDs(o.Paths.Dir); err != nil || len(ids) != 2 || ids[1] != 4 {
		t.Error(ids, err)
	}
	if started, err := o.Activate(t.Context(), func(storage.DiskID) bool { return false }); err != nil || len(started) > 0 {
		t.Error(started, err)
	}
}

func TestWithoutAClusterThereAreNoOSDs(t *testing.T) {
	o := &OSDs{Paths: daemon.Paths{Dir: t.TempDir()}}
	if _, err := o.Plan(t.Context(), agentapi.OSDRequest{Do: "prepare", Disk: "D1"}); !errors.Is(err, fault.NotFound) {
		t.Error(err)
	}
	if _, err := o.List(t.Context()); !errors.Is(err, fault.NotFound) {
		t.Error(err)
	}
}

func TestAnOSDIsNotStartedOnTwoMachines(t *testing.T) {
	here := []net.Addr{&net.IPNet{IP: net.ParseIP("127.0.0.1"), Mask: net.CIDRMask(8, 32)}, &net.IPNet{IP: net.ParseIP("10.0.0.7"), Mask: net.CIDRMask(24, 32)}, &net.IPNet{IP: net.ParseIP("fd00::7"), Mask: net.CIDRMask(64, 128)}}
	at := netip.MustParseAddr
	for name, c := range map[string]struct {
		placed osd.Placed
		want   bool
	}{
		"down":                                {osd.Placed{Address: at("10.0.0.8")}, false},
		"up, and it died with this machine":   {osd.Placed{Up: true, Address: at("10.0.0.7")}, false},
		"the same, by IPv6":                   {osd.Placed{Up: true, Address: at("fd00::7")}, false},
		"up at another machine of the subnet": {osd.Placed{Up: true, Address: at("10.0.0.8")}, true},
		"up, and nobody knows where":          {osd.Placed{Up: true}, true},
	} {
		if got := elsewhere(c.placed, here); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestADiskThatWasMovedHereIsAdoptedByAPersonAlone(t *testing.T) {
	o := &OSDs{Paths: daemon.Paths{Dir: t.TempDir()}}
	if err := o.start(t.Context(), nil, osd.Placed{ID: 5}); !errors.Is(err, fault.Precondition) || !strings.Contains(err.Error(), "holdfast osd adopt") {
		t.Error(err)
	}
}
