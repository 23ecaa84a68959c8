package crash

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-storage/holdfast/csi/record"
	"github.com/holdfast-storage/holdfast/csi/volumeid"
	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/ceph/native"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
	"github.com/holdfast-storage/holdfast/tests/realceph"
	"github.com/holdfast-storage/holdfast/tests/services"
)

// domain of the drivers by their short names.
var domain = map[string]storage.Driver{"rbd": storage.RBD, "cephfs": storage.CephFS}

// bed is a cluster with a healthy controller, and the test's own eyes on the cluster.
type bed struct {
	t       *testing.T
	cluster realceph.Cluster
	healthy *services.Services
	eyes    ceph.Cluster
	params  map[string]map[string]string
	secrets map[string]string // the provisioner's
	node    map[string]string // the node's
}

// newBed uses the cluster of HOLDFAST_TEST_CLUSTER, or one of its own.
func newBed(t *testing.T) *bed {
	t.Helper()
	var cluster realceph.Cluster
	if os.Getenv("HOLDFAST_TEST_CLUSTER") != "" {
		cluster = realceph.Need(t)
	} else {
		cluster = realceph.Own(t, "/var/tmp/hf-crash", "--osds", "3", "--osd-size", "8GiB")
	}
	secrets := cluster.Secrets(t)
	b := &bed{t: t, cluster: cluster, secrets: secrets["CreateVolumeSecret"], node: secrets["NodeStageVolumeSecret"], params: map[string]map[string]string{}}
	for driver := range domain {
		b.params[driver] = cluster.Parameters(t, driver)
	}
	dialer := native.NewDialer()
	t.Cleanup(dialer.Close)
	var err error
	if b.eyes, err = dialer.Dial(t.Context(), cluster.Entry.Endpoint(), cluster.Credentials); err != nil {
		t.Fatal(err)
	}
	if left := cluster.Left(t); len(left) > 0 {
		t.Fatalf("the cluster is not empty: %v", left)
	}
	b.healthy = services.Start(t, cluster, services.Options{Services: "controller"})
	return b
}

// all reports whether every point is asked for, not a sample.
func all() bool { return os.Getenv("HOLDFAST_CRASH") == "all" }

// subject is a volume of one name, and what a test knows of it.
type subject struct {
	driver, name, id string
	features         string // of the image, if not the default
	made             bool   // it was answered, or its record says that it is there: the id stays
	size             int64
	snapshot         string // id of the snapshot of it, or of its source
	source           *subject
	content          *csi.VolumeContentSource
}

const (
	size = 64 << 20
	// grown is the size after an expansion.
	grown = 128 << 20
	// patience is how long a call is asked again, as the sidecars do. It is above what a
	// dead controller's lease (15 s) and its watch on an image (30 s) keep others waiting.
	patience = 90 * time.Second
)

func (b *bed) createRequest(s *subject) *csi.CreateVolumeRequest {
	parameters := maps.Clone(b.params[s.driver])
	if s.features != "" {
		parameters["imageFeatures"] = s.features
	}
	return &csi.CreateVolumeRequest{
		Name: s.name, Parameters: parameters, Secrets: b.secrets,
		CapacityRange: &csi.CapacityRange{RequiredBytes: size}, VolumeContentSource: s.content,
		VolumeCapabilities: []*csi.VolumeCapability{mountCap()},
	}
}

func mountCap() *csi.VolumeCapability {
	return &csi.VolumeCapability{
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{}},
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
	}
}

func (b *bed) create(ctx context.Context, c csi.ControllerClient, s *subject) error {
	response, err := c.CreateVolume(ctx, b.createRequest(s))
	if err != nil {
		return err
	}
	if id := response.GetVolume().GetVolumeId(); s.made && s.id != id {
		return fmt.Errorf("CreateVolume %s gave %s, before it was %s", s.name, id, s.id)
	}
	s.id, s.made, s.size = response.GetVolume().GetVolumeId(), true, response.GetVolume().GetCapacityBytes()
	return nil
}

func (b *bed) delete(ctx context.Context, c csi.ControllerClient, s *subject) error {
	_, err := c.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: s.id, Secrets: b.secrets})
	return err
}

