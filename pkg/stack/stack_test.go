package stack_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/layout"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/stack"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

const uuid = "6a5f3c2e-0000-4000-8000-000000000001"

func disk(id string, gib int) layout.Disk {
	return layout.Disk{ID: id, Size: storage.Bytes(gib) * storage.GiB}
}

func policy(tolerance int) layout.Policy {
	return layout.Policy{Tolerance: tolerance, Reserve: storage.GiB}
}

func made(t *testing.T, p layout.Policy, disks ...layout.Disk) (stack.Stack, plan.Plan) {
	t.Helper()
	s, made, err := stack.New("media", uuid, disks, p, stack.Volume{FileSystem: "ext4", MountPoint: "/mnt/media"}, 150*storage.MiB)
	if err != nil {
		t.Fatal(err)
	}
	return s, made
}

func kinds(p plan.Plan) []string {
	var list []string
	for _, s := range p.Steps {
		list = append(list, string(s.Kind))
	}
	return list
}

func TestAnOSDGrowsWithItsStack(t *testing.T) {
	volume := stack.Volume{OSD: &stack.OSD{Class: "hdd"}}
	s, p, err := stack.New("bulk", uuid, []layout.Disk{disk("A", 4), disk("B", 4)}, policy(1), volume, storage.MiB)
	if err != nil {
		t.Fatal(err)
	}
	if last := p.Steps[len(p.Steps)-1]; last.Kind != stack.KindMakeOSD || s.Volume.OSD.UUID == "" || s.Volume.OSD.Class != "hdd" {
		t.Errorf("%s, %+v", last.Kind, s.Volume.OSD)
	}
	again, _, err := stack.New("bulk", uuid, []layout.Disk{disk("A", 4), disk("B", 4)}, policy(1), volume, storage.MiB)
	if diff := cmp.Diff(s, again); diff != "" || err != nil {
		t.Error(err, diff)
	}
	_, p = grow(t, s, layout.Change{Add: []layout.Disk{disk("C", 4)}})
	if last := p.Steps[len(p.Steps)-1]; last.Kind != stack.KindGrowOSD || p.After <= p.Before {
		t.Error(p.Text())
	}
	_, p = grow(t, s, layout.Change{Replace: []layout.Replacement{{Old: "A", New: disk("C", 4)}}})
	for _, step := range p.Steps {
		if step.Kind == stack.KindGrowOSD {
			t.Errorf("nothing has grown:\n%s", p.Text())
		}
	}
}

func TestAnOwnersWholeLife(t *testing.T) {
	s, p := made(t, policy(1), disk("A", 4))
	want := []string{"disk-label", "partition-add", "array-create", "pv-create", "volume-create", "fs-make", "fs-mount"}
	if diff := cmp.Diff(want, kinds(p)); diff != "" {
		t.Fatal(diff)
	}
	s, p = grow(t, s, layout.Change{Add: []layout.Disk{disk("B", 8)}})
	want = []string{"disk-label", "partition-add", "array-recover", "array-protect"}
	if diff := cmp.Diff(want, kinds(p)); diff != "" {
		t.Fatal(diff)
	}
	s, p = grow(t, s, layout.Change{Replace: []layout.Replacement{{Old: "A", New: disk("C", 8)}}})
	want = []string{
		"disk-label", "partition-add", "array-replace", "partition-add", "partition-add", "array-create", "pv-create", "volume-grow", "fs-grow", "disk-release",
	}
	if diff := cmp.Diff(want, kinds(p)); diff != "" {
		t.Fatal(diff)
	}
	if p.Token() != "A,C" {
		t.Errorf("token %q", p.Token())
	}
	s, p = grow(t, s, layout.Change{Add: []layout.Disk{disk("D", 8), disk("E", 8)}})
	want = []string{
		"disk-label", "partition-add", "disk-label", "partition-add", "array-reshape", "array-protect",
		"partition-add", "partition-add", "array-reshape", "array-protect", "pv-grow", "pv-grow", "volume-grow", "fs-grow",
	}
	if diff := cmp.Diff(want, kinds(p)); diff != "" {
		t.Fatal(diff)
	}
	if p.Passes != 2 {
		t.Errorf("%d passes", p.Passes)
	}
	// A RAID5 gives its log up for a reshape, when the new disk is ready for it, and gets it back.
	_, p = grow(t, s, layout.Change{Add: []layout.Disk{disk("F", 4)}})
	want = []string{"disk-label", "partition-add", "array-protect", "array-reshape", "array-protect", "pv-grow", "volume-grow", "fs-grow"}
	if diff := cmp.Diff(want, kinds(p)); diff != "" {
		t.Error(diff)
	}
}

