package controller

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-storage/holdfast/csi/capability"
	"github.com/holdfast-storage/holdfast/csi/clustermap"
	"github.com/holdfast-storage/holdfast/csi/record"
	"github.com/holdfast-storage/holdfast/csi/volumeid"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/obs"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// nodePrefix begins every node id that Holdfast's node service gives out.
const nodePrefix = "hf1:"

// ControllerPublishVolume lets a node have the volume, and keeps that in the record.
// A volume of a single-node access mode goes to one node at a time.
func (s *Server) ControllerPublishVolume(ctx context.Context, request *csi.ControllerPublishVolumeRequest) (*csi.ControllerPublishVolumeResponse, error) {
	if request.GetNodeId() == "" {
		return nil, fault.New(fault.Invalid, "node id is missing")
	}
	if request.GetVolumeCapability() == nil {
		return nil, fault.New(fault.Invalid, "volume capability is missing")
	}
	h, err := s.handle(request.GetVolumeId())
	if err != nil {
		return nil, err
	}
	if err := capability.Check(s.Backend.Driver(), request.GetVolumeCapability()); err != nil {
		return nil, err
	}
	node := storage.NodeID(request.GetNodeId())
	if !strings.HasPrefix(string(node), nodePrefix) {
		return nil, fault.New(fault.NotFound, "node %q does not exist: ids of this driver's nodes begin with %q", node, nodePrefix)
	}
	return edit(ctx, s, h, request.GetSecrets(), func(ctx context.Context, site clustermap.Site, held *record.Held) (*csi.ControllerPublishVolumeResponse, error) {
		mode := request.GetVolumeCapability().GetAccessMode().GetMode()
		wanted := record.Publication{Mode: capability.Name(mode), ReadOnly: request.GetReadonly(), Since: s.Now().UTC()}
		r := held.Record
		block := request.GetVolumeCapability().GetBlock() != nil
		if r.Foreign != nil && len(r.Published) == 0 {
			r.Block = block // ceph-csi does not say; whoever has the volume does
		}
		if block != r.Block {
			return nil, fault.New(fault.Invalid, "volume %q was made with raw block access %v, asked for is %v", r.Name, r.Block, block)
		}
		if err := admit(r, node, mode, wanted); err != nil {
			return nil, err
		}
		if have, there := r.Published[node]; there {
			return published(r, have), nil
		}
		if _, fenced := r.Fences[node]; fenced {
			// If it has not answered yet, its staging replaces what is fenced.
			if _, err := s.lift(ctx, site, held, node, h.String()); err != nil {
				return nil, err
			}
		}
		nodes := maps.Clone(r.Published)
		if nodes == nil {
			nodes = map[storage.NodeID]record.Publication{}
		}
		nodes[node] = wanted
		r.Published = nodes
		if err := held.Finish(ctx); err != nil {
			return nil, err
		}
		s.log(r).Info("volume published", obs.KeyNode, node)
		return published(r, wanted), nil
	})
}

// published tells the node what it was given.
func published(r *record.Record, p record.Publication) *csi.ControllerPublishVolumeResponse {
	told := map[string]string{volumeid.PublishID: p.Since.UTC().Format(time.RFC3339Nano)}
	if p.ReadOnly {
		told[volumeid.PublishReadOnly] = "true"
	}
	if r.Foreign != nil {
		told[volumeid.PublishVolume] = volumeid.EncodePublished(r.Context)
	}
	return &csi.ControllerPublishVolumeResponse{PublishContext: told}
}

// admit decides whether node may have the volume.
func admit(r *record.Record, node storage.NodeID, mode capability.Mode, wanted record.Publication) error {
	if r.ReadOnly && !wanted.ReadOnly && !capability.ReadOnly(mode) {
		return fault.New(fault.Invalid, "volume %q shows a snapshot, which can only be read: mount it read-only, or restore the snapshot without %s", r.Name, backingSnapshot)
	}
	for _, other := range slices.Sorted(maps.Keys(r.Published)) {
		have := r.Published[other]
		if other == node {
			if have.Mode != wanted.Mode || have.ReadOnly != wanted.ReadOnly {
				return fault.New(fault.Exists, "volume %q is published to %s as %s (read-only %v), asked for was %s (read-only %v)",
					r.Name, node, have.Mode, have.ReadOnly, wanted.Mode, wanted.ReadOnly)
			}
			continue
		}
		haveMode := capability.Mode(csi.VolumeCapability_AccessMode_Mode_value[have.Mode])
		if capability.SingleNode(mode) || capability.SingleNode(haveMode) {
			return fault.New(fault.Precondition, "volume %q is published to %s as %s: it must be unpublished there before %s can have it",
				r.Name, other, have.Mode, node)
		}
	}
	return nil
}

// ControllerUnpublishVolume takes the volume from a node, or from all nodes when none
// is named; a node that still has it is cut off first. A volume that is gone is no error.
func (s *Server) ControllerUnpublishVolume(ctx context.Context, request *csi.ControllerUnpublishVolumeRequest) (*csi.ControllerUnpublishVolumeResponse, error) {
	done := &csi.ControllerUnpublishVolumeResponse{}
	h, err := s.handle(request.GetVolumeId())
	if errors.Is(err, fault.NotFound) {
		return done, nil
	}
	if err != nil {
		return nil, err
	}
	if known, err := s.known(ctx, h, request.GetSecrets()); err != nil || !known {
		return done, err
	}
	node := storage.NodeID(request.GetNodeId())
	response, err := edit(ctx, s, h, request.GetSecrets(), func(ctx context.Context, site clustermap.Site, held *record.Held) (*csi.ControllerUnpublishVolumeResponse, error) {
		r := held.Record
		left := maps.Clone(r.Published)
		maps.DeleteFunc(left, func(n storage.NodeID, _ record.Publication) bool { return node == "" || n == node })
		if len(left) == len(r.Published) {
			return done, nil
		}
		for _, n := range slices.Sorted(maps.Keys(r.Published)) {
			if _, stays := left[n]; stays {
				continue
			}
			if err := s.cutOff(ctx, site, held, h, n); err != nil {
				return nil, fmt.Errorf("make sure that node %s cannot write any more: %w", n, err)
			}
		}
		r.Published = left
		if err := held.Finish(ctx); err != nil {
			return nil, err
		}
		s.log(r).Info("volume unpublished", obs.KeyNode, node)
		return done, nil
	})
	if errors.Is(err, fault.NotFound) {
		return done, nil
	}
	return response, err
}