func (b *bed) expand(ctx context.Context, c csi.ControllerClient, s *subject, to int64) error {
	response, err := c.ControllerExpandVolume(ctx, &csi.ControllerExpandVolumeRequest{
		VolumeId: s.id, Secrets: b.secrets, CapacityRange: &csi.CapacityRange{RequiredBytes: to}, VolumeCapability: mountCap(),
	})
	if err == nil {
		s.size = response.GetCapacityBytes()
	}
	return err
}

const nodeID = "hf1:crash"

func (b *bed) publish(ctx context.Context, c csi.ControllerClient, s *subject) error {
	_, err := c.ControllerPublishVolume(ctx, &csi.ControllerPublishVolumeRequest{
		VolumeId: s.id, NodeId: nodeID, VolumeCapability: mountCap(), Secrets: b.secrets,
	})
	return err
}

func (b *bed) unpublish(ctx context.Context, c csi.ControllerClient, s *subject) error {
	_, err := c.ControllerUnpublishVolume(ctx, &csi.ControllerUnpublishVolumeRequest{VolumeId: s.id, NodeId: nodeID, Secrets: b.secrets})
	return err
}

// record reads a subject's record from the cluster: fault.NotFound without one.
func (b *bed) record(ctx context.Context, s *subject) (*record.Record, error) {
	return b.recordOf(ctx, s.driver, record.KindVolume, s.name)
}

func (b *bed) recordOf(ctx context.Context, driver, kind, name string) (*record.Record, error) {
	namespace := driver
	if kind == record.KindSnapshot {
		namespace += ":snapshots"
	}
	objects := b.eyes.Objects(record.Pool, namespace)
	return record.NewStore(objects, "test").Read(ctx, volumeid.Hash(domain[driver], kind, name))
}

// adopt notes the id that the record gives the subject, if it has one.
func (b *bed) adopt(ctx context.Context, s *subject) (there bool, err error) {
	r, err := b.record(ctx, s)
	if isNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	s.id, s.made = r.Handle(b.cluster.Entry.ID).String(), r.State != record.Creating
	return true, nil
}

func isNotFound(err error) bool { return err != nil && fault.Code(err) == codes.NotFound }

// whole checks that a volume is there as its owner would have it.
func (b *bed) whole(ctx context.Context, s *subject) error {
	r, err := b.record(ctx, s)
	if err != nil {
		return err
	}
	if r.State != record.Ready || int64(r.Size) != s.size || r.Handle(b.cluster.Entry.ID).String() != s.id {
		return fmt.Errorf("record of %s: state %s, size %d, id %s; want ready, %d, %s", s.name, r.State, r.Size, r.Handle(b.cluster.Entry.ID), s.size, s.id)
	}
	var have storage.Bytes
	if s.driver == "rbd" {
		info, err := b.eyes.Images("rbd", "").Info(ctx, r.BackendName())
		if err != nil {
			return err
		}
		have = info.Size
	} else {
		info, err := b.eyes.Subvolumes("cephfs", "csi").Info(ctx, r.BackendName())
		if err != nil {
			return err
		}
		if have = info.Quota; info.Path != r.Context["subvolumePath"] || info.State != "complete" {
			return fmt.Errorf("subvolume of %s: %+v; the record says %s", s.name, info, r.Context["subvolumePath"])
		}
	}
	if s.features != "" { // what librbd itself would find wrong with a map that is not there
		flags, err := b.cluster.TryTool("rbd", "info", "--format", "json", "rbd/"+r.BackendName())
		if err != nil || strings.Contains(flags, "invalid") {
			return fmt.Errorf("%s: %s, %w", s.name, flags, err)
		}
	}
	if int64(have) != s.size {
		return fmt.Errorf("%s has %d bytes in Ceph, want %d", s.name, have, s.size)
	}
	return nil
}

// away takes a volume away from whatever state it is in.
func (b *bed) away(ctx context.Context, c csi.ControllerClient, s *subject) error {
	there, err := b.adopt(ctx, s)
	if err != nil || !there {
		return err
	}
	if _, err := c.ControllerUnpublishVolume(ctx, &csi.ControllerUnpublishVolumeRequest{VolumeId: s.id, Secrets: b.secrets}); err != nil { // from all nodes
		return err
	}
	return b.delete(ctx, c, s)
}

