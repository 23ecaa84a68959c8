package crush_test

import (
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/crush"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

func TestEditsAddWeightsUpAndKeepCopiesOfClasses(t *testing.T) {
	before, err := crush.Parse([]byte(head + "device 2 osd.2 class ssd\nhost a {\n\talg straw2\n\titem osd.0 weight 1\n\titem osd.2 weight 2\n}\nroot r {\n\talg straw2\n\titem a\n}\n"))
	if err != nil {
		t.Fatal(err)
	}
	m := before.Clone()
	host, err := m.AddBucket("b", 1, m.BucketNamed("r"))
	if err != nil {
		t.Fatal(err)
	}
	m.AddDevice(crush.Device{ID: 3, Name: "osd.3", Class: "ssd"}, host, crush.WeightOf(4*storage.TiB))
	if err := m.SetItemWeight(0, 3*crush.One); err != nil {
		t.Fatal(err)
	}
	if err := m.Rebuild(); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]crush.Weight{"r": 9, "a": 5, "b": 4, "r~ssd": 6, "a~ssd": 2, "b~ssd": 4} {
		if b := m.BucketNamed(name); b == nil || b.Weight != want*crush.One {
			t.Errorf("%s: %+v, want %d", name, b, want)
		}
	}
	if m.BucketNamed("a~ssd").ID != before.BucketNamed("a~ssd").ID || before.BucketNamed("r").Weight != 3*crush.One || before.BucketNamed("b") != nil {
		t.Error("a copy changed its id, or the map before was changed")
	}
	if err := m.Remove(host.ID); err != nil {
		t.Fatal(err)
	}
	if err := m.Rebuild(); err != nil || m.BucketNamed("b") != nil || m.BucketNamed("r").Weight != 5*crush.One || len(m.Devices) != 3 {
		t.Errorf("%v %+v", err, m.Devices)
	}
}
