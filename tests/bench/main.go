// Command bench measures what the CSI services cost above the bare library: volumes
// created, grown, snapshotted, restored and deleted a second through CSI, against the same
// by librbd and the manager, interleaved in one run. It prints medians and ratios, and
// judges nothing.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/holdfast-storage/holdfast/csi/clustermap"
	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/ceph/native"
	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/csiclient"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

func main() {
	dir := flag.String("data-dir", "", "data directory of a running cluster")
	rounds := flag.Int("rounds", 5, "interleaved rounds")
	volumes := flag.Int("volumes", 48, "volumes a round and side")
	parts := flag.String("parts", "rbd,cephfs,node,data", "what to measure")
	flag.Parse()
	if err := run(context.Background(), *dir, *rounds, *volumes, strings.Split(*parts, ",")); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// bench is what the sides work on.
type bench struct {
	client  *csiclient.Client
	cluster ceph.Cluster
	rounds  int
	volumes int
	dir     string
	scratch string // for mounts
	runner  command.Runner
}

func run(ctx context.Context, dir string, rounds, volumes int, parts []string) error {
	client, err := csiclient.Open(dir)
	if err != nil {
		return err
	}
	defer client.Close()
	clusters, err := clustermap.Open(filepath.Join(dir, "csi", "config.json"), filepath.Join(dir, "csi", "credentials"))
	if err != nil {
		return err
	}
	list, err := clusters.Clusters()
	if err != nil {
		return err
	}
	credentials, err := clusters.Credentials(list[0].ID)
	if err != nil {
		return err
	}
	dialer := native.NewDialer()
	defer dialer.Close()
	cluster, err := dialer.Dial(ctx, list[0].Endpoint(), credentials)
	if err != nil {
		return err
	}
	scratch, err := os.MkdirTemp("", "holdfast-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	b := bench{client, cluster, rounds, volumes, dir, scratch, command.System{}}
	fmt.Printf("volumes a second and CPU time a volume, medians of %d interleaved rounds of %d; resident memory before: %s\n", rounds, volumes, memory(dir))
	fmt.Printf("%-8s %-16s %9s %12s %12s %7s %12s %12s %7s\n", "part", "call", "in flight", "csi", "bare", "ratio", "csi CPU", "bare CPU", "ratio")
	for _, part := range parts {
		if err := b.part(ctx, part); err != nil {
			return err
		}
	}
	fmt.Println("resident memory of holdfastd csi afterwards:", memory(dir))
	return nil
}

// part measures one of the parts that -parts names.
func (b *bench) part(ctx context.Context, name string) error {
	switch name {
	case "rbd":
		return b.compareAll(ctx, name, []int{1, 4, 16}, func() side { return b.csi(storage.RBD) }, b.images)
	case "cephfs":
		return b.compareAll(ctx, name, []int{1, 4, 16}, func() side { return b.csi(storage.CephFS) }, b.subvolumes)
	case "node":
		return b.compareAll(ctx, name, []int{1, 4}, b.nodeSide, b.handSide)
	case "data":
		return b.data(ctx)
	}
	return fmt.Errorf("part %q is unknown: rbd, cephfs, node, data", name)
}

func (b *bench) compareAll(ctx context.Context, part string, inFlight []int, through, bare func() side) error {
	for _, n := range inFlight {
		if err := b.compare(ctx, part, n, through(), bare()); err != nil {
			return err
		}
	}
	return nil
}

// memory returns the resident memory of the directory's CSI process.
func memory(dir string) string {
	paths, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range paths {
		line, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(line), "holdfastd\x00") || !strings.Contains(string(line), dir+"/csi/rbd.sock") {
			continue
		}
		status, err := os.ReadFile(filepath.Join(filepath.Dir(path), "status"))
		if err != nil {
			return err.Error()
		}
		for line := range strings.Lines(string(status)) {
			if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
				return strings.TrimSpace(rest)
			}
		}
	}
	return "unknown"
}
