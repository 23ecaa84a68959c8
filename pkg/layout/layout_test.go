package layout

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// sizes in tenths of a TB
func disks(tenths ...int) []Disk {
	var list []Disk
	for i, n := range tenths {
		list = append(list, Disk{ID: fmt.Sprintf("disk%d", i+1), Size: storage.Bytes(n) * TB / 10})
	}
	return list
}

func fresh(t *testing.T, p Policy, list []Disk) Layout {
	t.Helper()
	l, err := Fresh(list, p)
	if err != nil {
		t.Fatalf("%v of %v: %v", p, list, err)
	}
	return l
}

func TestCapacityOfMixedDisks(t *testing.T) {
	cases := []struct {
		disks                  []Disk
		one, strict, mirroring int // tenths of a TB
	}{
		{disks(40), 40, 40, 40}, // one disk: a pool without protection
		{disks(40, 80), 40, 0, 0},
		{disks(80, 80, 80, 80), 240, 160, 160},
		{disks(10, 20, 30, 40), 60, 20, 30},
		{disks(40, 40, 80, 80), 160, 80, 80},
		{disks(20, 40, 40, 80, 160), 180, 100, 100},
		{disks(20, 30, 40, 40), 90, 40, 50},
		{disks(5, 10, 15, 20, 20), 50, 25, 30},
		{disks(40, 60, 60, 80), 160, 80, 100},
		{disks(40, 40, 40, 80, 80, 80), 280, 160, 200},
	}
	for _, c := range cases {
		for _, kind := range []struct {
			policy Policy
			want   int
		}{{Policy{Tolerance: 1}, c.one}, {Policy{Tolerance: 2}, c.strict}, {Policy{Tolerance: 2, ThreeWayMirror: true}, c.mirroring}} {
			l, want := fresh(t, kind.policy, c.disks), storage.Bytes(kind.want)*TB/10
			if got := l.Capacity(); got != want {
				t.Errorf("%+v of %v: %s, want %s", kind.policy, c.disks, got.Decimal(), want.Decimal())
			}
		}
	}
}

func policies() []Policy {
	return []Policy{{Tolerance: 1}, {Tolerance: 2}, {Tolerance: 2, ThreeWayMirror: true}, {Tolerance: 1, Reserve: storage.GiB}}
}

// check holds what is true of every layout.
func check(t *testing.T, l Layout) {
	t.Helper()
	for i, s := range l.Slices {
		members := slices.Clone(s.Members)
		slices.Sort(members)
		if len(slices.Compact(members)) != len(s.Members) {
			t.Fatalf("slice %d has a disk twice: %+v", i+1, s)
		}
		if s.Size <= 0 || s.Survives() < l.Policy.Tolerance && len(l.Disks) > 1 {
			t.Fatalf("slice %d of %d disks: %+v", i+1, len(l.Disks), s)
		}
	}
	var used storage.Bytes
	for _, d := range l.Disks {
		if l.Free(d) < 0 {
			t.Fatalf("disk %s holds more than it has: %+v", d.ID, l)
		}
		used += l.Policy.usable(d.Size) - l.Free(d)
	}
	var members storage.Bytes
	for _, s := range l.Slices {
		members += s.Size * storage.Bytes(len(s.Members))
	}
	if used != members {
		t.Fatalf("slices have %d bytes of the disks, the disks give %d", members, used)
	}
}

func TestFreshLayoutsOfRandomDisks(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		list := randomDisks(random, 1+random.IntN(8))
		for _, p := range policies() {
			l := fresh(t, p, list)
			check(t, l)
			if diff := cmp.Diff(l, fresh(t, p, list)); diff != "" {
				t.Fatal(diff)
			}
			if p.Reserve > 0 || len(list) == 1 {
				continue
			}
			if want := bound(p, list); l.Capacity() != want {
				t.Fatalf("%+v of %v: %d, want %d", p, list, l.Capacity(), want)
			}
		}
	}
}