// cloned checks that an image stands on its source: with a parent, which knows of it.
func (b *bed) cloned(ctx context.Context, s *subject) error {
	if err := b.whole(ctx, s); err != nil || s.driver != "rbd" {
		return err
	}
	r, err := b.record(ctx, s)
	if err != nil {
		return err
	}
	source, err := b.record(ctx, s.source)
	if err != nil {
		return err
	}
	info, err := b.eyes.Images("rbd", "").Info(ctx, r.BackendName())
	if err != nil {
		return err
	}
	if info.Parent.Image != source.BackendName() {
		return fmt.Errorf("%s is a clone of %q, want %s: its data is missing", s.name, info.Parent.Image, source.BackendName())
	}
	children, err := b.cluster.TryTool("rbd", "children", "--all", "rbd/"+source.BackendName())
	if err == nil && !strings.Contains(children, r.BackendName()) {
		err = fmt.Errorf("%s is not among the children of its source: its data would go with the snapshot", s.name)
	}
	return err
}

func (b *bed) takeSnapshot(ctx context.Context, c csi.ControllerClient, of *subject, name string) (id string, err error) {
	response, err := c.CreateSnapshot(ctx, &csi.CreateSnapshotRequest{Name: name, SourceVolumeId: of.id, Secrets: b.secrets})
	return response.GetSnapshot().GetSnapshotId(), err
}

// dropSnapshot deletes the snapshot of this name, if there is one.
func (b *bed) dropSnapshot(ctx context.Context, c csi.ControllerClient, driver, name string) error {
	r, err := b.recordOf(ctx, driver, record.KindSnapshot, name)
	if isNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = c.DeleteSnapshot(ctx, &csi.DeleteSnapshotRequest{SnapshotId: r.Handle(b.cluster.Entry.ID).String(), Secrets: b.secrets})
	return err
}

// snapped checks that a volume's snapshot is there once, in the record and in Ceph.
func (b *bed) snapped(ctx context.Context, s *subject) error {
	r, err := b.recordOf(ctx, s.driver, record.KindSnapshot, s.name)
	if err != nil {
		return err
	}
	if r.State != record.Ready || r.Handle(b.cluster.Entry.ID).String() != s.snapshot {
		return fmt.Errorf("snapshot of %s: state %s, id %s, want %s", s.name, r.State, r.Handle(b.cluster.Entry.ID), s.snapshot)
	}
	volume, err := b.record(ctx, s)
	if err != nil {
		return err
	}
	var names []string
	if s.driver == "rbd" {
		list, err := b.eyes.Images("rbd", "").Snapshots(ctx, volume.BackendName())
		if err != nil {
			return err
		}
		for _, snapshot := range list {
			names = append(names, snapshot.Name)
		}
	} else if names, err = b.eyes.Subvolumes("cephfs", "csi").Snapshots(ctx, volume.BackendName()); err != nil {
		return err
	}
	if !slices.Equal(names, []string{r.BackendName()}) {
		return fmt.Errorf("%s has the snapshots %v, want %s", s.name, names, r.BackendName())
	}
	return nil
}

// persist repeats a call as the sidecars do, until it succeeds or patience ends.
func (b *bed) persist(what string, call func(context.Context) error) error {
	deadline := time.Now().Add(patience)
	for {
		ctx, cancel := context.WithTimeout(b.t.Context(), 30*time.Second)
		err := call(ctx)
		cancel()
		if err == nil {
			return nil
		}
		if b.healthy.Dead() {
			return fmt.Errorf("%s: the healthy controller died: %w", what, err)
		}
		if time.Now().After(deadline) || status.Code(err) == codes.InvalidArgument || status.Code(err) == codes.PermissionDenied {
			return fmt.Errorf("%s: %w", what, err)
		}
		time.Sleep(time.Second)
	}
}

// nothingLeft waits for background work as long as it gets on, and fails on what is left then.
func (b *bed) nothingLeft() {
	b.t.Helper()
	var left []string
	fewest := 1 << 30
	for progress := time.Now(); time.Since(progress) < 70*time.Second; time.Sleep(time.Second) {
		if left = b.cluster.Left(b.t); len(left) == 0 {
			return
		}
		if len(left) < fewest {
			fewest, progress = len(left), time.Now()
		}
	}
	b.t.Errorf("left:\n  %s", strings.Join(left, "\n  "))
}
