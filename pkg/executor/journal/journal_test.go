package journal

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/plan"
)

func made(t testing.TB) plan.Plan {
	t.Helper()
	p, err := plan.Plan{Subject: "stack 미디어", Steps: []plan.Step{{Kind: "a", Args: []byte(`{"x":"<&>"}`)}, {Kind: "b", Args: []byte(`{}`)}}}.Seal(1)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func at(n int64) time.Time { return time.Unix(n, 0).UTC() }

// filled is a journal with three records.
func filled(t testing.TB, dir string) plan.Plan {
	t.Helper()
	p := made(t)
	j, err := Create(dir, p)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	for i, e := range []executor.Event{executor.StepBegun, executor.StepDone, executor.StepVerified} {
		if err := j.Append(executor.Record{Event: e, At: at(int64(i))}); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func TestWhatIsAppendedIsReadAgain(t *testing.T) {
	dir := t.TempDir()
	p := filled(t, dir)
	j, err := Open(dir, p.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if p.Text() != j.Plan().Text() || len(j.Plan().Steps) != 2 || len(j.Records()) != 3 {
		t.Fatal(j.Plan(), j.Records())
	}
	if _, err := Open(dir, p.ID); !errors.Is(err, fault.Busy) {
		t.Fatalf("two have it: %v", err)
	}
	if _, err := Create(dir, p); !errors.Is(err, fault.Exists) {
		t.Fatalf("it was begun again: %v", err)
	}
	if _, err := Open(dir, "0123"); !errors.Is(err, fault.NotFound) {
		t.Fatal(err)
	}
}

func TestATornTailIsCutOffWhereverItWasTorn(t *testing.T) {
	dir := t.TempDir()
	p := filled(t, dir)
	whole, err := os.ReadFile(path(dir, p.ID))
	if err != nil {
		t.Fatal(err)
	}
	first := bytes.IndexByte(whole, '\n') + 1
	for cut := first; cut < len(whole); cut++ {
		if err := os.WriteFile(path(dir, p.ID), whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		j, err := Open(dir, p.ID)
		if err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		kept := len(j.Records())
		if want := bytes.Count(whole[first:cut], []byte{'\n'}); kept != want {
			t.Fatalf("cut at %d: %d records, want %d", cut, kept, want)
		}
		if err := j.Append(executor.Record{Event: executor.Completed, Step: 2}); err != nil {
			t.Fatal(err)
		}
		j.Close()
		e, err := Read(dir, p.ID)
		if err != nil || len(e.Records) != kept+1 {
			t.Fatalf("cut at %d, then appended to: %d records, %v", cut, len(e.Records), err)
		}
	}
}

func TestDamageBeforeTheEndIsAnError(t *testing.T) {
	dir := t.TempDir()
	p := filled(t, dir)
	whole, _ := os.ReadFile(path(dir, p.ID))
	last := bytes.LastIndexByte(whole[:len(whole)-1], '\n')
	for at := range last {
		damaged := bytes.Clone(whole)
		damaged[at] ^= 1
		if err := os.WriteFile(path(dir, p.ID), damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		if j, err := Open(dir, p.ID); err == nil {
			t.Fatalf("byte %d is damaged and nobody says so: %v", at, j.Records())
		}
	}
	list, err := List(dir)
	if err != nil || len(list) != 1 || list[0].Err == nil {
		t.Fatalf("%v, %+v", err, list)
	}
}

func TestNothingIsAppendedAfterAFailure(t *testing.T) {
	dir := t.TempDir()
	p := filled(t, dir)
	j, err := Open(dir, p.ID)
	if err != nil {
		t.Fatal(err)
	}
	j.file.Close()
	for range 2 {
		if j.Append(executor.Record{}) == nil || len(j.Records()) != 3 {
			t.Fatal("a record was taken that is nowhere")
		}
	}
}

func TestAWishIsSeenUntilItIsTakenBack(t *testing.T) {
	dir := t.TempDir()
	p := filled(t, dir)
	for _, w := range []Wish{WishCancel, WishPause} {
		if Asked(dir, p.ID, w) {
			t.Fatal("nobody asked")
		}
		if err := Ask(dir, p.ID, w); err != nil || !Asked(dir, p.ID, w) {
			t.Fatal(err)
		}
	}
	if err := Resume(dir, p.ID); err != nil || Asked(dir, p.ID, WishCancel) || Asked(dir, p.ID, WishPause) {
		t.Fatal(err)
	}
}

func TestAProposalIsKeptUntilItIsWithdrawn(t *testing.T) {
	dir := t.TempDir()
	p := filled(t, dir)
	for range 2 {
		if err := Propose(dir, p); err != nil {
			t.Fatal(err)
		}
	}
	if list, err := Proposals(dir); err != nil || len(list) != 1 || list[0].Plan.ID != p.ID {
		t.Fatal(list, err)
	}
	if err := errors.Join(Withdraw(dir, p.ID), Withdraw(dir, p.ID)); err != nil {
		t.Fatal(err)
	}
	if list, err := Proposals(dir); err != nil || len(list) != 0 {
		t.Fatal(list, err)
	}
}

func TestAProposalThatCannotBeReadHidesNoOther(t *testing.T) {
	dir := t.TempDir()
	p := made(t)
	if err := errors.Join(Propose(dir, p), os.WriteFile(filepath.Join(dir, "0bad"+proposalSuffix), []byte("torn"), 0o600)); err != nil {
		t.Fatal(err)
	}
	list, err := Proposals(dir)
	if err != nil || len(list) != 2 || list[0].Plan.ID != "0bad" || !errors.Is(list[0].Err, fault.Invalid) || list[1].Plan.ID != p.ID || list[1].Err != nil {
		t.Fatal(list, err)
	}
}

func FuzzParse(f *testing.F) {
	dir := f.TempDir()
	p := filled(f, dir)
	whole, err := os.ReadFile(filepath.Join(dir, string(p.ID)+Suffix))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(whole[:len(whole)-3])
	f.Add([]byte("00000000 {}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parse(data)
		if err != nil {
			return
		}
		again, err := parse(data[:c.whole])
		if err != nil || again.whole != c.whole || len(again.records) != len(c.records) {
			t.Fatalf("what is whole reads otherwise: %v", err)
		}
		executor.StatusOf(c.plan, c.records)
	})
}

func TestPlansOfOneDirectoryRunOneAfterTheOther(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "plans")
	unlock, err := Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(dir); !errors.Is(err, fault.Busy) {
		t.Errorf("a second run: %v", err)
	}
	unlock()
	again, err := Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	again()
	if list, err := List(dir); err != nil || len(list) > 0 {
		t.Errorf("the lock is listed as a plan: %v, %v", list, err)
	}
}