// TestTranscriptOfALife compares what a person reads with testdata/life.txt. HOLDFAST_GOLDEN=write writes it anew.
func TestTranscriptOfALife(t *testing.T) {
	s, p := made(t, policy(1), disk("A", 4000))
	text := p.Text() + s.Layout.Picture()
	for _, c := range []layout.Change{
		{Add: []layout.Disk{disk("B", 8000)}},
		{Replace: []layout.Replacement{{Old: "A", New: disk("C", 8000)}}},
		{Add: []layout.Disk{disk("D", 8000), disk("E", 8000)}},
	} {
		s, p = grow(t, s, c)
		text += "\n" + p.Text() + s.Layout.Picture()
	}
	path := filepath.Join("testdata", "life.txt")
	if os.Getenv("HOLDFAST_GOLDEN") == "write" {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), text); diff != "" {
		t.Error(diff)
	}
}

func grow(t *testing.T, s stack.Stack, c layout.Change) (stack.Stack, plan.Plan) {
	t.Helper()
	after, p, err := s.Grow(c, 150*storage.MiB)
	if err != nil {
		t.Fatal(err)
	}
	parent, err := plan.Hash(s)
	if err != nil || p.Parent != parent {
		t.Fatalf("parent %s, want %s (%v)", p.Parent, parent, err)
	}
	if p.Before != s.Capacity() || p.After != after.Capacity() {
		t.Fatalf("capacity %d -> %d, want %d -> %d", p.Before, p.After, s.Capacity(), after.Capacity())
	}
	check(t, after, p)
	return after, p
}

// check holds what is true of every plan.
func check(t *testing.T, s stack.Stack, p plan.Plan) {
	t.Helper()
	last := p.Before
	for _, step := range p.Steps {
		if step.Before != last || step.After < step.Before {
			t.Fatalf("step %+v begins at %d, the one before ended at %d", step, step.Before, last)
		}
		last = step.After
	}
	if last != p.After {
		t.Fatalf("the last step ends with %d, the plan with %d", last, p.After)
	}
	state, err := stack.Parse(p.State)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(s, state); diff != "" {
		t.Fatal(diff)
	}
	seen := map[string]bool{}
	for i, a := range s.Arrays {
		l := s.Layout.Slices[i]
		if a.Level != l.Level || a.Size != l.Size || len(a.Members) != len(l.Members) || a.Capacity() != l.Capacity() {
			t.Fatalf("array %+v of slice %+v", a, l)
		}
		for n, m := range a.Members {
			if string(m.Disk) != l.Members[n] || m.Size != a.Size+stack.Head || m.Start%storage.MiB != 0 || seen[m.UUID] {
				t.Fatalf("member %+v of %+v", m, l)
			}
			seen[m.UUID] = true
		}
	}
	for _, d := range s.Disks {
		end := stack.Edge
		for _, a := range s.Arrays {
			for _, m := range a.Members {
				if m.Disk == d.ID {
					end += m.Size
				}
			}
		}
		if end > d.Size-stack.Edge {
			t.Fatalf("disk %+v holds %d bytes", d, end)
		}
	}
}

func TestRandomLives(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	plans, refused := 0, 0
	for range 300 {
		n := 0
		some := func(most int) []layout.Disk {
			var list []layout.Disk
			for range 1 + random.IntN(most) {
				n++
				list = append(list, disk(fmt.Sprintf("D%d", n), 3+random.IntN(12)))
			}
			return list
		}
		s, p, err := stack.New("media", uuid, some(4), policy(1+random.IntN(2)), stack.Volume{}, storage.MiB)
		if err != nil {
			refused++
			continue
		}
		check(t, s, p)
		for range 4 {
			change := layout.Change{Add: some(3)}
			old := s.Layout.Disks[random.IntN(len(s.Layout.Disks))]
			switch random.IntN(3) {
			case 0:
				change = layout.Change{Replace: []layout.Replacement{{Old: old.ID, New: some(1)[0]}}}
			case 1:
				change = layout.Change{Grown: []layout.Disk{{ID: old.ID, Size: old.Size + storage.GiB}}}
			}
			if _, _, err := s.Layout.Grow(change, storage.MiB); err != nil {
				refused++
				continue
			}
			after, again := grow(t, s, change)
			_, same := grow(t, s, change)
			if again.ID != same.ID {
				t.Fatal("the same change gave two plans")
			}
			s = after
			plans++
		}
	}
	t.Logf("%d plans, %d refused", plans, refused)
}

