package edit_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/partition/edit"
)

const mib = 1 << 20

// disk makes a file of size bytes with a table by sfdisk's script.
func disk(t testing.TB, size int64, script string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.img")
	file, err := os.Create(path)
	must(t, err)
	must(t, file.Truncate(size))
	must(t, file.Close())
	cmd := exec.CommandContext(t.Context(), "sfdisk", "--quiet", path)
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("sfdisk: %v\n%s", err, out)
	}
	return path
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func run(t testing.TB, argv ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return string(out)
}

// seen is a partition as sfdisk sees it.
type seen struct {
	Start, Size int64
	Type, UUID  string
}

func sfdisk(t testing.TB, path string) (list []seen) {
	t.Helper()
	var dump struct {
		Table struct {
			Partitions []seen `json:"partitions"`
		} `json:"partitiontable"`
	}
	out, err := exec.CommandContext(t.Context(), "sfdisk", "--json", path).Output()
	must(t, err)
	must(t, json.Unmarshal(out, &dump))
	return dump.Table.Partitions
}

func grow(t testing.TB, path string, size int64, number int) (*edit.Table, error) {
	t.Helper()
	must(t, os.Truncate(path, size))
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer func() { must(t, file.Close()) }()
	return edit.Grow(file, size, number)
}

// boot2docker's disk: a swap partition of 1000 MiB first, and behind it the one that holds all.
const boot2docker = "label: dos\nstart=2048, size=204800, type=82\nstart=206848, type=83, bootable\n"

func TestAPartitionGrowsToTheEndOfTheDisk(t *testing.T) {
	for name, c := range map[string]struct {
		script       string
		number, want int
	}{
		"GPT, one":                {"label: gpt\ntype=linux, name=\"데이터\"\n", 0, 1},
		"GPT, the last of three":  {"label: gpt\nsize=10M, type=uefi\nsize=20M\n,\n", 0, 3},
		"GPT, out of order":       {"label: gpt\n3: start=2048, size=40960\n1: start=43008\n", 0, 1},
		"MBR, one":                {"label: dos\ntype=83\n", 0, 1},
		"boot2docker":             {boot2docker, 0, 2},
		"MBR, by number":          {"label: dos\nsize=20M, type=82\ntype=83\n", 2, 2},
		"MBR, a logical one":      {"label: dos\nsize=20M, type=83\ntype=5\nsize=10M, type=83\nsize=10M, type=82\n,\n", 0, 7},
		"MBR, the first logical":  {"label: dos\nsize=20M, type=83\ntype=f\n,\n", 5, 5},
		"MBR, container and more": {"label: dos\ntype=5, size=100M\ntype=83, size=50M\n5: size=10M\n", 2, 2},
	} {
		for _, size := range []int64{400 * mib, 3 << 40} {
			if size > 2<<40 && !strings.HasPrefix(name, "GPT") {
				continue
			}
			t.Run(fmt.Sprintf("%s, to %d", name, size), func(t *testing.T) {
				path := disk(t, 200*mib, c.script)
				before := sfdisk(t, path)
				table, err := grow(t, path, size, c.number)
				must(t, err)
				p, err := table.Find(c.want)
				must(t, err)
				if p.End() < size-2*mib || len(table.Trouble) > 0 {
					t.Errorf("partition %+v, trouble %q", p, table.Trouble)
				}
				after := sfdisk(t, path)
				for n := range before {
					was, is := before[n], after[n]
					if was.Start != is.Start || was.UUID != is.UUID || was.Type != is.Type || is.Size < was.Size {
						t.Errorf("partition %d was %+v and is %+v", n+1, was, is)
					}
				}
				var found bool
				for _, s := range after {
					found = found || s.Start*512 == p.Start && s.Size*512 == p.Size
				}
				if !found {
					t.Errorf("sfdisk does not see %+v:\n%+v", p, after)
				}
				if out := run(t, "sfdisk", "--verify", path); !strings.Contains(out, "No errors") {
					t.Error(out)
				}
				if table.Kind == edit.GPT {
					if out := run(t, "sgdisk", "--verify", path); !strings.Contains(out, "No problems found") {
						t.Error(out)
					}
				}
				again, err := grow(t, path, size, c.number)
				if must(t, err); fmt.Sprint(again) != fmt.Sprint(table) {
					t.Errorf("grown again: %+v", again)
				}
			})
		}
	}
}

func TestWhatCannotGrowIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		script string
		size   int64
		number int
		class  error
		say    string
	}{
		"another is behind":       {"label: dos\nsize=20M, type=83\ntype=82\n", 400 * mib, 1, fault.Precondition, "partition 2 begins where it ends"},
		"no such partition":       {"label: gpt\n,\n", 400 * mib, 7, fault.NotFound, "no partition 7"},
		"the container":           {"label: dos\ntype=5\n5: size=10M\n", 400 * mib, 1, fault.Invalid, "container"},
		"beyond 2 TiB of an MBR":  {"label: dos\ntype=83\n", 3 << 40, 1, nil, ""}, // up to 2 TiB
		"no partitions in a GPT":  {"label: gpt\n", 400 * mib, 0, fault.NotFound, "no partitions"},
		"not a number of a table": {"label: dos\n", 400 * mib, 0, fault.NotFound, "no partitions"},
	} {
		t.Run(name, func(t *testing.T) {
			path := disk(t, 200*mib, c.script)
			table, err := grow(t, path, c.size, c.number)
			if !errors.Is(err, c.class) || c.say != "" && !strings.Contains(err.Error(), c.say) {
				t.Errorf("%v", err)
			}
			if c.class == nil {
				if p, _ := table.Find(1); p.End() > 2<<40 || p.End() < 2<<40-2*mib {
					t.Errorf("%+v", p)
				}
			}
		})
	}
}

// One copy that is damaged is made anew from the other; with both damaged nothing is written, and what is left of them is
// not taken for an MBR.
func TestADamagedGPT(t *testing.T) {
	spoil := func(path string, at int64) {
		file, err := os.OpenFile(path, os.O_RDWR, 0)
		must(t, err)
		_, err = file.WriteAt([]byte("spoiled"), at)
		must(t, errors.Join(err, file.Close()))
	}
	const size = 200 * mib
	for name, c := range map[string]struct {
		primary, backup bool
		size            int64
		works           bool
	}{
		"the first":                        {true, false, size, true},
		"the backup":                       {false, true, 300 * mib, true},
		"both":                             {true, true, size, false},
		"the first, and the disk is grown": {true, false, 300 * mib, false}, // the backup is not where it is looked for
	} {
		t.Run(name, func(t *testing.T) {
			path := disk(t, size, "label: gpt\nsize=50M\n")
			if c.primary {
				spoil(path, 512+20)
			}
			if c.backup {
				spoil(path, size-512+20)
			}
			before, err := os.ReadFile(path)
			must(t, err)
			_, err = grow(t, path, c.size, 1)
			if (err == nil) != c.works {
				t.Fatal(err)
			}
			if err == nil {
				run(t, "sgdisk", "--verify", path)
				return
			}
			after, readErr := os.ReadFile(path)
			if must(t, readErr); !errors.Is(err, fault.Invalid) || !bytes.Equal(before, after[:len(before)]) {
				t.Errorf("%v; changed %v", err, !bytes.Equal(before, after[:len(before)]))
			}
		})
	}
}

func TestAGPTOfLargeSectors(t *testing.T) {
	path := disk(t, 200*mib, "label: gpt\nsector-size: 4096\n")
	must(t, os.Truncate(path, 0))
	must(t, os.Truncate(path, 200*mib))
	cmd := exec.CommandContext(t.Context(), "sfdisk", "--quiet", "--sector-size", "4096", path)
	cmd.Stdin = strings.NewReader("label: gpt\n,\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("sfdisk knows no --sector-size here: %s", out)
	}
	table, err := grow(t, path, 400*mib, 0)
	must(t, err)
	if p := table.Partitions[0]; table.SectorSize != 4096 || p.Start != mib || p.End() < 398*mib {
		t.Errorf("%+v", table)
	}
}

func FuzzRead(f *testing.F) {
	for _, script := range []string{"label: gpt\n,\n", boot2docker, "label: dos\nsize=20M, type=83\ntype=5\nsize=10M, type=83\n,\n"} {
		data, err := os.ReadFile(disk(f, 200*mib, script))
		must(f, err)
		f.Add(data[:40<<10], data[len(data)-40<<10:])
	}
	f.Fuzz(func(t *testing.T, head, tail []byte) {
		const size = 4 * mib
		data := make([]byte, size)
		copy(data, head)
		if len(tail) < size {
			copy(data[size-len(tail):], tail)
		}
		table, err := edit.Read(bytes.NewReader(data), size)
		if err != nil {
			return
		}
		for _, p := range table.Partitions {
			if p.Start < 0 || p.End() > size || p.Size <= 0 {
				t.Errorf("partition %+v", p)
			}
		}
	})
}

// fdisk puts a logical partition's record right before it, 1 MiB aligned: what is before the record is where another may end.
func TestALogicalPartitionLeavesTheNextOnesRecordAlone(t *testing.T) {
	path := disk(t, 200*mib, "label: dos\nsize=20M, type=83\ntype=5\nstart=45056, size=81920, type=83\nstart=149504, type=82\n")
	before := sfdisk(t, path)
	_, err := grow(t, path, 200*mib, 5)
	after := sfdisk(t, path)
	if len(after) != len(before) {
		t.Fatalf("%+v became %+v, %v", before, after, err)
	}
	file, openErr := os.OpenFile(path, os.O_RDWR, 0)
	must(t, openErr)
	for _, p := range after {
		if p.Start == 45056 {
			_, err := file.WriteAt(bytes.Repeat([]byte{0xaa}, int(p.Size*512)), p.Start*512)
			must(t, err)
		}
	}
	must(t, file.Close())
	if left := sfdisk(t, path); len(left) != len(before) {
		t.Errorf("filled, it covers the next one's record: %+v", left)
	}
}
