package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/disk/disktest"
	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/executor/journal"
	"github.com/holdfast-storage/holdfast/pkg/plan"
)

// fakeDisks is the root of a machine with disks of so many GiB, called D1, D2 and so on.
func fakeDisks(t *testing.T, gib ...int) string {
	t.Helper()
	m := disktest.New(t)
	for i, n := range gib {
		m.Add(disktest.Disk{Name: fmt.Sprintf("sd%c", 'a'+i), Size: int64(n) << 30, WWN: fmt.Sprintf("D%d", i+1)})
	}
	return m.Root
}

// finish writes a journal as if the plan had been run.
func finish(t *testing.T, dir, file string, events ...executor.Event) plan.Plan {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	p, err := plan.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	j, err := journal.Create(filepath.Join(dir, "plans"), p)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	for _, e := range events {
		if err := j.Append(executor.Record{Event: e, At: time.Unix(1, 0)}); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// fails runs a line that is to be refused with a text.
func fails(t *testing.T, line, want string) {
	t.Helper()
	if out, err := runLine(t, line); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%s: %v, want %q\n%s", line, err, want, out)
	}
}

func TestPlansAreMadeReadAndRefused(t *testing.T) {
	sys, dir := fakeDisks(t, 4, 8, 8), t.TempDir()
	global := " --root " + sys + " --data-dir " + dir
	made, grown := filepath.Join(dir, "new.json"), filepath.Join(dir, "grow.json")
	out, err := runLine(t, "plan new media --disk D1,D2 --mount /mnt/media --out "+made+global)
	if err != nil || !strings.Contains(out, "+ disk D1 (4.3 GB): take") || !strings.Contains(out, "slice 1") {
		t.Fatal(err, out)
	}
	if shown, err := runLine(t, "plan show "+made+global); err != nil || shown != out {
		t.Fatal(err, shown)
	}
	if out, err = runLine(t, "plan run "+made+global); err != nil || !strings.Contains(out, "2 to take") {
		t.Fatal(err, out)
	}
	fails(t, "plan run "+made+" --approve D1"+global, "must be D1,D2")
	fails(t, "plan run "+made+" --approve yes"+global, "must be D1,D2")
	fails(t, "plan new media --disk D9 --mount /mnt/media"+global, "D1 (/dev/sda, 4.3 GB)")
	fails(t, "plan new media --disk D1"+global, "--mount")
	fails(t, "plan grow media --step add:D3"+global, "has made a stack media")
	fails(t, "plan run nothing"+global, "neither a file nor a plan")

	p := finish(t, dir, made, executor.StepBegun)
	fails(t, "plan grow media --step add:D3"+global, "plan run "+string(p.ID))
	if out, err = runLine(t, "plan list"+global); err != nil || !strings.Contains(out, "running") {
		t.Fatal(err, out)
	}
	if _, err := runLine(t, "plan cancel "+string(p.ID)+global); err != nil || !journal.Asked(filepath.Join(dir, "plans"), p.ID, journal.WishCancel) {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "plans")); err != nil {
		t.Fatal(err)
	}

	p = finish(t, dir, made, executor.StepBegun, executor.Completed)
	if out, err = runLine(t, "plan watch "+string(p.ID)+global); err != nil || out != "completed\n" {
		t.Fatal(err, out)
	}
	fails(t, "plan cancel "+string(p.ID)+global, "come to its end")
	fails(t, "plan new media --disk D3 --mount /mnt/media"+global, "plan grow media")
	out, err = runLine(t, "plan grow media --step replace:D1=D3 --out "+grown+global)
	if err != nil || !strings.Contains(out, "- disk D1") || !strings.Contains(out, "+ disk D3") {
		t.Fatal(err, out)
	}
	fails(t, "plan grow media --step shrink:D3"+global, "none of add, replace, grow")
	fails(t, "plan grow media --step add:D3=D2"+global, "is for replace")

	// A plan that was made from another state is refused, whoever approves it.
	finish(t, dir, grown, executor.StepBegun, executor.Completed)
	stale := filepath.Join(dir, "stale.json")
	data, _ := os.ReadFile(made)
	again, _ := plan.Parse(data)
	again.What = "the same again"
	again, err = plan.Plan{Parent: again.Parent, Subject: again.Subject, What: again.What, Disks: again.Disks, Steps: again.Steps, State: again.State}.Seal(1)
	if err != nil {
		t.Fatal(err)
	}
	writeJSON(t, stale, again)
	fails(t, "plan run "+stale+" --approve D1,D2"+global, "is stale")
}

func TestAPlanWithAnOSDIsForTheAgent(t *testing.T) {
	sys, dir := fakeDisks(t, 8, 8), t.TempDir()
	global := " --root " + sys + " --data-dir " + dir
	made := filepath.Join(dir, "new.json")
	fails(t, "plan new bulk --disk D1,D2 --osd"+global, "there is no cluster")
	if err := os.WriteFile(filepath.Join(dir, "ceph.conf"), []byte("[global]\nfsid = 11111111-2222-4333-8444-555555555555\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	fails(t, "plan new bulk --disk D1,D2 --osd --mount /mnt"+global, "[mount osd]")
	fails(t, "plan new bulk --disk D1,D2 --mount /mnt --class hdd"+global, "--osd")
	out, err := runLine(t, "plan new bulk --disk D1,D2 --osd --class hdd --out "+made+global)
	if err != nil || !strings.Contains(out, "osd-make") || strings.Contains(out, "fs-make") {
		t.Fatal(err, out)
	}
	fails(t, "plan run "+made+" --approve D1,D2"+global, "holdfastd agent")
	if list, err := journal.List(filepath.Join(dir, "plans")); err != nil || len(list) > 0 {
		t.Errorf("%v, %v", list, err)
	}
}

func writeJSON(t *testing.T, path string, v any) {
	t.Helper()
	data, err := json.Marshal(v)
	if err == nil {
		err = os.WriteFile(path, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}
