package controller

import (
	"context"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-storage/holdfast/csi/clustermap"
	"github.com/holdfast-storage/holdfast/csi/record"
	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Differ is a Backend whose snapshots can be compared block by block.
type Differ interface {
	// Changed calls fn, ascending, for what differs between base (nil: nothing) and target, two
	// snapshots of one volume, from the offset on. Offsets are those of the volume. An error of
	// fn ends it.
	Changed(ctx context.Context, site clustermap.Site, base, target *record.Record, from uint64, fn func(ceph.Extent) error) error
}

// ChangedBlocks implements csi.SnapshotMetadataServer: what a backup tool asks which blocks to
// copy. Tokens and TLS are the affair of Kubernetes' sidecar in front of it.
type ChangedBlocks struct {
	csi.UnimplementedSnapshotMetadataServer
	server *Server
	differ Differ
}

// ChangedBlocks returns the service; false when the backend cannot compare.
func (s *Server) ChangedBlocks() (*ChangedBlocks, bool) {
	differ, ok := s.Backend.(Differ)
	return &ChangedBlocks{server: s, differ: differ}, ok
}

// blocksInMessage is how many blocks one message holds when the caller names no number, and at
// most: gRPC clients take 4 MiB, a block has up to 24 bytes.
const blocksInMessage = 4096

// GetMetadataAllocated streams the blocks of a snapshot that hold data.
func (c *ChangedBlocks) GetMetadataAllocated(request *csi.GetMetadataAllocatedRequest, stream csi.SnapshotMetadata_GetMetadataAllocatedServer) error {
	site, target, err := c.find(stream.Context(), request.GetSnapshotId(), request.GetSecrets())
	if err != nil {
		return err
	}
	return c.stream(stream.Context(), site, nil, target, request.GetStartingOffset(), request.GetMaxResults(), func(blocks []*csi.BlockMetadata) error {
		return stream.Send(&csi.GetMetadataAllocatedResponse{
			BlockMetadataType: csi.BlockMetadataType_VARIABLE_LENGTH, VolumeCapacityBytes: int64(target.Size), BlockMetadata: blocks,
		})
	})
}

// GetMetadataDelta streams the blocks that differ between two snapshots of a volume.
func (c *ChangedBlocks) GetMetadataDelta(request *csi.GetMetadataDeltaRequest, stream csi.SnapshotMetadata_GetMetadataDeltaServer) error {
	_, base, err := c.find(stream.Context(), request.GetBaseSnapshotId(), request.GetSecrets())
	if err != nil {
		return err
	}
	site, target, err := c.find(stream.Context(), request.GetTargetSnapshotId(), request.GetSecrets())
	if err != nil {
		return err
	}
	if base.Origin.Volume != target.Origin.Volume {
		return fault.New(fault.Invalid, "snapshots %q and %q are of different volumes", base.Name, target.Name)
	}
	if target.Created.Before(base.Created) {
		return fault.New(fault.Invalid, "the base snapshot %q is younger than the target %q: exchange them", base.Name, target.Name)
	}
	return c.stream(stream.Context(), site, base, target, request.GetStartingOffset(), request.GetMaxResults(), func(blocks []*csi.BlockMetadata) error {
		return stream.Send(&csi.GetMetadataDeltaResponse{
			BlockMetadataType: csi.BlockMetadataType_VARIABLE_LENGTH, VolumeCapacityBytes: int64(target.Size), BlockMetadata: blocks,
		})
	})
}

func (c *ChangedBlocks) find(ctx context.Context, id string, secrets map[string]string) (clustermap.Site, *record.Record, error) {
	h, err := c.server.handle(id)
	if err != nil {
		return clustermap.Site{}, nil, err
	}
	site, err := c.server.connect(ctx, h.Cluster, secrets)
	if err != nil {
		return site, nil, err
	}
	r, err := c.server.findSnapshot(ctx, h, secrets)
	if err == nil && r.State != record.Ready {
		err = fault.New(fault.NotFound, "snapshot %s is %s", id, r.State)
	}
	return site, r, err
}

// stream sends the blocks in messages of at most `most`; at least one message, even if empty.
func (c *ChangedBlocks) stream(ctx context.Context, site clustermap.Site, base, target *record.Record, from int64, most int32, send func([]*csi.BlockMetadata) error) error {
	switch {
	case from < 0 || from > 0 && storage.Bytes(from) >= target.Size:
		return fault.New(fault.Range, "starting_offset %d is not within the snapshot's %d bytes", from, int64(target.Size))
	case most < 0:
		return fault.New(fault.Invalid, "max_results %d is negative", most)
	case most == 0 || most > blocksInMessage:
		most = blocksInMessage
	}
	var blocks []*csi.BlockMetadata
	sent := false
	err := c.differ.Changed(ctx, site, base, target, uint64(from), func(e ceph.Extent) error {
		if base == nil && e.Zero {
			return nil
		}
		blocks = append(blocks, &csi.BlockMetadata{ByteOffset: int64(e.Offset), SizeBytes: int64(e.Length)})
		if len(blocks) < int(most) {
			return nil
		}
		full := blocks
		blocks, sent = nil, true
		return send(full)
	})
	if err != nil || sent && len(blocks) == 0 {
		return err
	}
	return send(blocks)
}
