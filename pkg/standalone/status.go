package standalone

import (
	"context"
	"net"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/rpc/localapi"
)

// Status is everything that is known now.
func (s *Supervisor) Status(ctx context.Context) *localapi.Status {
	s.watch.refresh(ctx)
	seen, volumes, err := s.watch.snapshot()
	st := &localapi.Status{
		FSID: s.state.FSID, DataDir: s.dir, CephConf: s.paths.Conf(),
		CSI:        localapi.CSI{RBDSocket: s.rbdSocket(), CephFSSocket: s.cephfsSocket(), Dir: s.csiDir()},
		MetricsURL: "http://" + s.state.Listen + "/metrics",
		ObservedAt: seen.at, AgeSeconds: time.Since(seen.at).Seconds(), Volumes: volumes,
		Checks: []localapi.Check{}, Pools: []localapi.Pool{}, OSDs: localapi.OSDs{List: []localapi.OSD{}},
	}
	if seen.at.IsZero() {
		st.AgeSeconds = -1
	}
	f := facts{seen: seen, err: err, dir: s.dir, replicas: s.config.Replicas()}
	s.mu.Lock()
	st.State, f.trouble = s.phase, s.trouble
	for _, name := range s.order {
		d, looping := s.children[name].status()
		st.Daemons = append(st.Daemons, d)
		if looping {
			f.looping = append(f.looping, name)
		}
	}
	s.mu.Unlock()
	if s.state.CSI && st.State == localapi.StateUp {
		for _, socket := range []string{s.rbdSocket(), s.cephfsSocket()} {
			if !answers(ctx, socket) {
				f.deaf = append(f.deaf, socket)
			}
		}
		f.orphans = s.watch.unclaimed()
	}
	s.fill(st, seen)
	f.daemons, f.state = st.Daemons, st.State
	st.Checks = f.checks()
	st.Health = worst(f.base(), st.Checks)
	st.Verdict = f.verdict(st.Checks)
	return st
}

func answers(ctx context.Context, socket string) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return false
	}
	return conn.Close() == nil
}

// fill copies what Ceph said.
func (s *Supervisor) fill(st *localapi.Status, seen observation) {
	stores := map[int]string{}
	for _, osd := range s.state.OSDs {
		stores[osd.ID] = s.state.store(s.dir, osd)
	}
	for _, osd := range seen.osds.OSDs {
		usage := seen.usage[osd.ID]
		st.OSDs.List = append(st.OSDs.List, localapi.OSD{
			ID: osd.ID, Up: osd.Up == 1, In: osd.In == 1, Store: stores[osd.ID],
			Used: usage.Used * 1024, Size: usage.KB * 1024,
		})
		st.OSDs.Total++
		st.OSDs.Up += osd.Up
		st.OSDs.In += osd.In
	}
	for _, p := range seen.pools {
		st.Pools = append(st.Pools, localapi.Pool{
			Name: p.Name, Size: p.Size, MinSize: p.MinSize, PGs: p.PGs, Stored: int64(p.Stored),
			MaxAvail: int64(p.MaxAvail), Full: p.Full, Applications: p.Applications,
		})
	}
	pg := seen.report.PGMap
	st.Capacity = localapi.Capacity{Total: pg.Total, Used: pg.Used, Avail: pg.Avail, HostFree: int64(seen.hostFree)}
}
