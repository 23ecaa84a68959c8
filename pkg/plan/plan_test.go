package plan_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/plan"
)

func sealed(t testing.TB) plan.Plan {
	t.Helper()
	p, err := plan.Plan{
		Parent: "p", Subject: "stack 미디어", What: "replace A by B", Before: 4 << 40, After: 8 << 40, Notes: []string{"mind the gap"}, State: []byte(`{"a":1}`),
		Disks: []plan.Disk{{"B", 8e12, plan.Take}, {"C", 8e12, plan.Keep}, {"A", 4e12, plan.Release}},
		Steps: []plan.Step{
			{Kind: "partition-add", What: "add", Redundancy: 1, Args: []byte(`{}`), Requires: []string{"it is blank"}},
			{Kind: "array-reshape", What: "reshape", Sync: 4 << 40, Passes: 1, Redundancy: 0, WriteHole: true, Forecast: 30000, Before: 4 << 40, After: 8 << 40, Args: []byte(`{}`)},
		},
	}.Seal(1)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestAPlanIsReadAsItWasSealed(t *testing.T) {
	p := sealed(t)
	if p.Sync != 4<<40 || p.Passes != 1 || p.Redundancy != 0 || !p.WriteHole || p.Forecast != 30000 {
		t.Fatalf("sums: %+v", p)
	}
	data, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	again, err := plan.Parse(data)
	if err != nil || again.Text() != p.Text() || again.ID != p.ID {
		t.Fatalf("%v\n%s", err, again.Text())
	}
	for _, change := range [][2]string{{"4398046511104", "4398046511103"}, {`"A"`, `"Z"`}, {"미디어", "사진"}, {`"write_hole": true`, `"write_hole": false`}} {
		changed := bytes.Replace(data, []byte(change[0]), []byte(change[1]), 1)
		if _, err := plan.Parse(changed); !errors.Is(err, fault.Invalid) {
			t.Errorf("%s became %s and nobody says so: %v", change[0], change[1], err)
		}
	}
	if _, err := plan.Parse(bytes.Replace(data, []byte(`"version": 1`), []byte(`"version": 2`), 1)); !errors.Is(err, fault.Unsupported) {
		t.Error(err)
	}
}

func TestTheTokenNamesWhatIsAtStake(t *testing.T) {
	p := sealed(t)
	if got := p.Token(); got != "A,B" {
		t.Errorf("%q", got)
	}
	p.Disks = p.Disks[1:2]
	if got := p.Token(); got != string(p.ID) {
		t.Errorf("%q", got)
	}
}

func TestAPersonCanReadIt(t *testing.T) {
	p := sealed(t)
	want := `plan ` + string(p.ID) + `: stack 미디어: replace A by B
+ disk B (8 TB): take
  disk C (8 TB): keep
- disk A (4 TB): release
~ 1/2 partition-add: add
      requires it is blank
~ 2/2 array-reshape: reshape
      4 TiB in 1 pass, about 8h20m; survives the loss of 0 disks meanwhile; no protection against a power cut together with the loss of a disk
      capacity 4 TiB -> 8 TiB
! mind the gap
capacity 4 TiB -> 8 TiB; 1 pass over 4 TiB, about 8h20m; survives the loss of 0 disks meanwhile
1 to take, 1 to keep, 1 to release
`
	if got := p.Text(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for seconds, want := range map[int64]string{0: "0s", 59: "59s", 60: "1m", 3599: "60m", 3600: "1h00m", 90000: "25h00m"} {
		if got := plan.Duration(seconds); got != want {
			t.Errorf("%d: %s, want %s", seconds, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	data, err := json.Marshal(sealed(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(data))
	f.Add(strings.Replace(string(data), "4", "5", 1))
	f.Fuzz(func(t *testing.T, text string) {
		if p, err := plan.Parse([]byte(text)); err == nil {
			_ = p.Text()
		}
	})
}
