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

// gate lets PGs move one after the other. What moves already is not slowed down: Ceph moves a PG whole.
type gate struct {
	cluster ceph.Cluster
	bounds  func() Throttle
	now     func() time.Time
	waits   func(pgs) // hears of the cluster while it waits

	free   time.Time     // when what was let move has had its time
	moving map[int32]int // PGs by OSD since all were settled
}

// pass returns when a PG may move between OSDs.
func (g *gate) pass(ctx context.Context, bytes storage.Bytes, osds []int32) error {
	err := poll.Until(ctx, lookEvery, func() (bool, error) {
		open, err := g.open(ctx, osds)
		if err != nil && isPassing(err) && ctx.Err() == nil {
			return false, nil
		}
		return open, err
	})
	if err != nil {
		return err
	}
	for _, osd := range osds {
		g.moving[osd]++
	}
	if rate := g.bounds().Bytes; rate > 0 {
		from := g.now()
		if g.free.After(from) {
			from = g.free
		}
		g.free = from.Add(time.Duration(float64(bytes) / float64(rate) * float64(time.Second)))
	}
	return nil
}

// open reports whether one more PG may move now.
func (g *gate) open(ctx context.Context, osds []int32) (bool, error) {
	bounds := g.bounds()
	if bounds == (Throttle{Degraded: bounds.Degraded}) {
		return true, nil
	}
	now, err := look(ctx, g.cluster)
	if err != nil {
		return false, err
	}
	if now.Settled {
		clear(g.moving)
	}
	if !g.spent(bounds) || g.crowded(bounds, osds) {
		g.waits(now)
		return false, nil
	}
	if bounds.Latency == 0 {
		return true, nil
	}
	took, err := commitLatency(ctx, g.cluster)
	if err == nil && took > bounds.Latency {
		g.waits(now)
	}
	return took <= bounds.Latency, err
}

// spent reports whether what was let move has had its time.
func (g *gate) spent(bounds Throttle) bool { return bounds.Bytes == 0 || !g.now().Before(g.free) }

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
