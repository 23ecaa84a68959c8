// Command bench measures what the CSI services cost above the bare library: volumes made
// and deleted a second through CreateVolume and DeleteVolume, against images made and
// removed by librbd and subvolumes by the manager, interleaved in one run. It prints
// medians and ratios, and judges nothing.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-storage/holdfast/csi/clustermap"
	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/ceph/native"
	"github.com/holdfast-storage/holdfast/pkg/csiclient"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

func main() {
	dir := flag.String("data-dir", "", "data directory of a running cluster")
	rounds := flag.Int("rounds", 5, "interleaved rounds")
	volumes := flag.Int("volumes", 48, "volumes a round and side")
	flag.Parse()
	if err := run(context.Background(), *dir, *rounds, *volumes); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// side is one way to make and remove a volume.
type side struct {
	make   func(ctx context.Context, name string) (id string, err error)
	remove func(ctx context.Context, id string) error
}

func run(ctx context.Context, dir string, rounds, volumes int) error {
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
	fmt.Printf("volumes made and deleted a second; medians of %d interleaved rounds of %d\n", rounds, volumes)
	fmt.Printf("%-8s %-10s %10s %10s %8s\n", "driver", "in flight", "csi", "bare", "ratio")
	for _, c := range []struct {
		name string
		csi  side
		bare side
	}{
		{"rbd", throughCSI(client, storage.RBD), bareImages(cluster)},
		{"cephfs", throughCSI(client, storage.CephFS), bareSubvolumes(cluster)},
	} {
		for _, inFlight := range []int{1, 16} {
			if err := compare(ctx, c.name, inFlight, rounds, volumes, c.csi, c.bare); err != nil {
				return err
			}
		}
	}
	return memory(dir)
}

func compare(ctx context.Context, name string, inFlight, rounds, volumes int, a, b side) error {
	var rateA, rateB, ratio []float64
	for round := range rounds + 1 { // the first warms up
		x, err := rate(ctx, a, inFlight, volumes, fmt.Sprintf("bench-%s-%d-%d", name, inFlight, round))
		if err != nil {
			return err
		}
		y, err := rate(ctx, b, inFlight, volumes, fmt.Sprintf("hf-bench-%s-%d-%d", name, inFlight, round))
		if err != nil {
			return err
		}
		if round > 0 {
			rateA, rateB, ratio = append(rateA, x), append(rateB, y), append(ratio, x/y)
		}
	}
	fmt.Printf("%-8s %-10d %8.1f/s %8.1f/s %8.2f\n", name, inFlight, median(rateA), median(rateB), median(ratio))
	return nil
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

// rate makes and removes volumes with so many under way at once.
func rate(ctx context.Context, s side, inFlight, volumes int, prefix string) (float64, error) {
	var mu sync.Mutex
	var failed error
	names := make(chan string)
	var workers sync.WaitGroup
	start := time.Now()
	for range inFlight {
		workers.Go(func() {
			for name := range names {
				id, err := s.make(ctx, name)
				if err == nil {
					err = s.remove(ctx, id)
				}
				if err != nil {
					mu.Lock()
					failed = errors.Join(failed, err)
					mu.Unlock()
				}
			}
		})
	}
	for i := range volumes {
		names <- prefix + "-" + strconv.Itoa(i)
	}
	close(names)
	workers.Wait()
	return float64(volumes) / time.Since(start).Seconds(), failed
}

func throughCSI(client *csiclient.Client, driver storage.Driver) side {
	return side{
		make: func(ctx context.Context, name string) (string, error) {
			v, err := client.Create(ctx, csiclient.Request{Name: name, Driver: driver, Bytes: storage.GiB})
			return v.ID, err
		},
		remove: func(ctx context.Context, id string) error {
			return client.Delete(ctx, csiclient.Volume{ID: id, Driver: driver})
		},
	}
}

func bareImages(cluster ceph.Cluster) side {
	images := cluster.Images("rbd", "")
	return side{
		make: func(ctx context.Context, name string) (string, error) {
			return name, images.Create(ctx, name, ceph.ImageSpec{Size: storage.GiB})
		},
		remove: images.Remove,
	}
}

func bareSubvolumes(cluster ceph.Cluster) side {
	subvolumes := cluster.Subvolumes("cephfs", clustermap.DefaultSubvolumeGroup)
	return side{
		make: func(ctx context.Context, name string) (string, error) {
			if err := subvolumes.Create(ctx, name, ceph.SubvolumeSpec{Size: storage.GiB, Mode: 0o777}); err != nil {
				return "", err
			}
			// A volume is of use only with its path.
			_, err := subvolumes.Info(ctx, name)
			return name, err
		},
		remove: subvolumes.Remove,
	}
}

// memory prints the resident memory of the directory's CSI process.
func memory(dir string) error {
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return err
	}
	for _, path := range paths {
		line, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(line), "holdfastd\x00") || !strings.Contains(string(line), dir+"/csi/rbd.sock") {
			continue
		}
		status, err := os.ReadFile(filepath.Join(filepath.Dir(path), "status"))
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(status)) {
			if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
				fmt.Println("resident memory of holdfastd csi afterwards:", strings.TrimSpace(rest))
			}
		}
	}
	return nil
}