func randomDisks(random *rand.Rand, n int) []Disk {
	var tenths []int
	for range n {
		tenths = append(tenths, []int{5, 10, 20, 30, 40, 60, 80, 160}[random.IntN(8)])
	}
	return disks(tenths...)
}

// bound is the capacity of a fresh layout by the sums alone.
func bound(p Policy, list []Disk) storage.Bytes {
	var sizes []storage.Bytes
	var sum storage.Bytes
	for _, d := range list {
		sizes, sum = append(sizes, d.Size), sum+d.Size
	}
	slices.Sort(sizes)
	slices.Reverse(sizes)
	switch {
	case p.Tolerance == 1 && len(sizes) >= 2:
		return sum - sizes[0]
	case p.Tolerance == 2 && p.ThreeWayMirror && len(sizes) >= 3:
		return sum - sizes[0] - sizes[1]
	case p.Tolerance == 2 && !p.ThreeWayMirror && len(sizes) >= 4:
		return sum - sizes[0] - sizes[1] - sizes[2] + sizes[3]
	default:
		return 0
	}
}

func TestAnOwnersWholeLifeTakesFivePasses(t *testing.T) {
	const rate = 150e6
	l := fresh(t, Policy{Tolerance: 1}, disks(40))
	changes := []struct {
		change                      Change
		passes                      int
		sync, capacity, unprotected storage.Bytes
		redundancy                  int
	}{
		{Change{Add: []Disk{{ID: "b", Size: 8 * TB}}}, 1, 4 * TB, 4 * TB, 0, 0},
		{Change{Replace: []Replacement{{"disk1", Disk{ID: "c", Size: 8 * TB}}}}, 2, 8 * TB, 8 * TB, 0, 1},
		{Change{Add: []Disk{{ID: "d", Size: 8 * TB}, {ID: "e", Size: 8 * TB}}}, 2, 8 * TB, 24 * TB, 0, 1},
	}
	for _, c := range changes {
		after, step, err := l.Grow(c.change, rate)
		if err != nil {
			t.Fatal(err)
		}
		check(t, after)
		if step.Passes != c.passes || step.Sync != c.sync || step.After != c.capacity || after.Capacity() != c.capacity ||
			after.Unprotected() != c.unprotected || step.Redundancy != c.redundancy || step.Before != l.Capacity() {
			t.Fatalf("%s: %+v", step.What, step)
		}
		l = after
	}
	if len(l.Slices) != 2 {
		t.Fatalf("%+v", l.Slices)
	}
}

func TestGrowthOfRandomLayouts(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	var refused, made int
	for range 3000 {
		for _, p := range policies() {
			l := fresh(t, p, randomDisks(random, 1+random.IntN(5)))
			for step := range 4 {
				c := randomChange(random, l, step)
				after, done, err := l.Grow(c, 1e8)
				if err != nil {
					if !errors.Is(err, fault.Precondition) && !errors.Is(err, fault.Invalid) {
						t.Fatalf("%+v: %v", c, err)
					}
					refused++
					continue
				}
				made++
				again, _, _ := l.Grow(c, 1e8)
				if diff := cmp.Diff(after, again); diff != "" {
					t.Fatal(diff)
				}
				checkGrown(t, l, after, done)
				l = after
			}
		}
	}
	t.Logf("%d steps made, %d refused", made, refused)
}

func checkGrown(t *testing.T, before, after Layout, step Step) {
	t.Helper()
	check(t, after)
	if after.Capacity() < before.Capacity() || step.Redundancy < min(before.Survives(), before.Policy.Tolerance) {
		t.Fatalf("it lost: %+v\n%s\n%s", step, before.Picture(), after.Picture())
	}
	var sync storage.Bytes
	passes := 0
	for _, op := range step.Operations {
		sync, passes = sync+op.Sync, passes+op.Passes
	}
	if sync != step.Sync || passes != step.Passes {
		t.Fatalf("sums of %+v", step)
	}
	if whole, err := Fresh(after.Disks, after.Policy); err != nil || whole.Capacity() < after.Capacity() {
		t.Fatalf("a fresh layout is smaller (%v): %s, grown %s", err, whole.Picture(), after.Picture())
	}
}

