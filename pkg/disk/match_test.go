package disk_test

import (
	"strings"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/disk"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

func shelf() []storage.Disk {
	return []storage.Disk{
		{ID: "naa.3", Name: "sda", Size: 8e12, Model: "WDC WD80", Rotational: true},
		{ID: "naa.2", Name: "sdb", Size: 4_000_787_030_016, Model: "WDC WD40", Rotational: true},
		{ID: "naa.1", Name: "sdc", Size: 4_000_787_030_016, Model: "WDC WD40", Rotational: true, ByID: []string{"wwn-0x1"}},
		{ID: "naa.4", Name: "sdd", Size: 1e12, Model: "Samsung SSD 870", Reasons: []storage.Reason{{Code: storage.ReasonMounted, Message: "mounted at /"}}},
		{ID: "naa.5", Name: "sde", Size: 1e12, Model: "Samsung SSD 870"},
	}
}

func TestDisksAreSelectedByWhatTheyAre(t *testing.T) {
	for text, want := range map[string]string{
		"size=4TB":                         "naa.1 naa.2",
		"size=4TB..10TB":                   "naa.1 naa.2 naa.3",
		"size=5TB..":                       "naa.3",
		"size=..2TB":                       "naa.5",
		"rotational=true,count=1":          "naa.1",
		"model=wdc*,rotational=true":       "naa.1 naa.2 naa.3",
		"model=*870*":                      "naa.5",
		"by-id=/dev/disk/by-id/wwn-0x1":    "naa.1",
		"id=naa.2":                         "naa.2",
		"model=Seagate*":                   "",
		"size = 4TB, rotational = 1":       "naa.1 naa.2",
		"rotational=false,size=900GB..1TB": "naa.5",
	} {
		m, err := disk.ParseMatch(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		s, err := m.Select(shelf())
		var got []string
		for _, d := range s.Selected {
			got = append(got, string(d.ID))
		}
		if strings.Join(got, " ") != want || err != nil {
			t.Errorf("%s: got %v, %v, want %s", text, got, err, want)
		}
	}
}

func TestFewerDisksThanCountedAreAnError(t *testing.T) {
	m, err := disk.ParseMatch("model=samsung*,count=2")
	if err != nil {
		t.Fatal(err)
	}
	s, err := m.Select(shelf())
	if err == nil || !strings.Contains(err.Error(), "1 free disks match, and 2 are wanted; 1 more match and are not free") || len(s.Refused) != 1 {
		t.Errorf("got %v, %v", s, err)
	}
}

func TestSelectionsThatMakeNoSenseAreRefused(t *testing.T) {
	for text, want := range map[string]string{
		"":                  "is no selection",
		"size":              "is no selection",
		"size=":             "is no selection",
		"size=big":          "not a number with a unit",
		"size=10TB..4TB":    "above the second",
		"size=..":           "at least one end",
		"count=0":           "a number from 1",
		"count=two":         "a number from 1",
		"rotational=yes":    "true or false",
		"colour=blue":       "no property of a disk",
		"name=sda":          "after the next boot",
		"by-id=/dev/sda":    "after the next boot",
		"model=[":           "syntax error",
		"size=4TB,size=8TB": "twice",
		"model=a,,size=4TB": "is no selection",
	} {
		if _, err := disk.ParseMatch(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
}

func FuzzParseMatch(f *testing.F) {
	f.Add("size=4TB..10TB,model=WDC*,rotational=false,count=2")
	f.Fuzz(func(t *testing.T, text string) {
		if m, err := disk.ParseMatch(text); err == nil {
			_, _ = m.Select(shelf())
		}
	})
}
