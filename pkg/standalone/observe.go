package standalone

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/obs"
	"github.com/holdfast-storage/holdfast/pkg/rpc/localapi"
	"github.com/holdfast-storage/holdfast/pkg/rpc/volumeapi"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

const (
	observeEvery  = 2 * time.Second
	countEvery    = 15 * time.Second
	freshEnough   = time.Second     // a status asks Ceph again when the last look is older
	observeWithin = 5 * time.Second // one look
	askWithin     = 2 * time.Second // a status that asks again
	staleAfter    = 15 * time.Second
)

// observation is what one look at the cluster found.
type observation struct {
	at       time.Time // zero: never
	report   cephReport
	osds     osdMap
	pools    []ceph.PoolInfo
	usage    map[int]osdUsage
	hostFree storage.Bytes
}

type osdUsage struct {
	ID   int   `json:"id"`
	KB   int64 `json:"kb"`
	Used int64 `json:"kb_used"`
}

// observer looks at the cluster again and again and keeps the last good look: whoever
// asks gets that, with its age, also when the monitors do not answer.
type observer struct {
	s *Supervisor

	looking sync.Mutex // one look at a time

	mu        sync.Mutex
	last      observation
	err       error // of the last look
	volumes   localapi.Volumes
	orphans   int
	counted   time.Time
	countTook time.Duration
}

func newObserver(s *Supervisor) *observer {
	return &observer{s: s, volumes: localapi.Volumes{RBD: -1, CephFS: -1}}
}

// run looks until ctx ends.
func (o *observer) run(ctx context.Context) {
	for sleep(ctx, observeEvery) {
		err := o.look(ctx, observeWithin)
		if err != nil && ctx.Err() == nil {
			o.s.tools.Log.Debug("could not look at the cluster", obs.KeyError, err)
		}
		if o.s.state.CSI && o.countDue(false) {
			o.count(ctx)
		}
	}
}

// look asks Ceph once.
func (o *observer) look(ctx context.Context, within time.Duration) error {
	o.looking.Lock()
	defer o.looking.Unlock()
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	seen, err := o.collect(ctx)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.err = err
	if err == nil {
		if seen.usage == nil {
			seen.usage = o.last.usage
		}
		o.last = seen
	}
	return err
}

func (o *observer) collect(ctx context.Context) (observation, error) {
	seen := observation{}
	cluster, err := o.s.connect(ctx)
	if err != nil {
		return seen, err
	}
	report, err := o.s.cephReport(ctx)
	if err != nil {
		return seen, err
	}
	seen.report = *report
	if err := o.s.monJSON(ctx, "osd dump", nil, &seen.osds); err != nil {
		return seen, err
	}
	if seen.pools, err = cluster.Pools(ctx); err != nil {
		return seen, err
	}
	if seen.hostFree, err = freeSpace(o.s.dir); err != nil {
		return seen, err
	}
	if report.MgrMap.Available {
		seen.usage = o.osdUsage(ctx, cluster)
	}
	seen.at = time.Now()
	return seen, nil
}

// osdUsage comes from the mgr, which may be away for a moment: then nil.
func (o *observer) osdUsage(ctx context.Context, cluster ceph.Cluster) map[int]osdUsage {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	out, err := cluster.Mgr(ctx, map[string]any{"prefix": "osd df"}, nil)
	var answer struct {
		Nodes []osdUsage `json:"nodes"`
	}
	if err != nil || json.Unmarshal(out, &answer) != nil {
		return nil
	}
	usage := map[int]osdUsage{}
	for _, n := range answer.Nodes {
		usage[n.ID] = n
	}
	return usage
}

// countDue: counting reads every record, so it may take no more than a twentieth of the
// time; without anybody asking it is done seldom.
func (o *observer) countDue(asked bool) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	wait := countEvery
	if asked || o.volumes.RBD < 0 || o.volumes.CephFS < 0 {
		wait = max(freshEnough, 20*o.countTook)
	}
	return time.Since(o.counted) > wait
}

// count asks the CSI services how many volumes there are.
func (o *observer) count(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, observeWithin)
	defer cancel()
	started := time.Now()
	rbd, rbdErr := countVolumes(ctx, o.s.rbdSocket())
	cephfs, cephfsErr := countVolumes(ctx, o.s.cephfsSocket())
	if err := errors.Join(rbdErr, cephfsErr); err != nil {
		o.s.tools.Log.Debug("could not count volumes", obs.KeyError, err)
	}
	summary, err := volumeapi.NewClient(volumeapi.Socket(o.s.dir)).Summary(ctx)
	if err != nil {
		o.s.tools.Log.Debug("could not ask for orphans", obs.KeyError, err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.orphans = summary.Total()
	o.counted, o.countTook = time.Now(), time.Since(started)
	o.volumes = localapi.Volumes{RBD: rbd, CephFS: cephfs}
}

// snapshot returns the last look, what went wrong with the last attempt, and the counts.
func (o *observer) snapshot() (observation, localapi.Volumes, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.last, o.volumes, o.err
}

// unclaimed is how many orphans the last search found.
func (o *observer) unclaimed() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.orphans
}

// refresh looks again when the last look is not fresh; a failure leaves the old one.
func (o *observer) refresh(ctx context.Context) {
	if last, _, _ := o.snapshot(); time.Since(last.at) > freshEnough {
		if err := o.look(ctx, askWithin); err != nil && ctx.Err() == nil {
			o.s.tools.Log.Debug("could not look at the cluster", obs.KeyError, err)
		}
	}
	if o.s.state.CSI && o.countDue(true) {
		o.count(ctx)
	}
}
