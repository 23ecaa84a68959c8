package crush_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/crush"
)

// crushtool is Ceph's own tool, against which everything here is checked.
type crushtool struct{ dir string }

func needCrushtool(t *testing.T) crushtool {
	t.Helper()
	if _, err := exec.LookPath("crushtool"); err != nil {
		t.Skip("SKIPPED: crushtool is not installed (Debian package ceph-base), so nothing is compared with Ceph's own CRUSH")
	}
	return crushtool{t.TempDir()}
}

func (c crushtool) path(name string) string { return filepath.Join(c.dir, name) }

// run returns what crushtool prints; ok is false where it crashed or hung, which it does
// on some maps that its own compiler takes.
func (c crushtool) run(t *testing.T, args ...string) (out []byte, ok bool) {
	t.Helper()
	var stderr bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "crushtool", args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Logf("crushtool %v: %v\n%.300s", args[:min(8, len(args))], err, stderr.Bytes())
	}
	return out, err == nil
}

// compile turns text into a binary map.
func (c crushtool) compile(t *testing.T, text string) (path string, ok bool) {
	t.Helper()
	if err := os.WriteFile(c.path("map.txt"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	_, ok = c.run(t, "-c", c.path("map.txt"), "-o", c.path("map.bin"))
	return c.path("map.bin"), ok
}

// environment reads a number from the environment.
func environment(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

var everyAlgorithm = []string{"straw2", "straw2", "straw2", "straw2", "uniform", "list", "tree", "straw"}

// TestMappingsAreThoseOfCrushtool compares mappings of random maps, one run of crushtool
// a map and rule. HOLDFAST_CRUSH_MAPPINGS sets how many mappings, HOLDFAST_CRUSH_SEED
// where the maps start.
func TestMappingsAreThoseOfCrushtool(t *testing.T) {
	tool := needCrushtool(t)
	want := environment(t, "HOLDFAST_CRUSH_MAPPINGS", 200_000)
	first := environment(t, "HOLDFAST_CRUSH_SEED", 1)
	var done, holes uint64
	seed := first
	for ; done < want; seed++ {
		algorithms := everyAlgorithm
		if seed%2 == 0 {
			algorithms = []string{"straw2"}
		}
		m := generate(seed, algorithms)
		n, h := compareMappings(t, tool, seed, m)
		done, holes = done+n, holes+h
		if t.Failed() {
			t.Fatalf("the map of seed %d:\n%s", seed, m.text)
		}
	}
	t.Logf("%d mappings of %d maps (seeds %d to %d) are the same; %d of them have holes or are short", done, seed-first, first, seed-1, holes)
}

// compareMappings compares all rules of a map and returns the number of mappings, and of
// those that are short or have a hole.
func compareMappings(t *testing.T, tool crushtool, seed uint64, m randomMap) (mappings, holes uint64) {
	t.Helper()
	binary, ok := tool.compile(t, m.text)
	if !ok {
		return 0, 0
	}
	parsed, err := crush.Parse(formOf(t, tool, seed, m.text, binary))
	if err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	mapper, err := crush.NewMapper(parsed, 0)
	if err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	random := rand.New(rand.NewPCG(seed, 2))
	weights := reweight(random, mapper, m.osds)
	const inputs = 1500
	for rule := range m.rules {
		replicas := 1 + random.IntN(6)
		minX := random.IntN(1 << 30)
		args := append([]string{
			"-i", binary, "--test", "--show-mappings", "--rule", strconv.Itoa(rule), "--num-rep", strconv.Itoa(replicas),
			"--min-x", strconv.Itoa(minX), "--max-x", strconv.Itoa(minX + inputs - 1),
		}, weights...)
		got, short := show(t, mapper, rule, replicas, minX, inputs)
		want, ok := tool.run(t, args...)
		if !ok {
			continue
		}
		if !bytes.Equal(got, want) {
			t.Errorf("seed %d rule %d replicas %d %v: %s", seed, rule, replicas, weights, firstDifference(got, want))
			return mappings, holes
		}
		mappings += inputs
		holes += short
	}
	return mappings, holes
}

// formOf returns the map as text, binary or JSON, in turn.
func formOf(t *testing.T, tool crushtool, seed uint64, text, binary string) []byte {
	t.Helper()
	switch seed % 3 {
	case 0:
		data, err := os.ReadFile(binary)
		if err != nil {
			t.Fatal(err)
		}
		return data
	case 1:
		if dump, ok := tool.run(t, "-i", binary, "--dump"); ok {
			return dump
		}
	}
	return []byte(text)
}

// reweight puts some OSDs out, wholly or in part, and returns that as crushtool's flags.
func reweight(random *rand.Rand, mapper *crush.Mapper, osds int) []string {
	var flags []string
	if random.IntN(2) == 0 {
		return nil
	}
	for osd := range osds {
		if random.IntN(4) > 0 {
			continue
		}
		text := []string{"0", "0.5", "0.93", "0.1", "1"}[random.IntN(5)]
		w, _ := crush.ParseWeight(text)
		mapper.SetWeight(crush.ItemID(osd), w)
		flags = append(flags, "--weight", strconv.Itoa(osd), text)
	}
	return flags
}

// show prints mappings as crushtool does.
func show(t *testing.T, mapper *crush.Mapper, rule, replicas, minX, inputs int) ([]byte, uint64) {
	t.Helper()
	var text []byte
	var short uint64
	var osds []crush.ItemID
	if mapper.AllOut() {
		return nil, 0
	}
	for x := minX; x < minX+inputs; x++ {
		var err error
		if osds, err = mapper.Do(osds[:0], rule, int32(x), replicas); err != nil {
			t.Fatal(err)
		}
		text = fmt.Appendf(text, "CRUSH rule %d x %d [", rule, x)
		whole := len(osds) == replicas
		for i, osd := range osds {
			if i > 0 {
				text = append(text, ',')
			}
			text = strconv.AppendInt(text, int64(osd), 10)
			whole = whole && osd != crush.None
		}
		text = append(text, "]\n"...)
		if !whole {
			short++
		}
	}
	return text, short
}

func firstDifference(got, want []byte) string {
	a, b := bytes.Split(got, []byte("\n")), bytes.Split(want, []byte("\n"))
	for i := range min(len(a), len(b)) {
		if !bytes.Equal(a[i], b[i]) {
			return fmt.Sprintf("got %q, crushtool says %q", a[i], b[i])
		}
	}
	return fmt.Sprintf("got %d lines, crushtool has %d", len(a), len(b))
}