func randomChange(random *rand.Rand, l Layout, step int) Change {
	list := randomDisks(random, 1+random.IntN(3))
	for i := range list {
		list[i].ID = fmt.Sprintf("step%d-%d", step, i)
	}
	old := l.Disks[random.IntN(len(l.Disks))]
	switch random.IntN(3) {
	case 0:
		return Change{Add: list}
	case 1:
		return Change{Replace: []Replacement{{old.ID, list[0]}}}
	default:
		return Change{Grown: []Disk{{ID: old.ID, Size: list[0].Size}}}
	}
}

func TestZeroedDisksNeedNoFirstSync(t *testing.T) {
	l := fresh(t, Policy{Tolerance: 1}, []Disk{{"a", 4 * TB, true}, {"b", 4 * TB, true}})
	after, step, err := l.Grow(Change{Grown: []Disk{{"a", 6 * TB, true}, {"b", 6 * TB, true}}}, 1e8)
	if err != nil || step.Passes != 0 || step.Sync != 0 || after.Capacity() != 6*TB {
		t.Fatalf("%+v, %v", step, err)
	}
	// What a partition grew over may hold anything.
	after, step, err = l.Grow(Change{Grown: []Disk{{"a", 6 * TB, true}, {"b", 6 * TB, false}}}, 1e8)
	if err != nil || step.Passes != 1 || step.Sync != 2*TB || after.Capacity() != 6*TB {
		t.Fatalf("%+v, %v", step, err)
	}
}

func TestAnOnlyDiskIsUsedToItsEnd(t *testing.T) {
	l := fresh(t, Policy{Tolerance: 1}, disks(10))
	for _, c := range []Change{{Grown: []Disk{{ID: "disk1", Size: 4 * TB}}}, {Replace: []Replacement{{"disk1", Disk{ID: "new", Size: 4 * TB}}}}} {
		after, step, err := l.Grow(c, 1e8)
		if err != nil || after.Capacity() != 4*TB || len(after.Slices) != 1 {
			t.Fatalf("%+v, %v", step, err)
		}
	}
}

func TestSmallerDisksThatComeLaterAreUsed(t *testing.T) {
	l := fresh(t, Policy{Tolerance: 2}, disks(40, 40, 40, 40))
	small := []Disk{{ID: "a", Size: 2 * TB}, {ID: "b", Size: 2 * TB}, {ID: "c", Size: 2 * TB}, {ID: "d", Size: 2 * TB}}
	after, step, err := l.Grow(Change{Add: small}, 1e8)
	if err != nil || after.Capacity() != 12*TB || step.Passes != 1 {
		t.Fatalf("%+v, %v", step, err)
	}
}

func TestForecastOfAnyRate(t *testing.T) {
	l := fresh(t, Policy{Tolerance: 1}, disks(40))
	for rate, want := range map[storage.Bytes]int64{1 << 62: 1, 1: 4e12, 3: 1333333333334} {
		if _, step, err := l.Grow(Change{Add: []Disk{{ID: "b", Size: 4 * TB}}}, rate); err != nil || step.Forecast != want {
			t.Fatalf("%d: %+v, %v", rate, step, err)
		}
	}
}

