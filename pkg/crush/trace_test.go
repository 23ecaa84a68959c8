package crush_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/crush"
)

// change edits a map at random: weights, OSDs that come and go, hosts that go.
func change(t *testing.T, random *rand.Rand, m *crush.Map) *crush.Map {
	t.Helper()
	next := m.Clone()
	for range 1 + random.IntN(3) {
		if len(next.Devices) == 0 {
			break
		}
		d := next.Devices[random.IntN(len(next.Devices))]
		holder := next.Holder(d.ID)
		switch {
		case holder == nil:
		case random.IntN(4) == 0:
			_ = next.Remove(d.ID)
		case random.IntN(6) == 0 && len(next.Devices) > 8:
			_ = next.Remove(holder.ID)
		case random.IntN(3) == 0:
			next.AddDevice(crush.Device{ID: crush.ItemID(next.MaxDevices()), Name: "osd.new", Class: d.Class}, holder, crush.One)
		default:
			_ = next.SetItemWeight(d.ID, crush.Weight(random.IntN(5*int(crush.One))))
		}
	}
	if next.Rebuild() != nil {
		return nil // uniform buckets hold items of one weight
	}
	return next
}

// TestWhatADeltaKeepsIsTheSame changes random maps at random, and maps all inputs anew.
func TestWhatADeltaKeepsIsTheSame(t *testing.T) {
	kept, same, all := 0, 0, 0
	for seed := range uint64(400) {
		algorithms := everyAlgorithm
		if seed%2 == 0 {
			algorithms = []string{"straw2"}
		}
		m := generate(seed, algorithms)
		before, err := crush.Parse([]byte(m.text))
		if err != nil {
			continue
		}
		random := rand.New(rand.NewPCG(seed, 3))
		after := change(t, random, before)
		if after == nil {
			continue
		}
		a, err1 := crush.NewMapper(before, 0)
		b, err2 := crush.NewMapper(after, 0)
		if err1 != nil || err2 != nil {
			continue
		}
		reweight(random, a, m.osds/8)
		reweight(random, b, m.osds/8)
		delta := crush.NewDelta(a, b)
		var trace []crush.Draw
		for rule := range m.rules {
			for x := range int32(100) {
				var was, is []crush.ItemID
				if was, trace, err = a.DoTraced(nil, trace[:0], rule, x, 3); err != nil {
					t.Fatal(err)
				}
				if is, err = b.Do(nil, rule, x, 3); err != nil {
					t.Fatal(err)
				}
				all++
				if slices.Equal(was, is) {
					same++
				}
				if !delta.Keeps(rule, x, trace) {
					continue
				}
				if kept++; !slices.Equal(was, is) {
					t.Fatalf("seed %d, rule %d, x %d: %v becomes %v, and the delta keeps it", seed, rule, x, was, is)
				}
			}
		}
	}
	t.Logf("of %d mappings %d are the same after the change, and %d are known to be", all, same, kept)
}
