package crash

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/tests/realceph"
	"github.com/holdfast-storage/holdfast/tests/services"
)

const (
	// onNode is a volume's size: xfs, which grows online everywhere, begins at 300 MiB.
	onNode      = 320 << 20
	onNodeGrown = 384 << 20
	// nodesAtOnce run side by side.
	nodesAtOnce = 3
)

// The node service is killed at each system call by which it changes the machine. The
// call is repeated in one run and undone in another: what was fsynced is there, and
// nothing is left at the end.
func TestNodeKilledAtEachPoint(t *testing.T) {
	if os.Geteuid() != 0 {
		realceph.Missing(t, "mounting needs root")
	}
	b, shim := newBed(t), buildShim(t)
	started := time.Now()
	var plans []*nodeRun
	for _, driver := range []string{"rbd", "cephfs"} {
		for step := range steps {
			plans = append(plans, &nodeRun{bed: b, shim: shim, driver: driver, step: step})
		}
	}
	together(plans, nodesAtOnce, (*nodeRun).live)
	var runs []*nodeRun
	for _, p := range plans {
		if p.err != nil {
			t.Fatalf("%s: %v", p.title(), p.err)
		}
		t.Logf("%s %s: %d points: %s", p.driver, steps[p.step].name, len(p.points), strings.Join(p.points, ", "))
		for i, at := range sample(len(p.points)) {
			for _, undo := range []bool{false, true} {
				if all() || undo == (i%2 == 1) {
					runs = append(runs, &nodeRun{bed: b, shim: shim, driver: p.driver, step: p.step, at: at, undo: undo})
				}
			}
		}
	}
	together(runs, nodesAtOnce, (*nodeRun).live)
	dead := 0
	for _, r := range runs {
		if r.dead {
			dead++
		}
		if r.err != nil {
			t.Errorf("%s: %v", r.title(), r.err)
		}
	}
	t.Logf("node services killed: %d of %d (%v)", dead, len(runs), time.Since(started).Round(time.Second))
	b.nothingLeft()
}

// nodeRun is a volume's life on a node of its own, with one kill in it.
type nodeRun struct {
	*bed
	shim   *shim
	driver string
	step   int
	at     int // 0: only count
	undo   bool
	dead   bool
	points []string // of the step
	err    error

	subject subject
	context map[string]string
	s       *services.Services
	gate    *gate
}

// steps are a volume's life; expand and later steps have data to keep.
var steps = []struct {
	name string
	call func(*nodeRun, context.Context) error
}{
	{"stage", (*nodeRun).stage},
	{"publish", (*nodeRun).publish},
	{"expand", (*nodeRun).expand},
	{"unpublish", (*nodeRun).unpublish},
	{"unstage", (*nodeRun).unstage},
}

func (r *nodeRun) title() string {
	point := ""
	if r.at > 0 && r.at <= len(r.points) {
		point = r.points[r.at-1]
	}
	return fmt.Sprintf("%s, %s killed (%v) at %d %s, undone %v", r.driver, steps[r.step].name, r.dead, r.at, point, r.undo)
}

func (r *nodeRun) live() {
	r.subject = subject{driver: r.driver, name: fmt.Sprintf("node %s %d %d %v", r.driver, r.step, r.at, r.undo)}
	if r.err = r.make(); r.err != nil {
		return
	}
	page, env, free := r.shim.newPage(r.t)
	defer free()
	r.gate = openGate(r.t, page)
	r.s = services.Start(r.t, r.cluster, services.Options{Services: "node", Drivers: r.driver, Attach: true, Quiet: true, Env: append(env, "HOLDFAST_CRASH_SYSCALLS=1")})
	r.err = r.life()
	r.err = errors.Join(r.err, r.finish())
	r.s.Close()
	r.gate.close()
	r.err = errors.Join(r.err, r.persist("delete", func(ctx context.Context) error { return r.away(ctx, r.healthy.Controller(r.driver), &r.subject) }))
}

// make has the controller make the volume.
func (r *nodeRun) make() error {
	return r.persist("create", func(ctx context.Context) error {
		request := r.createRequest(&r.subject)
		request.CapacityRange.RequiredBytes = onNode
		response, err := r.healthy.Controller(r.driver).CreateVolume(ctx, request)
		r.subject.id, r.context = response.GetVolume().GetVolumeId(), response.GetVolume().GetVolumeContext()
		return err
	})
}

// life goes through the steps, one of them with a kill.
func (r *nodeRun) life() error {
	for i, step := range steps {
		if step.name == "expand" {
			if err := r.write(); err != nil {
				return fmt.Errorf("write: %w", err)
			}
			if err := r.persist("grow the image", func(ctx context.Context) error {
				return r.bed.expand(ctx, r.healthy.Controller(r.driver), &r.subject, onNodeGrown)
			}); err != nil {
				return err
			}
		}
		if i == r.step {
			if stop, err := r.strike(); stop || err != nil {
				return err
			}
		}
		if err := r.persist(step.name, func(ctx context.Context) error { return step.call(r, ctx) }); err != nil {
			return err
		}
		if step.name == "publish" || step.name == "expand" {
			if err := r.check(); err != nil {
				return fmt.Errorf("after %s: %w", step.name, err)
			}
		}
	}
	return nil
}

