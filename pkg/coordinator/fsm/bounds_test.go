package fsm_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/coordinator/fsm"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

func TestOneNodeDoesNotTakeAllThereIs(t *testing.T) {
	d := newDriver(t)
	d.must(&fsm.ReportNode{Node: "n2", Boot: "b", Generation: 1, Inventory: []byte(`{}`)})
	state := `{"disks":["A"]}`
	propose := func(node string, i int) *fsm.Propose {
		subject := fmt.Sprintf("stack s%d on %s", i, node)
		d.must(&fsm.SetSubject{Subject: subject, State: []byte(state)})
		return &fsm.Propose{Plan: sample(t, fmt.Sprint("stack s", i), state, fmt.Sprint(node, i)), Node: storage.NodeID(node), Subject: subject}
	}
	for i := range 100 {
		d.must(propose("n1", i))
	}
	d.refused(fault.Precondition, "for node n1", propose("n1", 100))
	d.must(propose("n2", 0))

	tell := func(subject string, state []byte) {
		if err := d.s.Apply(fsm.NewCommand("agent/n1", "", d.now, &fsm.SetSubject{Subject: subject, State: state})).Err(); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 1000 {
		tell(fmt.Sprintf("osd %d on n1", i), []byte(state))
	}
	if n := len(d.s.Subjects); n > 500 { // those that no plan is about were forgotten on the way
		t.Errorf("%d subjects are known", n)
	}
	large, _ := json.Marshal(strings.Repeat("x", 6<<20))
	for i := range 3 {
		tell(fmt.Sprintf("disk %d on n1", i), large)
	}
	number, size := 0, 0
	for name, s := range d.s.Subjects {
		if strings.HasSuffix(name, " on n1") {
			number, size = number+1, size+len(s.State)
		}
	}
	if number > 1000 || size > 16<<20 {
		t.Errorf("%d subjects of %d bytes are known of one node", number, size)
	}
	for _, e := range d.s.Plans {
		if _, ok := d.s.Subjects[e.Subject()]; !ok {
			t.Fatalf("%s is forgotten, and plan %s waits", e.Subject(), e.Plan.ID)
		}
	}
}

func TestAPlanOfAnotherNodeIsNotTold(t *testing.T) {
	d := newDriver(t)
	d.must(&fsm.ReportNode{Node: "n2", Boot: "b", Generation: 1, Inventory: []byte(`{}`)})
	p := sample(t, "stack 미디어", `{"disks":["A"]}`, "B")
	d.must(&fsm.Propose{Plan: p, Node: "n1"})
	d.must(&fsm.Propose{Plan: p, Node: "n1"})
	d.refused(fault.Exists, "another node's", &fsm.Propose{Plan: p, Node: "n2"})
}

func TestABackupRestoresNoJoinTokens(t *testing.T) {
	d := newDriver(t)
	d.must(&fsm.Admit{Hash: "h", Token: fsm.Token{Role: "agent", Name: "n7", Expires: d.now.Add(time.Hour)}})
	backup := restored(t, d.s)
	d.must(&fsm.Join{Hash: "h", Role: "agent", Name: "n7", Key: "k"})
	backup.Restored(d.now, "minji", 99)
	if len(backup.Tokens) != 0 {
		t.Errorf("a token that was used is good again: %v", backup.Tokens)
	}
}

// TestAProgramThatDoesNotKnowTheStateRefusesIt: the state says by which version of commands it was made.
func TestAProgramThatDoesNotKnowTheStateRefusesIt(t *testing.T) {
	if s := newDriver(t).s; s.Version != 2 || fsm.New().Version != 1 {
		t.Errorf("version %d after commands of version 2, %d before any", s.Version, fsm.New().Version)
	}
	later := newDriver(t).s
	later.Version = 3
	data, err := later.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fsm.DecodeState(data); err == nil || !strings.Contains(err.Error(), "version 3") {
		t.Errorf("%v", err)
	}
}