func TestADiskThatComesBackIsNotTakenForWhatItWas(t *testing.T) {
	s, _ := made(t, policy(1), disk("A", 4), disk("B", 4))
	was := s.Disks[0].GUID
	s, _ = grow(t, s, layout.Change{Replace: []layout.Replacement{{Old: "A", New: disk("C", 4)}}})
	s, _ = grow(t, s, layout.Change{Replace: []layout.Replacement{{Old: "C", New: disk("A", 4)}}})
	for _, d := range s.Disks {
		if d.GUID == was {
			t.Errorf("disk %s has the table of its first life", d.ID)
		}
	}
}

func TestWithoutAFreeBayTheOldDiskLeavesFirst(t *testing.T) {
	p := policy(1)
	p.Bays, p.AllowDegraded = 3, true
	s, _ := made(t, p, disk("A", 4), disk("B", 4), disk("C", 4))
	_, out := grow(t, s, layout.Change{Replace: []layout.Replacement{{Old: "A", New: disk("D", 4)}}})
	want := []string{"array-drop", "disk-label", "partition-add", "array-recover", "disk-release"}
	if diff := cmp.Diff(want, kinds(out)); diff != "" {
		t.Error(diff)
	}
	if out.Redundancy != 0 || !out.WriteHole {
		t.Errorf("%s", out.Text())
	}
}

func TestRefusals(t *testing.T) {
	volume := stack.Volume{FileSystem: "ext4", MountPoint: "/mnt/media"}
	for what, try := range map[string]func() error{
		"name": func() error {
			_, _, err := stack.New("Media!", uuid, []layout.Disk{disk("A", 4)}, policy(1), volume, 1)
			return err
		},
		"file system": func() error {
			_, _, err := stack.New("media", uuid, []layout.Disk{disk("A", 4)}, policy(1), stack.Volume{FileSystem: "ntfs"}, 1)
			return err
		},
		"an OSD and a file system": func() error {
			_, _, err := stack.New("media", uuid, []layout.Disk{disk("A", 4)}, policy(1), stack.Volume{FileSystem: "ext4", OSD: &stack.OSD{}}, 1)
			return err
		},
		"nothing to mount": func() error {
			_, _, err := stack.New("media", uuid, []layout.Disk{disk("A", 4)}, policy(1), stack.Volume{MountPoint: "/mnt"}, 1)
			return err
		},
		"rate": func() error {
			_, _, err := stack.New("media", uuid, []layout.Disk{disk("A", 4)}, policy(1), volume, 0)
			return err
		},
	} {
		if err := try(); !errors.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, _, err := stack.New("media", uuid, []layout.Disk{disk("A", 4)}, layout.Policy{Tolerance: 1, Reserve: 4 * storage.MiB}, volume, 1)
	if !errors.Is(err, fault.Range) {
		t.Errorf("no room beside data: %v", err)
	}
	small := layout.Disk{ID: "A", Size: storage.GiB + 256*storage.MiB}
	_, _, err = stack.New("media", uuid, []layout.Disk{small}, policy(1), stack.Volume{FileSystem: "xfs", MountPoint: "/mnt"}, 1)
	if !errors.Is(err, fault.Range) {
		t.Errorf("no room for xfs: %v", err)
	}
	_, _, err = stack.New("media", uuid, []layout.Disk{disk("A", 4), disk("B", 4)}, policy(2), volume, 1)
	if !errors.Is(err, fault.Precondition) {
		t.Errorf("two disks for tolerance 2: %v", err)
	}
}

func TestArgumentsNameTheNewMembers(t *testing.T) {
	s, _ := made(t, policy(1), disk("A", 4), disk("B", 4))
	_, p := grow(t, s, layout.Change{Add: []layout.Disk{disk("C", 4)}})
	for _, step := range p.Steps {
		if step.Kind != stack.KindReshape {
			continue
		}
		var args stack.ArrayArgs
		if err := json.Unmarshal(step.Args, &args); err != nil {
			t.Fatal(err)
		}
		if joins := args.Joins(); len(joins) != 1 || joins[0].Disk != "C" {
			t.Errorf("%+v", joins)
		}
	}
}
