package fsm_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/coordinator/fsm"
	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/plan"
)

// TestAStoredLogOfAnOlderVersionStillGivesItsState replays logs that earlier versions wrote. They are never written anew:
// a change of what they give would split the members of a cluster that is being upgraded.
func TestAStoredLogOfAnOlderVersionStillGivesItsState(t *testing.T) {
	logs, err := filepath.Glob("testdata/log-*.jsonl")
	if err != nil || len(logs) == 0 {
		t.Fatalf("no stored logs: %v", err)
	}
	for _, path := range logs {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(strings.TrimSuffix(path, ".jsonl") + ".sha256")
		if err != nil {
			t.Fatal(err)
		}
		s := fsm.New()
		for line := range bytes.Lines(data) {
			c, err := fsm.Decode(line)
			if err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			s.Apply(c)
		}
		if sum := sha256.Sum256(encoded(t, s)); hex.EncodeToString(sum[:]) != strings.TrimSpace(string(want)) {
			t.Errorf("%s gives the state %x:\n%s", path, sum, encoded(t, s))
		}
	}
}

// TestWriteALogOfThisVersion writes a log with every kind of command, when asked to: for a new version's test data.
func TestWriteALogOfThisVersion(t *testing.T) {
	dir := os.Getenv("HOLDFAST_WRITE_LOG")
	if dir == "" {
		t.Skip("set HOLDFAST_WRITE_LOG to a directory to have a log written there")
	}
	d := newDriver(t)
	d.must(&fsm.SetPolicy{Name: "밤", Policy: &fsm.Policy{Spec: []byte(`{"a":1}`), Approves: []plan.Kind{"array-reshape"}}})
	d.must(&fsm.SetThrottle{Throttle: fsm.Throttle{Backfills: 2, Bytes: 50 << 20, Latency: 20 * time.Millisecond}})
	d.must(&fsm.Maintain{Node: "n1", Why: "fan"})
	d.must(&fsm.Maintain{Node: "n1"})
	p := sample(t, "stack 미디어", `{"disks":["A"]}`, "B")
	d.do("minji", "k1", &fsm.Propose{Plan: p, Node: "n1"})
	d.do("minji", "k1", &fsm.Propose{Plan: p, Node: "n1"})
	d.do("minji", "k2", &fsm.Approve{Plan: p.ID, Token: "no"})
	d.do("minji", "k3", &fsm.Approve{Plan: p.ID, Token: "B"})
	w := d.lease(p.ID, "n1")
	d.step(p.ID, w.Lease.Term, 0, executor.StepBegun)
	d.step(p.ID, w.Lease.Term, 0, executor.StepProgress)
	d.must(&fsm.PausePlan{Plan: p.ID, Why: "nearfull"})
	d.must(&fsm.Resume{Plan: p.ID})
	d.step(p.ID, w.Lease.Term, 0, executor.StepVerified)
	c := d.lease(p.ID, fsm.Coordinator)
	d.step(p.ID, c.Lease.Term, 1, executor.Stopped)
	d.must(&fsm.Resume{Plan: p.ID})
	d.must(&fsm.Cancel{Plan: p.ID})
	d.must(&fsm.Abandon{Plan: p.ID})
	d.must(&fsm.SetPolicy{Name: "밤"})
	old := waves(t, `{"a":1}`, "wave 1")
	d.must(&fsm.SetSubject{Subject: "placement", State: []byte(`{"a":1}`)})
	d.must(&fsm.Propose{Plan: old})
	d.must(&fsm.Approve{Plan: old.ID, Token: old.Token()})
	next := waves(t, `{"a":2}`, "another wave 1")
	d.must(&fsm.Supersede{Plan: old.ID, Why: "osd.3 is out", State: []byte(`{"a":2}`), By: &next})
	d.must(&fsm.ReportNode{Node: "n2", Boot: "b", Generation: 1, Inventory: []byte(`{}`)})
	d.must(&fsm.SetSubject{Subject: "stack 미디어 on n2", State: []byte(`{"disks":["C"]}`)})
	q := sample(t, "stack 미디어", `{"disks":["C"]}`, "D")
	d.must(&fsm.Propose{Plan: q, Node: "n2", Subject: "stack 미디어 on n2"})
	d.must(&fsm.Admit{Hash: "h", Token: fsm.Token{Role: "agent", Name: "n3", Expires: d.now.Add(time.Hour)}})
	d.must(&fsm.Join{Hash: "h", Role: "agent", Name: "n3", Key: "k"})
	d.do("agent/n1", "", &fsm.Propose{Plan: q, Node: "n1", Subject: "stack 미디어 on n2"})
	d.do("agent/n2", "", &fsm.Cancel{Plan: q.ID, Own: true})
	if err := os.WriteFile(filepath.Join(dir, "log-v2.jsonl"), append(bytes.Join(d.log, []byte("\n")), '\n'), 0o600); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(encoded(t, d.s))
	if err := os.WriteFile(filepath.Join(dir, "log-v2.sha256"), []byte(hex.EncodeToString(sum[:])+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestWhatALaterProgramWroteIsNotSkipped(t *testing.T) {
	for line, text := range map[string]string{
		`{"v":3,"kind":"approve","body":{}}`:           "upgrade",
		`{"v":2,"kind":"launch","body":{}}`:            "upgrade",
		`{"v":1,"kind":"launch","body":{}}`:            "never was",
		`{"v":0,"kind":"approve","body":{}}`:           "never was",
		`{"v":1,"kind":"approve","body":[]}`:           "approve",
		`{"v":1,`:                                      "read command",
		`{"v":1,"kind":"approve","body":{"plan":1.5}}`: "approve",
	} {
		if _, err := fsm.Decode([]byte(line)); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v", line, err)
		}
	}
}

// FuzzCommand: whatever comes from the log or the network, Apply answers, and the state can be written and read.
func FuzzCommand(f *testing.F) {
	logs, _ := filepath.Glob("testdata/log-*.jsonl")
	for _, path := range logs {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		for line := range bytes.Lines(data) {
			f.Add(line)
		}
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		c, err := fsm.Decode(line)
		if err != nil {
			return
		}
		d := newDriver(t)
		p := sample(t, "stack 미디어", `{"disks":["A"]}`, "B")
		d.must(&fsm.Propose{Plan: p, Node: "n1"})
		d.must(&fsm.Approve{Plan: p.ID, Token: "B"})
		d.lease(p.ID, "n1")
		d.s.Apply(c)
		if !bytes.Equal(encoded(t, restored(t, d.s)), encoded(t, d.s)) {
			t.Error("the state is another after it was written and read")
		}
	})
}
