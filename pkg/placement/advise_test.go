package placement_test

import (
	"slices"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/placement"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

func inventory(racks, hosts, osds int) placement.Inventory {
	return placement.Inventory{Levels: []placement.Level{{Type: "rack", Count: racks}, {Type: "host", Count: hosts}, {Type: "osd", Count: osds}}}
}

func TestFailureDomainFallsAndRises(t *testing.T) {
	for want, v := range map[string]placement.Inventory{"rack": inventory(3, 6, 12), "host": inventory(2, 6, 12), "osd": inventory(1, 2, 12)} {
		a, err := placement.Advise(placement.Policy{Bytes: 1e12, Failures: 2, Domain: "rack"}, v)
		if err != nil || a.Domain != want || a.Size != 3 || a.MinSize != 2 {
			t.Errorf("%v: %v %+v, want %s", v, err, a, want)
		}
	}
	if _, err := placement.Advise(placement.Policy{Bytes: 1e12, Failures: 2}, inventory(0, 1, 2)); err == nil {
		t.Error("three copies on two OSDs")
	}
}

func TestWritesGoOnAfterAFailureAndNeverToASingleCopy(t *testing.T) {
	for _, c := range []struct {
		failures, hosts, size, min int
		profile                    placement.Profile
	}{
		{1, 6, 3, 2, placement.RBD}, {2, 6, 3, 2, placement.RBD}, {3, 6, 4, 3, placement.CephFS},
		{1, 2, 2, 1, placement.RBD},    // no third host: hosts stay apart, and it says what is at risk
		{1, 6, 2, 1, placement.Search}, // the store has copies of its own
	} {
		a, err := placement.Advise(placement.Policy{Bytes: 1e12, Failures: c.failures, Profile: c.profile}, inventory(0, c.hosts, 24))
		if err != nil || a.Size != c.size || a.MinSize != c.min || a.Domain != "host" {
			t.Errorf("%+v: %v %+v", c, err, a)
		}
	}
}

func TestAPoolInheritsWhatItLeavesOpen(t *testing.T) {
	cluster := placement.Policy{Failures: 2, Class: "hdd"}
	class := placement.Policy{Class: "ssd", PGBytes: 10 * storage.GiB}.Inherit(cluster)
	pool := placement.Policy{Bytes: 1e12}.Inherit(class)
	if fromDefaults := pool.Inherit(placement.DefaultPolicy()); fromDefaults.PGsPerOSD != 100 || fromDefaults.Class != "ssd" {
		t.Errorf("%+v", fromDefaults)
	}
	if pool.Failures != 2 || pool.Class != "ssd" || pool.PGBytes != 10*storage.GiB {
		t.Errorf("%+v", pool)
	}
}

func TestPGsAreAPowerOfTwoWithinTheBudget(t *testing.T) {
	var last int
	for _, bytes := range []storage.Bytes{1e9, 1e12, 1e13, 1e14, 1e16} {
		a, err := placement.Advise(placement.Policy{Bytes: bytes, Failures: 2}, inventory(0, 6, 24))
		if err != nil {
			t.Fatal(err)
		}
		if a.PGs&(a.PGs-1) != 0 || a.PGs < last || a.PGsOnOSD > 150 {
			t.Errorf("%s: %+v", bytes, a)
		}
		last = a.PGs
	}
}

func TestBackupsAreErasureCodedWhereThereIsRoom(t *testing.T) {
	var kinds []string
	for _, hosts := range []int{3, 4, 8, 12} {
		a, err := placement.Advise(placement.Policy{Profile: placement.Backup, Bytes: 1e13, Failures: 1}, inventory(0, hosts, 48))
		if err != nil {
			t.Fatal(err)
		}
		kinds = append(kinds, a.Type)
		if a.Type == "erasure" && (a.K+a.M > hosts && a.Domain == "host" || a.MinSize != a.K+1) {
			t.Errorf("%d hosts: %+v", hosts, a)
		}
	}
	if !slices.Contains(kinds, "erasure") {
		t.Error(kinds)
	}
}
