package raftnode_test

import (
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"github.com/holdfast-storage/holdfast/pkg/coordinator/fsm"
)

// bare is hashicorp/raft with the same store and timeouts, plain TCP and a machine that does nothing.
type bare struct{ nodes []*raft.Raft }

type nothing struct{}

func (nothing) Apply(*raft.Log) any                 { return nil }
func (nothing) Snapshot() (raft.FSMSnapshot, error) { return nil, io.EOF }
func (nothing) Restore(r io.ReadCloser) error       { return r.Close() }

func newBare(b *testing.B, size int) *bare {
	b.Helper()
	all := &bare{}
	var servers []raft.Server
	var wires []*raft.NetworkTransport
	for i := range size {
		wire, err := raft.NewTCPTransportWithLogger("127.0.0.1:0", nil, 3, 10*time.Second, hclog.NewNullLogger())
		if err != nil {
			b.Fatal(err)
		}
		wires = append(wires, wire)
		servers = append(servers, raft.Server{ID: raft.ServerID(fmt.Sprint(i)), Address: wire.LocalAddr()})
	}
	for i, wire := range wires {
		dir := b.TempDir()
		store, err := raftboltdb.NewBoltStore(filepath.Join(dir, "raft.db"))
		if err != nil {
			b.Fatal(err)
		}
		cfg := raft.DefaultConfig()
		cfg.LocalID, cfg.Logger, cfg.NoLegacyTelemetry, cfg.BatchApplyCh, cfg.CommitTimeout = servers[i].ID, hclog.NewNullLogger(), true, true, 20*time.Millisecond
		snapshots := raft.NewInmemSnapshotStore()
		if err := raft.BootstrapCluster(cfg, store, store, snapshots, wire, raft.Configuration{Servers: servers}); err != nil {
			b.Fatal(err)
		}
		node, err := raft.NewRaft(cfg, nothing{}, store, store, snapshots, wire)
		if err != nil {
			b.Fatal(err)
		}
		all.nodes = append(all.nodes, node)
		b.Cleanup(func() {
			_ = node.Shutdown().Error()
			_ = wire.Close()
			_ = store.Close()
		})
	}
	return all
}

func (c *bare) leader(b *testing.B) *raft.Raft {
	b.Helper()
	for range 3000 {
		for _, n := range c.nodes {
			if n.State() == raft.Leader {
				return n
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	b.Fatal("nobody leads")
	return nil
}

// rate commits for a while with so many in flight and returns commits a second and the median time of one.
func rate(b *testing.B, flight int, commit func() error) (perSecond float64, median time.Duration) {
	b.Helper()
	var mu sync.Mutex
	var took []time.Duration
	var work sync.WaitGroup
	start := time.Now()
	for range flight {
		work.Go(func() {
			for time.Since(start) < time.Second {
				begin := time.Now()
				if err := commit(); err != nil {
					b.Error(err)
					return
				}
				mu.Lock()
				took = append(took, time.Since(begin))
				mu.Unlock()
			}
		})
	}
	work.Wait()
	slices.Sort(took)
	return float64(len(took)) / time.Since(start).Seconds(), took[len(took)/2]
}

// BenchmarkCommits measures commits in turn with bare hashicorp/raft on the same store: three members in one process, over loopback.
func BenchmarkCommits(b *testing.B) {
	ours, theirs := newCluster(b, 3), newBare(b, 3)
	node, peer := ours.leader(), theirs.leader(b)
	command := fsm.NewCommand("b", "", time.Now(), &fsm.ReportNode{Node: "n1", Boot: "b", Inventory: []byte(`{}`)})
	data, err := command.Encode()
	if err != nil {
		b.Fatal(err)
	}
	for _, flight := range []int{1, 16, 128} {
		b.Run(fmt.Sprint(flight), func(b *testing.B) {
			var ratios []float64
			var last [4]float64
			for range b.N {
				for range 5 {
					own, ownTook := rate(b, flight, func() error {
						_, err := node.Apply(b.Context(), command)
						return err
					})
					bare, bareTook := rate(b, flight, func() error { return peer.Apply(data, time.Minute).Error() })
					ratios = append(ratios, own/bare)
					last = [4]float64{own, bare, float64(ownTook.Microseconds()), float64(bareTook.Microseconds())}
				}
			}
			slices.Sort(ratios)
			b.ReportMetric(ratios[len(ratios)/2], "of-bare")
			b.ReportMetric(last[0], "commits/s")
			b.ReportMetric(last[1], "bare-commits/s")
			b.ReportMetric(last[2], "p50-µs")
			b.ReportMetric(last[3], "bare-p50-µs")
		})
	}
}
