package controller_test

import (
	"context"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"

	"github.com/holdfast-storage/holdfast/csi/luks"
	"github.com/holdfast-storage/holdfast/pkg/ceph/cephtest"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// told collects what a stream is sent.
type told[R any] struct {
	grpc.ServerStream
	ctx      context.Context
	messages []R
}

func (s *told[R]) Context() context.Context { return s.ctx }
func (s *told[R]) Send(m R) error           { s.messages = append(s.messages, m); return nil }

// block is offset and length in MiB.
type block [2]int64

func blocksOf[R interface{ GetBlockMetadata() []*csi.BlockMetadata }](messages []R) (list []block) {
	for _, m := range messages {
		for _, b := range m.GetBlockMetadata() {
			list = append(list, block{b.GetByteOffset() >> 20, b.GetSizeBytes() >> 20})
		}
	}
	return list
}

func TestABackupIsToldWhichBlocksChanged(t *testing.T) {
	for name, header := range map[string]storage.Bytes{"plain": 0, "encrypted": luks.HeaderSize} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, storage.RBD, cephtest.NewFake())
			request := b.request("v", 200*storage.GiB)
			if header > 0 {
				request = encrypted(request)
			}
			v := b.mustCreate(t, request)
			write := func(mib ...int64) {
				for _, at := range mib {
					b.fake.Write("rbd", "", v.GetVolumeContext()["image"], uint64(header)+uint64(at)<<20, 1<<20)
				}
			}
			write(1, 8, 100<<10)
			one := b.snapshot(t, "one", v)
			write(8, 20)
			two := b.snapshot(t, "two", v)
			service, ok := b.ChangedBlocks()
			if !ok {
				t.Fatal("the backend cannot compare")
			}
			all := &told[*csi.GetMetadataAllocatedResponse]{ctx: t.Context()}
			b.must(t, service.GetMetadataAllocated(&csi.GetMetadataAllocatedRequest{SnapshotId: one.GetSnapshotId(), MaxResults: 2, Secrets: secrets}, all))
			if diff := cmp.Diff([]block{{1, 1}, {8, 1}, {100 << 10, 1}}, blocksOf(all.messages)); diff != "" || len(all.messages) != 2 {
				t.Errorf("allocated in %d messages (-want +got): %s", len(all.messages), diff)
			}
			if size := all.messages[0].GetVolumeCapacityBytes(); size != int64(200*storage.GiB) {
				t.Errorf("the volume has %d bytes", size)
			}
			changed := &told[*csi.GetMetadataDeltaResponse]{ctx: t.Context()}
			delta := &csi.GetMetadataDeltaRequest{BaseSnapshotId: one.GetSnapshotId(), TargetSnapshotId: two.GetSnapshotId(), Secrets: secrets}
			b.must(t, service.GetMetadataDelta(delta, changed))
			if diff := cmp.Diff([]block{{8, 1}, {20, 1}}, blocksOf(changed.messages)); diff != "" {
				t.Errorf("changed (-want +got): %s", diff)
			}
			rest := &told[*csi.GetMetadataDeltaResponse]{ctx: t.Context()}
			delta.StartingOffset = 10 << 20
			b.must(t, service.GetMetadataDelta(delta, rest))
			if diff := cmp.Diff([]block{{20, 1}}, blocksOf(rest.messages)); diff != "" {
				t.Errorf("changed from 10 MiB on (-want +got): %s", diff)
			}
		})
	}
}

func TestBadQuestionsAboutBlocksAreRefused(t *testing.T) {
	b := newBench(t, storage.RBD, cephtest.NewFake())
	v, other := b.make(t, "v"), b.make(t, "other")
	one, two := b.snapshot(t, "one", v), b.snapshot(t, "two", v)
	foreign := b.snapshot(t, "foreign", other)
	service, _ := b.ChangedBlocks()
	for _, c := range []struct {
		name         string
		base, target string
		from         int64
		class        error
	}{
		{"the younger first", two.GetSnapshotId(), one.GetSnapshotId(), 0, fault.Invalid},
		{"two volumes", one.GetSnapshotId(), foreign.GetSnapshotId(), 0, fault.Invalid},
		{"no base", "", two.GetSnapshotId(), 0, fault.Invalid},
		{"an unknown target", one.GetSnapshotId(), "hf1.nothing", 0, fault.NotFound},
		{"a volume", one.GetSnapshotId(), v.GetVolumeId(), 0, fault.NotFound},
		{"beyond the end", one.GetSnapshotId(), two.GetSnapshotId(), int64(storage.GiB), fault.Range},
		{"before the beginning", one.GetSnapshotId(), two.GetSnapshotId(), -1, fault.Range},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := service.GetMetadataDelta(&csi.GetMetadataDeltaRequest{
				BaseSnapshotId: c.base, TargetSnapshotId: c.target, StartingOffset: c.from, Secrets: secrets,
			}, &told[*csi.GetMetadataDeltaResponse]{ctx: t.Context()})
			wantClass(t, err, c.class)
		})
	}
	cephfs := newBench(t, storage.CephFS, cephtest.NewFake())
	if _, ok := cephfs.ChangedBlocks(); ok {
		t.Error("CephFS announces the comparison of snapshots")
	}
}
