package standalone

import (
	"context"
	"path/filepath"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/rpc/localapi"
)

type observer struct{ s *Supervisor }

func newObserver(s *Supervisor) *observer { return &observer{s} }
func (o *observer) run(context.Context)   {}

// Status is everything that is known now.
func (s *Supervisor) Status(ctx context.Context) *localapi.Status {
	st := &localapi.Status{Health: localapi.HealthUnknown, FSID: s.state.FSID, DataDir: s.dir, CephConf: s.paths.Conf(),
		CSI:        localapi.CSI{RBDSocket: s.rbdSocket(), CephFSSocket: s.cephfsSocket(), Dir: filepath.Clean(s.csiDir())},
		MetricsURL: "http://" + s.state.Listen + "/metrics", ObservedAt: time.Now()}
	s.mu.Lock()
	st.State = s.phase
	s.mu.Unlock()
	if r, err := s.cephReport(ctx); err == nil {
		st.Health = r.Health.Status
	}
	return st
}
