package rebalance

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/poll"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Throttle bounds what moving data costs clients. Zero fields bound nothing.
type Throttle struct {
	Backfills int           // PGs that move to or from one OSD at a time
	Bytes     storage.Bytes // that are let move in a second
	Latency   time.Duration // of the slowest OSD's commits, above which nothing more is let move
	// Degraded is the part of the objects that may lack copies while data moves, from 0 to 1.
	Degraded float64
}

// gate lets PGs move one after the other, and none while there is trouble. What moves already is not slowed down: Ceph moves a PG whole.
type gate struct {
	wave   *wave
	bounds func() Throttle

	free   time.Time     // when what was let move has had its time
	moving map[int32]int // PGs by OSD since all had come to rest
	looked time.Time     // at the cluster
	well   bool          // it was, then
}

// pass returns when a PG may move between OSDs.
func (g *gate) pass(ctx context.Context, u Upmap) error {
	osds := touched(u)
	err := poll.Until(ctx, lookEvery, func() (bool, error) {
		open, err := g.open(ctx, osds)
		if err != nil && ceph.Passing(err) && ctx.Err() == nil {
			g.wave.again()
			return false, nil
		}
		return open, err
	})
	if err != nil {
		return err
	}
	g.take(u)
	if rate := g.bounds().Bytes; rate > 0 {
		from := g.wave.now()
		if g.free.After(from) {
			from = g.free
		}
		g.free = from.Add(time.Duration(float64(u.Bytes) / float64(rate) * float64(time.Second)))
	}
	return nil
}

// take counts a PG as on the move.
func (g *gate) take(u Upmap) {
	for _, osd := range touched(u) {
		g.moving[osd]++
	}
}

// open reports whether one more PG may move now.
func (g *gate) open(ctx context.Context, osds []int32) (bool, error) {
	bounds := g.bounds()
	if g.looked.IsZero() || g.wave.now().Sub(g.looked) >= lookEvery {
		if err := g.look(ctx, bounds); err != nil {
			return false, err
		}
	}
	return g.well && g.spent(bounds) && !g.crowded(bounds, osds), nil
}

// look asks how the cluster is.
func (g *gate) look(ctx context.Context, bounds Throttle) error {
	now, err := ceph.LookAtPGs(ctx, g.wave.cluster)
	if err != nil {
		return err
	}
	if err := g.wave.mayMove(ctx, now); err != nil {
		return err
	}
	if g.wave.tell(now) {
		clear(g.moving)
	}
	why, err := trouble(ctx, g.wave.cluster, now, bounds.Degraded)
	if err != nil {
		return err
	}
	var took time.Duration
	if bounds.Latency > 0 {
		if took, err = commitLatency(ctx, g.wave.cluster); err != nil {
			return err
		}
	}
	g.well, g.looked = why == "" && took <= bounds.Latency, g.wave.now()
	return nil
}

// spent reports whether what was let move has had its time.
func (g *gate) spent(bounds Throttle) bool { return bounds.Bytes == 0 || !g.wave.now().Before(g.free) }

// crowded reports whether one of the OSDs has as many PGs on the move as it may.
func (g *gate) crowded(bounds Throttle, osds []int32) bool {
	for _, osd := range osds {
		if bounds.Backfills > 0 && g.moving[osd] >= bounds.Backfills {
			return true
		}
	}
	return false
}

// commitLatency is that of the slowest OSD, as the manager knows it.
func commitLatency(ctx context.Context, c ceph.Cluster) (time.Duration, error) {
	data, err := c.Mgr(ctx, map[string]any{"prefix": "osd perf"}, nil)
	if err != nil {
		return 0, err
	}
	type infos struct {
		OSDs []struct {
			Stats struct {
				Commit float64 `json:"commit_latency_ms"`
			} `json:"perf_stats"`
		} `json:"osd_perf_infos"`
	}
	var perf struct {
		Wrapped infos `json:"osdstats"`
		infos
	}
	if err := json.Unmarshal(data, &perf); err != nil {
		return 0, fmt.Errorf("read latencies from %.200q: %w", data, err)
	}
	var most float64
	for _, osd := range append(perf.Wrapped.OSDs, perf.OSDs...) {
		most = max(most, osd.Stats.Commit)
	}
	return time.Duration(most * float64(time.Millisecond)), nil
}
