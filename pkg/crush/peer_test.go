package crush_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/crush"
)

// benchRounds is how often this code and crushtool take turns.
const benchRounds = 5

// BenchmarkCrushtool maps the same inputs here and by `crushtool --test`, which prints nothing,
// in turn, and reports mappings a second of CPU of both: medians of the turns. It fails
// where C's rate is the higher one.
func BenchmarkCrushtool(b *testing.B) {
	if _, err := exec.LookPath("crushtool"); err != nil {
		b.Skip("SKIPPED: crushtool is not installed (Debian package ceph-base), so there is nothing to compare with")
	}
	for _, c := range benchMaps {
		b.Run(c.name, func(b *testing.B) {
			text := flat(c.hosts, c.perHost, c.racks)
			binary := filepath.Join(b.TempDir(), "map.bin")
			file := filepath.Join(b.TempDir(), "map.txt")
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				b.Fatal(err)
			}
			if out, err := exec.CommandContext(b.Context(), "crushtool", "-c", file, "-o", binary).CombinedOutput(); err != nil {
				b.Fatalf("%v: %s", err, out)
			}
			mapper := mapperOf(b, text)
			var own, its []float64
			for b.Loop() {
				for range benchRounds {
					its = append(its, float64(c.inputs)/measured(b, "crushtool", func() float64 {
						// What reading the map takes is taken off by a run of hardly any input.
						return crushtoolTime(b, binary, c.inputs) - crushtoolTime(b, binary, 1)
					}))
					own = append(own, float64(c.inputs)/measured(b, "this code", func() float64 { return mapTime(b, mapper, c.inputs) }))
				}
			}
			ratio := median(own) / median(its)
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(median(own), "mappings/CPU-s")
			b.ReportMetric(median(its), "crushtool-mappings/CPU-s")
			b.ReportMetric(ratio, "times-crushtool's")
			if ratio < 1 {
				b.Errorf("%s: %.2f times C's rate", c.name, ratio)
			}
		})
	}
}

// measured repeats what takes too little CPU time for a rate, in seconds, and skips the
// benchmark if that stays so: times of two runs are taken from each other, and clocks are coarse.
func measured(b *testing.B, what string, measure func() float64) float64 {
	b.Helper()
	const least, tries = 0.05, 5
	for range tries {
		if t := measure(); t >= least {
			return t
		}
	}
	b.Skipf("SKIPPED: %s takes less than %.2f s of CPU, so that no rate comes of it", what, least)
	return 0
}

func median(of []float64) float64 {
	slices.Sort(of)
	return of[len(of)/2]
}

func seconds(u syscall.Rusage) float64 {
	return float64(u.Utime.Sec+u.Stime.Sec) + float64(u.Utime.Usec+u.Stime.Usec)/1e6
}

func crushtoolTime(b *testing.B, file string, inputs int) float64 {
	b.Helper()
	cmd := exec.CommandContext(b.Context(), "crushtool", "-i", file, "--test", "--rule", "0", "--num-rep", "3", "--min-x", "0", "--max-x", strconv.Itoa(inputs-1))
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	return (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()
}

func mapTime(b *testing.B, mapper *crush.Mapper, inputs int) float64 {
	b.Helper()
	var before, after syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &before)
	var out []crush.ItemID
	for x := range inputs {
		var err error
		if out, err = mapper.Do(out[:0], 0, int32(x), 3); err != nil {
			b.Fatal(err)
		}
	}
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &after)
	return seconds(after) - seconds(before)
}
