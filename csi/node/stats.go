package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/csi/attach"
	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// answerTimeout bounds a look at a file system whose server may be dead.
const answerTimeout = 5 * time.Second

// NodeGetVolumeStats tells how full the volume is and whether it is well. A volume
// that does not answer is abnormal, not an error.
func (s *Server) NodeGetVolumeStats(ctx context.Context, req *csi.NodeGetVolumeStatsRequest) (*csi.NodeGetVolumeStatsResponse, error) {
	if req.GetVolumeId() == "" {
		return nil, fault.New(fault.Invalid, "volume_id is missing")
	}
	if req.GetVolumePath() == "" {
		return nil, fault.New(fault.Invalid, "volume_path is missing")
	}
	if _, err := s.readKnown(req.GetVolumeId()); err != nil {
		return nil, err
	}
	path := resolvePath(req.GetVolumePath())
	v, err := s.at(req.GetVolumeId(), path)
	if err != nil {
		return nil, err
	}
	if since := s.fencedSince(ctx, v.Volume); since != nil {
		return abnormal(fmt.Errorf("this node was fenced at %s, because the volume was taken from it while it still had it: "+
			"nothing is written any more; end the pod here", since.Format(time.RFC3339))), nil
	}
	if trouble := s.trouble(ctx, v); trouble != nil {
		return abnormal(trouble), nil
	}
	if path != v.Staging && !s.shown(v, path, false) { // else these would be the host's own disk's numbers
		return abnormal(fmt.Errorf("the volume is not mounted at %s any more: restart the pod", path)), nil
	}
	if v.Block {
		size, err := attach.DeviceSize(v.Device.Path)
		if err != nil {
			return abnormal(err), nil
		}
		return normal(&csi.VolumeUsage{Unit: csi.VolumeUsage_BYTES, Total: size}), nil
	}
	st, err := s.statfs(ctx, path)
	if err != nil {
		return abnormal(fmt.Errorf("%s does not answer: %w", path, err)), nil
	}
	block := st.Frsize
	usage := []*csi.VolumeUsage{
		{
			Unit: csi.VolumeUsage_BYTES, Total: int64(st.Blocks) * block, Available: int64(st.Bavail) * block,
			Used: int64(st.Blocks-st.Bfree) * block,
		},
		{Unit: csi.VolumeUsage_INODES, Total: int64(st.Files), Available: int64(st.Ffree), Used: max(0, int64(st.Files)-int64(st.Ffree))},
	}
	if st.Flags&unix.ST_RDONLY != 0 && !v.ReadOnly && !v.Published[path].ReadOnly {
		return &csi.NodeGetVolumeStatsResponse{Usage: usage, VolumeCondition: &csi.VolumeCondition{
			Abnormal: true, Message: "the file system has turned read-only after an error: see dmesg on the node, then restart the pod (it is checked when staged)",
		}}, nil
	}
	return normal(usage...), nil
}

func normal(usage ...*csi.VolumeUsage) *csi.NodeGetVolumeStatsResponse {
	return &csi.NodeGetVolumeStatsResponse{Usage: usage, VolumeCondition: &csi.VolumeCondition{Message: "the volume is well"}}
}

func abnormal(err error) *csi.NodeGetVolumeStatsResponse {
	return &csi.NodeGetVolumeStatsResponse{VolumeCondition: &csi.VolumeCondition{Abnormal: true, Message: err.Error()}}
}

// at returns the volume that is staged or published at path: fault.NotFound otherwise.
func (s *Server) at(volume, path string) (*staged, error) {
	v, err := s.current(volume)
	if err != nil {
		return nil, err
	}
	if v != nil && v.Staging == path {
		return v, nil
	}
	if v != nil {
		if _, ok := v.Published[path]; ok {
			return v, nil
		}
	}
	return nil, fault.New(fault.NotFound, "volume %s is neither staged nor published at %s on this node", volume, path)
}

// answers reports whether the file system that is mounted on path answers. A ceph-fuse
// that was cut off from the cluster no longer knows its own root.
func (s *Server) answers(ctx context.Context, path string) error {
	_, err := s.statfs(ctx, path)
	if errors.Is(err, os.ErrNotExist) {
		return attach.Lost("the file system at %s has lost its root: %v", path, err)
	}
	return err
}

// probe is a question to a file system, shared by all who ask at the same time.
type probe struct {
	asked time.Time
	done  chan struct{} // closed when st and err are there
	st    unix.Statfs_t
	err   error
}

// statfs asks a file system that may never answer. The question then hangs in the
// kernel; there is one for each path at most, and who comes later is told at once.
func (s *Server) statfs(ctx context.Context, path string) (unix.Statfs_t, error) {
	p := &probe{asked: time.Now(), done: make(chan struct{})}
	if other, asked := s.probes.LoadOrStore(path, p); asked {
		p = other.(*probe) //nolint:forcetypeassert // nothing else is stored
	} else {
		go p.ask(path, func() { s.probes.Delete(path) })
	}
	timeout := time.NewTimer(answerTimeout - time.Since(p.asked))
	defer timeout.Stop()
	select {
	case <-p.done:
		if isDead(p.err) {
			return p.st, attach.Lost("the file system at %s is dead: %v", path, p.err)
		}
		if p.err != nil {
			return p.st, fault.As(fault.Unavailable, fmt.Errorf("look at %s: %w", path, p.err))
		}
		return p.st, nil
	case <-timeout.C:
		return unix.Statfs_t{}, fault.New(fault.Unavailable, "the file system at %s has not answered for %s", path, time.Since(p.asked).Round(time.Second))
	case <-ctx.Done():
		return unix.Statfs_t{}, ctx.Err()
	}
}

// ask ends with the kernel's answer, whenever that comes.
func (p *probe) ask(path string, forget func()) {
	if p.err = unix.Statfs(path, &p.st); p.err == nil {
		_, p.err = os.Stat(path) // ceph-fuse answers statfs from memory
	}
	forget()
	close(p.done)
}
