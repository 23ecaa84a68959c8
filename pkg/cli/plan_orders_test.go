package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/ledger"
	"github.com/holdfast-storage/holdfast/pkg/plan"
)

// phase runs an order and returns what has become of the plan.
func phase(t *testing.T, line string) executor.Phase {
	t.Helper()
	out, err := runLine(t, line+" -o json")
	if err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
	_, object, _ := strings.Cut(out, "{") // behind what is for a person
	var row planRow
	if err := json.NewDecoder(strings.NewReader("{" + object)).Decode(&row); err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
	return row.Status.Phase
}

func TestOrdersWithoutAnAgent(t *testing.T) {
	root, dir := fakeDisks(t, 8, 8), t.TempDir()
	global := " --root " + root + " --data-dir " + dir
	file := filepath.Join(dir, "new.json")
	if out, err := runLine(t, "plan new media --disk D1,D2 --mount /mnt/media --out "+file+global); err != nil {
		t.Fatal(err, out)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	p, err := plan.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	id := string(p.ID)
	if got := phase(t, "plan propose "+file+global); got != executor.Proposed {
		t.Error(got)
	}
	fails(t, "plan pause "+id+global, "is not approved")
	if out, err := runLine(t, "plan approve "+id+global); err != nil || !strings.Contains(out, "2 to take") {
		t.Error(err, out)
	}
	fails(t, "plan approve "+id+" --token D1"+global, "must be D1,D2")
	if got := phase(t, "plan approve "+id+" --token D1,D2"+global); got != executor.Waiting {
		t.Error(got)
	}
	for _, order := range []string{"pause", "resume", "cancel", "resume"} {
		if got := phase(t, "plan "+order+" "+id+global); got != executor.Waiting {
			t.Error(order, got)
		}
	}
	fails(t, "plan abandon "+id+" --token D1"+global, "must be D1,D2")
	if got := phase(t, "plan abandon "+id+" --token D1,D2"+global); got != executor.GivenUp {
		t.Error(got)
	}
	fails(t, "plan resume "+id+global, "come to its end")
	fails(t, "plan watch "+id[:6]+global, "abandoned")
	fails(t, "plan pause ffff"+global, "there is no plan ffff")
	fails(t, "osd list"+" --data-dir "+dir, "up --agent")
	fails(t, "agent status"+" --data-dir "+dir, "holdfastd agent")
}

// TestNobodyOrdersHereOnceCoordinatorsDo, also while the agent is stopped: the next one would go on with it.
func TestNobodyOrdersHereOnceCoordinatorsDo(t *testing.T) {
	root, dir := fakeDisks(t, 8, 8), t.TempDir()
	global := " --root " + root + " --data-dir " + dir
	file := filepath.Join(dir, "new.json")
	if out, err := runLine(t, "plan new media --disk D1,D2 --mount /mnt/media --out "+file+global); err != nil {
		t.Fatal(err, out)
	}
	if got := phase(t, "plan propose "+file+global); got != executor.Proposed {
		t.Error(got)
	}
	term := ledger.Of(dir).TermFile()
	if err := os.WriteFile(term, []byte("7\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	p, err := plan.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	fails(t, "plan approve "+string(p.ID)+" --token D1,D2"+global, "takes orders of the coordinators (term 7)")
	fails(t, "plan run "+file+" --approve D1,D2"+global, term)
}
