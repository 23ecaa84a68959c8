package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-storage/holdfast/pkg/layout"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

func runLine(t *testing.T, line string) (string, error) {
	t.Helper()
	var out, err bytes.Buffer
	cmd := New(Streams{Out: &out, Err: &err}, "test")
	cmd.SetArgs(strings.Fields(line))
	failed := cmd.Execute()
	return out.String(), failed
}

func TestLayoutTranscripts(t *testing.T) { checkTranscript(t, "layout.txt") }

// checkTranscript compares what people read with a file of testdata: commands after "$", what
// they print after that. HOLDFAST_GOLDEN=write writes it anew.
func checkTranscript(t *testing.T, file string) {
	t.Helper()
	path := filepath.Join("testdata", file)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for line := range strings.Lines(string(text)) {
		command, ok := strings.CutPrefix(line, "$ holdfast ")
		if !ok {
			continue
		}
		out, err := runLine(t, command)
		got.WriteString(line + out)
		if err != nil {
			got.WriteString("error: " + err.Error() + "\n")
		}
		got.WriteString("\n")
	}
	if os.Getenv("HOLDFAST_GOLDEN") == "write" {
		if err := os.WriteFile(path, []byte(got.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(string(text), got.String()); diff != "" {
		t.Fatal(diff)
	}
}

func TestLayoutForScripts(t *testing.T) {
	out, err := runLine(t, "layout plan --disks 4TB,8TB,8TB --reserve 0 -o json")
	if err != nil {
		t.Fatal(err)
	}
	var plan struct {
		Capacity    int64 `json:"capacity_bytes"`
		Unprotected int64 `json:"unprotected_bytes"`
		Raw         int64 `json:"raw_bytes"`
		Slices      []struct {
			Size    int64 `json:"size_bytes"`
			Level   string
			Members []string
		}
	}
	if err := json.Unmarshal([]byte(out), &plan); err != nil {
		t.Fatal(err)
	}
	if plan.Capacity != 12e12 || plan.Unprotected != 0 || plan.Raw != 20e12 || len(plan.Slices) != 2 || plan.Slices[0].Level != "raid5" ||
		plan.Slices[0].Size != 4e12 || len(plan.Slices[1].Members) != 2 {
		t.Fatalf("%+v", plan)
	}
	out, err = runLine(t, "layout grow --disks 4TB --step add:8TB --step replace:4TB=8TB --step add:8TB,8TB --reserve 0 -o json")
	if err != nil {
		t.Fatal(err)
	}
	var growth struct {
		Passes int
		Sync   int64 `json:"sync_bytes"`
		Steps  []struct {
			Kind       string
			After      int64 `json:"capacity_after_bytes"`
			Sync       int64 `json:"sync_bytes"`
			Passes     int
			Redundancy int   `json:"redundancy_during"`
			Forecast   int64 `json:"forecast_seconds"`
		}
	}
	if err := json.Unmarshal([]byte(out), &growth); err != nil {
		t.Fatal(err)
	}
	if growth.Passes != 5 || growth.Sync != 20e12 || len(growth.Steps) != 3 || growth.Steps[2].After != 24e12 || growth.Steps[1].Passes != 2 {
		t.Fatalf("%+v", growth)
	}
}

// FuzzLayoutStep: any text is a change or an error, and a change is planned or refused.
func FuzzLayoutStep(f *testing.F) {
	for _, text := range []string{"add:8TB", "add:8TB,8TB", "replace:4TB=8TB", "replace:disk1=8TB,disk2=9TB", "grow:disk2=6TiB", "add:", "x", "replace:4TB", "add:-1", "add:9223372036854775807"} {
		f.Add(text)
	}
	pool, err := layout.Fresh([]layout.Disk{{ID: "disk1", Size: 4 * layout.TB}, {ID: "disk2", Size: 4 * layout.TB}}, layout.Policy{Tolerance: 1, Reserve: storage.GiB})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		names := &diskNames{last: 2}
		change, err := names.change(pool, text)
		if err != nil {
			return
		}
		after, step, err := pool.Grow(change, 1e8)
		if err == nil && (after.Capacity() < pool.Capacity() || step.Sync < 0 || step.Forecast < 0) {
			t.Fatalf("%q: %+v", text, step)
		}
	})
}
