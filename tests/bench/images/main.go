// Command images times conversions of virtual disks as whole processes: holdfast beside qemu-img and `cp
// --sparse=always` of the same data, in turns, each with its sync. It prints medians and their ratios, and the largest
// resident set of holdfast.
package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

const mib = 1 << 20

type bench struct {
	holdfast, folder string
	rounds           int
	size             int64
}

func main() {
	b := bench{}
	flag.StringVar(&b.holdfast, "holdfast", "bin/holdfast", "the program")
	flag.StringVar(&b.folder, "dir", "", "a folder for the images (default: a new one in /var/tmp)")
	flag.IntVar(&b.rounds, "rounds", 5, "how often each is timed")
	flag.Int64Var(&b.size, "mib", 2048, "size of the disk; two thirds of it are data")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := b.run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// race is a conversion and what it is compared with. IN and OUT stand for the files.
type race struct {
	name   string
	source string // made from the raw disk by qemu-img with these options
	out    string
	ours   []string
	qemu   []string
	like   string // what is copied by cp: the source unless it is compressed
}

var races = []race{
	{"monolithicSparse -> VDI", "vmdk", "vdi", []string{}, []string{"-O", "vdi"}, ""},
	{"streamOptimized -> VDI", "vmdk,subformat=streamOptimized", "vdi", []string{}, []string{"-O", "vdi", "-W", "-m", "16"}, "raw"},
	{"flat -> VDI", "vmdk,subformat=monolithicFlat", "vdi", []string{}, []string{"-O", "vdi"}, "raw"},
	{"raw -> streamOptimized", "raw", "vmdk", []string{"--subformat", "streamOptimized"}, []string{"-O", "vmdk", "-o", "subformat=streamOptimized"}, ""},
	{"raw -> raw", "raw", "img", []string{}, []string{"-O", "raw"}, ""},
}

func (b *bench) run(ctx context.Context) (err error) {
	if b.folder == "" {
		if b.folder, err = os.MkdirTemp("/var/tmp", "hfbench"); err != nil {
			return err
		}
		defer func() { _ = os.RemoveAll(b.folder) }()
	}
	raw := filepath.Join(b.folder, "raw.img")
	if err := b.makeDisk(raw); err != nil {
		return err
	}
	table := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "conversion\tcp\tqemu-img\tholdfast\tholdfast/cp\tqemu-img/cp\tqemu-img/holdfast\tRSS")
	for _, r := range races {
		if err := b.race(ctx, r, raw, table); err != nil {
			return err
		}
	}
	return table.Flush()
}

// makeDisk writes a disk with stretches of data, which compresses to about a half, and of holes.
func (b *bench) makeDisk(path string) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	random := rand.New(rand.NewPCG(1, 1))
	data := make([]byte, mib)
	for at := int64(0); at < b.size; at++ {
		if at%48 >= 32 {
			continue
		}
		for n := 0; n < len(data); n += 8 {
			value := random.Uint64()
			if n%16 == 0 {
				value = uint64(n / 64)
			}
			for k := range 8 {
				data[n+k] = byte(value >> (8 * k))
			}
		}
		if _, err := file.WriteAt(data, at*mib); err != nil {
			return err
		}
	}
	if err := file.Truncate(b.size * mib); err != nil {
		return err
	}
	return file.Close()
}

func (b *bench) race(ctx context.Context, r race, raw string, table *tabwriter.Writer) error {
	source := raw
	if format, options, _ := strings.Cut(r.source, ","); format != "raw" {
		source = filepath.Join(b.folder, "source."+format)
		argv := []string{"qemu-img", "convert", "-f", "raw", "-O", format, raw, source}
		if options != "" {
			argv = append(argv, "-o", options)
		}
		if _, _, err := timed(ctx, argv, ""); err != nil {
			return err
		}
	}
	copied := source
	if r.like == "raw" {
		copied = raw
	}
	out := filepath.Join(b.folder, "out."+r.out)
	times := map[string][]time.Duration{}
	var resident int64
	for range b.rounds {
		for name, argv := range map[string][]string{
			"cp":       {"cp", "--sparse=always", copied, out},
			"qemu":     append(append([]string{"qemu-img", "convert"}, r.qemu...), source, out),
			"holdfast": append([]string{b.holdfast, "image", "convert", source, out}, r.ours...),
		} {
			took, rss, err := timed(ctx, argv, out)
			if err != nil {
				return err
			}
			times[name] = append(times[name], took)
			if name == "holdfast" {
				resident = max(resident, rss)
			}
			if err := os.Remove(out); err != nil {
				return err
			}
		}
	}
	cp, qemu, ours := median(times["cp"]), median(times["qemu"]), median(times["holdfast"])
	fmt.Fprintf(table, "%s\t%.2f s\t%.2f s\t%.2f s\t%.2f\t%.2f\t%.2f\t%d MiB\n", r.name, cp, qemu, ours, ours/cp, qemu/cp, qemu/ours, resident>>10)
	left, err := filepath.Glob(filepath.Join(b.folder, "source*"))
	if err != nil {
		return err
	}
	for _, path := range left {
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	return nil
}

// timed runs a program and syncs what it wrote; rss is in KiB.
func timed(ctx context.Context, argv []string, out string) (took time.Duration, rss int64, err error) {
	unix.Sync() // what the one before left is not to be paid by this one
	begun := time.Now()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	if text, err := cmd.CombinedOutput(); err != nil {
		return 0, 0, fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), err, text)
	}
	if out != "" {
		if err := syncFile(out); err != nil {
			return 0, 0, err
		}
	}
	took = time.Since(begun)
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		rss = usage.Maxrss
	}
	return took, rss, nil
}

func syncFile(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	return file.Close()
}

func median(list []time.Duration) float64 {
	slices.Sort(list)
	return list[len(list)/2].Seconds()
}