func TestRefusals(t *testing.T) {
	pair := fresh(t, Policy{Tolerance: 1, Bays: 2}, disks(40, 40))
	alone := fresh(t, Policy{Tolerance: 1, Bays: 1, AllowDegraded: true}, disks(40))
	strict := fresh(t, Policy{Tolerance: 2}, disks(40))
	big := Disk{ID: "new", Size: 8 * TB}
	cases := []struct {
		name   string
		layout Layout
		change Change
		want   error
	}{
		{"a smaller replacement", pair, Change{Replace: []Replacement{{"disk1", Disk{ID: "new", Size: 3 * TB}}}}, fault.Invalid},
		{"a replacement that lowers redundancy", pair, Change{Replace: []Replacement{{"disk1", big}}}, fault.Precondition},
		{"a disk without a bay", pair, Change{Add: []Disk{big}}, fault.Range},
		{"the only copy taken out", alone, Change{Replace: []Replacement{{"disk1", big}}}, fault.Precondition},
		{"too few disks for the policy", strict, Change{Add: []Disk{big}}, fault.Precondition},
		{"an unknown disk", pair, Change{Replace: []Replacement{{"disk9", big}}}, fault.NotFound},
		{"a disk of the pool's id", strict, Change{Add: []Disk{{ID: "disk1", Size: TB}}}, fault.Invalid},
		{"a disk that shrank", pair, Change{Grown: []Disk{{ID: "disk1", Size: TB}}}, fault.Invalid},
		{"nothing", pair, Change{}, fault.Invalid},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			after, _, err := c.layout.Grow(c.change, 1e8)
			if !errors.Is(err, c.want) {
				t.Fatalf("%v, want %v", err, c.want)
			}
			if diff := cmp.Diff(c.layout, after); diff != "" {
				t.Fatal(diff)
			}
		})
	}
	if _, _, err := pair.Grow(Change{Add: []Disk{big}}, 0); !errors.Is(err, fault.Invalid) {
		t.Fatal(err)
	}
	degraded := pair
	degraded.Policy.AllowDegraded = true
	_, step, err := degraded.Grow(Change{Replace: []Replacement{{"disk1", big}}}, 1e8)
	if err != nil || step.Redundancy != 0 || step.Passes != 1 {
		t.Fatalf("%+v, %v", step, err)
	}
}

func TestAdvice(t *testing.T) {
	have := fresh(t, Policy{Tolerance: 1}, disks(40, 40, 80))
	list, err := Advise(have, 2, []storage.Bytes{8 * TB, 2 * TB, 4 * TB}, 150e6)
	if err != nil {
		t.Fatal(err)
	}
	want := []Advice{
		{Size: 2 * TB, Change: "add 2", Capacity: 12 * TB, Gain: 4 * TB, Unused: 2 * TB, Passes: 1, Sync: 2 * TB, Forecast: 13334},
		{Size: 4 * TB, Change: "add 2", Capacity: 16 * TB, Gain: 8 * TB, Unused: 4 * TB, Passes: 1, Sync: 4 * TB, Forecast: 26667},
		{Size: 8 * TB, Change: "add 2", Capacity: 24 * TB, Gain: 16 * TB, Passes: 2, Sync: 8 * TB, Forecast: 53334},
	}
	if diff := cmp.Diff(want, list); diff != "" {
		t.Fatal(diff)
	}
	have.Policy.Bays = 4
	list, err = Advise(have, 2, []storage.Bytes{3 * TB, 8 * TB}, 150e6)
	if err != nil || list[0].Why == "" || list[1].Change != "replace 1, add 1" || list[1].Capacity != 20*TB {
		t.Fatalf("%+v, %v", list, err)
	}
}

func TestPictureShowsDisksAsColumnsAndSlicesAsBands(t *testing.T) {
	l := fresh(t, Policy{Tolerance: 1}, disks(40, 80, 160))
	want := `         disk1    disk2    disk3
         4 TB     8 TB     16 TB
unused                     8 TB
slice 2           [4 TB]   [4 TB]   raid1, holds 4 TB
slice 1  [4 TB]   [4 TB]   [4 TB]   raid5, holds 8 TB
`
	if diff := cmp.Diff(want, l.Picture()); diff != "" {
		t.Fatal(diff)
	}
}