// strike calls the step on a node service that is killed in it. stop: it is undone now.
func (r *nodeRun) strike() (stop bool, err error) {
	r.gate.arm(r.at)
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	defer cancel()
	err = steps[r.step].call(r, ctx)
	r.points = r.gate.disarm()
	if r.at == 0 || err == nil {
		return false, err
	}
	r.dead = len(r.points) >= r.at
	if !r.dead {
		return false, err
	}
	r.s.Restart()
	return r.undo, nil
}

// finish undoes what there is, then looks at the data on a node that has it anew.
func (r *nodeRun) finish() error {
	down := func() error {
		return errors.Join(r.persist("unpublish", r.unpublish), r.persist("unstage", r.unstage), nothingBelow(r.s.Dir))
	}
	if err := down(); err != nil {
		return err
	}
	err := r.persist("stage anew", func(ctx context.Context) error { return errors.Join(r.stage(ctx), r.publish(ctx)) })
	if err == nil && r.step >= 2 {
		err = r.read()
	}
	return errors.Join(err, down())
}

func (r *nodeRun) staging() string { return filepath.Join(r.s.Dir, "staging") }
func (r *nodeRun) target() string  { return filepath.Join(r.s.Dir, "pod", "mount") }

func (r *nodeRun) stage(ctx context.Context) error {
	if err := os.MkdirAll(r.staging(), 0o750); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	info, err := r.s.Node(r.driver).NodeGetInfo(ctx, &csi.NodeGetInfoRequest{})
	if err != nil {
		return err
	}
	published, err := r.healthy.Controller(r.driver).ControllerPublishVolume(ctx, &csi.ControllerPublishVolumeRequest{
		VolumeId: r.subject.id, NodeId: info.GetNodeId(), VolumeCapability: r.capability(), Secrets: r.secrets, VolumeContext: r.context,
	})
	if err != nil {
		return err
	}
	_, err = r.s.Node(r.driver).NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{
		VolumeId: r.subject.id, StagingTargetPath: r.staging(), VolumeCapability: r.capability(), VolumeContext: r.context, Secrets: r.node,
		PublishContext: published.GetPublishContext(),
	})
	return err
}

func (r *nodeRun) capability() *csi.VolumeCapability {
	c := mountCap()
	if r.driver == "rbd" {
		c.GetMount().FsType = "xfs"
	}
	return c
}

func (r *nodeRun) publish(ctx context.Context) error {
	if err := os.MkdirAll(filepath.Dir(r.target()), 0o750); err != nil {
		return err
	}
	_, err := r.s.Node(r.driver).NodePublishVolume(ctx, &csi.NodePublishVolumeRequest{
		VolumeId: r.subject.id, StagingTargetPath: r.staging(), TargetPath: r.target(), VolumeCapability: r.capability(), VolumeContext: r.context,
	})
	return err
}

func (r *nodeRun) expand(ctx context.Context) error {
	if r.driver == "cephfs" {
		return nil // the node has nothing to do
	}
	_, err := r.s.Node(r.driver).NodeExpandVolume(ctx, &csi.NodeExpandVolumeRequest{
		VolumeId: r.subject.id, VolumePath: r.target(), StagingTargetPath: r.staging(), VolumeCapability: r.capability(),
		CapacityRange: &csi.CapacityRange{RequiredBytes: onNodeGrown}, Secrets: r.node,
	})
	return err
}

func (r *nodeRun) unpublish(ctx context.Context) error {
	_, err := r.s.Node(r.driver).NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: r.subject.id, TargetPath: r.target()})
	return err
}

func (r *nodeRun) unstage(ctx context.Context) error {
	_, err := r.s.Node(r.driver).NodeUnstageVolume(ctx, &csi.NodeUnstageVolumeRequest{VolumeId: r.subject.id, StagingTargetPath: r.staging()})
	return err
}

func (r *nodeRun) stats(ctx context.Context) error {
	_, err := r.s.Node(r.driver).NodeGetVolumeStats(ctx, &csi.NodeGetVolumeStatsRequest{VolumeId: r.subject.id, VolumePath: r.target(), StagingTargetPath: r.staging()})
	return err
}

const words = "fsynced before the kill"

func (r *nodeRun) write() error {
	f, err := os.Create(filepath.Join(r.target(), "data"))
	if err != nil {
		return err
	}
	_, err = f.WriteString(words)
	return errors.Join(err, f.Sync(), f.Close())
}

func (r *nodeRun) read() error {
	data, err := os.ReadFile(filepath.Join(r.target(), "data"))
	if err == nil && string(data) != words {
		err = fmt.Errorf("the file holds %q", data)
	}
	return err
}

// check looks at the published volume: the right size, once, and writable.
func (r *nodeRun) check() error {
	var fs unix.Statfs_t
	if err := unix.Statfs(r.target(), &fs); err != nil {
		return err
	}
	have, want := int64(fs.Blocks)*fs.Bsize, int64(onNode)
	if r.subject.size == onNodeGrown {
		want = onNodeGrown
	}
	if have > want || have < want*8/10 {
		return fmt.Errorf("the file system has %d bytes, the volume %d", have, want)
	}
	probe := filepath.Join(r.target(), "probe")
	return errors.Join(os.WriteFile(probe, []byte("x"), 0o600), os.Remove(probe))
}
