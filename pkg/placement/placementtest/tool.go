package placementtest

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/crush"
	"github.com/holdfast-storage/holdfast/pkg/placement/osdmap"
)

func sorted[V any](m map[osdmap.PG]V) []osdmap.PG {
	return slices.SortedFunc(maps.Keys(m), osdmap.PG.Compare)
}

// NeedTools skips the test where Ceph's tools are not installed; in CI that is a failure.
func NeedTools(t testing.TB) {
	t.Helper()
	for _, tool := range []string{"osdmaptool", "crushtool"} {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatalf("%s is not installed, and CI needs it (package ceph-base)", tool)
			}
			t.Skipf("%s is not installed (package ceph-base)", tool)
		}
	}
}

// run returns what a tool printed; it must succeed.
func run(t testing.TB, name string, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	var out, err bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &err
	if failed := cmd.Run(); failed != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), failed, out.Bytes(), err.Bytes())
	}
	return out.Bytes()
}

// Compile turns a text CRUSH map into a binary one with crushtool. Weights of OSDs above
// 100 make it stop.
func Compile(t testing.TB, text string) []byte {
	t.Helper()
	dir := t.TempDir()
	from, to := filepath.Join(dir, "text"), filepath.Join(dir, "binary")
	if err := os.WriteFile(from, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "crushtool", "-c", from, "-o", to)
	data, err := os.ReadFile(to)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// New makes a map of that many OSDs, all up and in, with a binary CRUSH map.
func New(t testing.TB, osds int, crushMap []byte) *Image {
	t.Helper()
	file := filepath.Join(t.TempDir(), "template")
	run(t, "osdmaptool", file, "--createsimple", strconv.Itoa(osds), "--with-default-pool")
	template, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	im := &Image{
		template: template, Crush: crushMap, Temp: map[osdmap.PG][]crush.ItemID{}, Primary: map[osdmap.PG]crush.ItemID{},
		Upmap: map[osdmap.PG][]crush.ItemID{}, Items: map[osdmap.PG][]osdmap.Pair{},
	}
	for range osds {
		im.OSDs = append(im.OSDs, osdmap.OSD{Exists: true, Up: true, Weight: crush.One, Affinity: osdmap.FullAffinity})
	}
	return im
}

// Write puts the map into a file of the test's own.
func (im *Image) Write(t testing.TB) string {
	t.Helper()
	data, err := im.Encode()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "osdmap")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// Dump is osdmaptool's JSON of a map.
func Dump(t testing.TB, file string) []byte {
	t.Helper()
	return run(t, "osdmaptool", file, "--dump", "json")
}

// Mappings asks osdmaptool where all PGs belong: what `--test-map-pgs-dump-all` prints.
func Mappings(t testing.TB, file string) map[osdmap.PG]osdmap.Mapping {
	t.Helper()
	all := map[osdmap.PG]osdmap.Mapping{}
	for line := range strings.Lines(string(run(t, "osdmaptool", file, "--test-map-pgs-dump-all"))) {
		if m, pg, err := parseMapping(line); err == nil {
			all[pg] = m
		}
	}
	return all
}

// parseMapping reads "1.0 raw ([1,2], p1) up ([1,2], p1) acting ([1,2], p1)".
func parseMapping(line string) (m osdmap.Mapping, pg osdmap.PG, err error) {
	fields := strings.Fields(line)
	if len(fields) != 10 {
		if len(fields) != 7 {
			return m, pg, fmt.Errorf("%d fields", len(fields))
		}
	}
	if pg, err = osdmap.ParsePG(fields[0]); err != nil {
		return m, pg, err
	}
	rest := strings.TrimSpace(line[len(fields[0]):])
	for i, to := range []struct {
		osds    *[]crush.ItemID
		primary *crush.ItemID
	}{{&m.Raw, &m.RawPrimary}, {&m.Up, &m.UpPrimary}, {&m.Acting, &m.ActingPrimary}} {
		_, after, ok := strings.Cut(rest, "([")
		list, after, ok2 := strings.Cut(after, "], p")
		number, after, ok3 := strings.Cut(after, ")")
		if !ok || !ok2 || !ok3 {
			return m, pg, fmt.Errorf("part %d of %q", i, line)
		}
		for _, id := range strings.FieldsFunc(list, func(c rune) bool { return c == ',' }) {
			n, err := strconv.ParseInt(id, 10, 64)
			if err != nil {
				return m, pg, err
			}
			*to.osds = append(*to.osds, crush.ItemID(n))
		}
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			return m, pg, err
		}
		*to.primary = crush.ItemID(n)
		rest = after
	}
	return m, pg, nil
}

// Cleanup asks osdmaptool which upmaps it would cancel, as monitors do: the commands.
func Cleanup(t testing.TB, file string) []string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "commands")
	run(t, "osdmaptool", file, "--upmap-cleanup", to)
	data, err := os.ReadFile(to)
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(strings.Split(string(data), "\n"), func(line string) bool { return strings.TrimSpace(line) == "" })
}

// Balance lets osdmaptool plan upmaps to a deviation of one PG, and returns what it would
// run and the CPU time that took, in seconds.
func Balance(t testing.TB, file string) (commands []string, seconds float64) {
	t.Helper()
	to := filepath.Join(t.TempDir(), "commands")
	cmd := exec.CommandContext(t.Context(), "osdmaptool", file, "--upmap", to, "--upmap-max", "100000", "--upmap-deviation", "1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("osdmaptool --upmap: %v\n%s", err, out)
	}
	data, err := os.ReadFile(to)
	if err != nil {
		t.Fatal(err)
	}
	state := cmd.ProcessState
	return strings.Split(strings.TrimSpace(string(data)), "\n"), (state.UserTime() + state.SystemTime()).Seconds()
}

// Carry puts the pairs of commands into a map.
func (im *Image) Carry(t testing.TB, commands []string) *Image {
	t.Helper()
	after := *im
	after.Items = maps.Clone(im.Items)
	for _, command := range commands {
		fields := strings.Fields(command)
		if len(fields) < 4 {
			continue
		}
		pg, err := osdmap.ParsePG(fields[3])
		if err != nil {
			t.Fatalf("%q: %v", command, err)
		}
		delete(after.Items, pg)
		for i := 4; i+1 < len(fields); i += 2 {
			from, err1 := strconv.ParseInt(fields[i], 10, 32)
			to, err2 := strconv.ParseInt(fields[i+1], 10, 32)
			if err1 != nil || err2 != nil {
				t.Fatalf("%q is no command of upmaps", command)
			}
			after.Items[pg] = append(after.Items[pg], osdmap.Pair{From: crush.ItemID(from), To: crush.ItemID(to)})
		}
	}
	return &after
}
