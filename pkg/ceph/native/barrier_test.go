package native

import "testing"

func TestObjectsFallIntoPlacementGroupsAsCephPutsThem(t *testing.T) {
	// `ceph osd map rbd NAME` (raw_pgid).
	for name, want := range map[string]uint32{"a": 0x29eec818, "foo-1": 0x716bcb1d, "hf-barrier-0": 0xfc845557, "hf-barrier-12": 0x95b037, "0123456789ab": 0x92f31ad0, "0123456789abcdefghijklmnopq": 0x67e335dc, "한글": 0x9ad36311} {
		if got := rjenkins(name); got != want {
			t.Errorf("%q: got %x, want %x", name, got, want)
		}
	}
	for _, groups := range []int{1, 2, 3, 8, 12, 100, 256} {
		for at, name := range oneForEach(groups) {
			if got := stableMod(rjenkins(name), uint32(groups)); got != uint32(at) {
				t.Errorf("%q is in group %d of %d, not %d", name, got, groups, at)
			}
		}
	}
}
