package imageio

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/rpc/volumeapi"
)

// Export begins to read a snapshot of an image, which it takes unless it is there. End it.
func (s *Server) Export(ctx context.Context, r volumeapi.ExportRequest) (volumeapi.ExportSession, error) {
	p, err := s.find(ctx, r.Name)
	if err != nil {
		return volumeapi.ExportSession{}, err
	}
	made := &session{place: p, opened: p.name, snapshot: r.Name.Snapshot}
	if made.snapshot == "" {
		if !strings.HasPrefix(r.Take, volumeapi.SnapshotPrefix) {
			return volumeapi.ExportSession{}, fault.New(fault.Invalid, "the snapshot %q is none that an export takes", r.Take)
		}
		made.snapshot, made.taken = r.Take, true
	}
	if made.taken && !r.Taken {
		if err := p.images.CreateSnapshot(ctx, p.name, r.Take); err != nil && !errors.Is(err, fault.Exists) {
			return volumeapi.ExportSession{}, err
		}
	}
	if made.open, err = p.images.Open(ctx, p.name, made.snapshot); err != nil {
		return volumeapi.ExportSession{}, err
	}
	of, err := identity(ctx, p, made.snapshot)
	if err != nil {
		return volumeapi.ExportSession{}, errors.Join(err, made.open.Close())
	}
	made.size = int64(made.open.Size())
	if err := s.begin(ctx, made, ""); err != nil {
		return volumeapi.ExportSession{}, errors.Join(err, made.open.Close())
	}
	return volumeapi.ExportSession{Session: made.id, Bytes: made.open.Size(), Of: of}, nil
}

// identity is Ceph's own name of a snapshot: one that was removed and made anew has another.
func identity(ctx context.Context, p place, snapshot string) (string, error) {
	info, err := p.images.Info(ctx, p.name)
	if err != nil {
		return "", err
	}
	list, err := p.images.Snapshots(ctx, p.name)
	if err != nil {
		return "", err
	}
	for _, s := range list {
		if s.Name == snapshot && !s.Removed {
			return fmt.Sprintf("image %s, snapshot %d", info.ID, s.ID), nil
		}
	}
	return "", fault.New(fault.NotFound, "image %s has no snapshot %s", p, snapshot)
}

func (n *session) finishExport(ctx context.Context) error {
	if !n.taken {
		return nil
	}
	err := n.images.RemoveSnapshot(ctx, n.name, n.snapshot)
	if errors.Is(err, fault.NotFound) {
		return nil
	}
	return err
}

// Read returns a stretch of a session's image, and its SHA-256 in hex.
func (s *Server) Read(ctx context.Context, id string, offset int64, length int) (data []byte, sum string, err error) {
	err = s.with(id, func(n *session) error {
		if err := n.sized(offset, length); err != nil {
			return err
		}
		image, err := n.image()
		if err != nil {
			return err
		}
		data = make([]byte, length)
		if err := image.ReadAt(ctx, data, uint64(offset)); err != nil {
			return err
		}
		sum = hexSum(data)
		return nil
	})
	return data, sum, err
}

// extentLimit bounds an answer: what more there is, is told as one extent.
const extentLimit = 100_000

// Extents lists what a stretch of a session's image holds, in order.
func (s *Server) Extents(ctx context.Context, id string, offset, length int64) ([]volumeapi.ImageExtent, error) {
	list := []volumeapi.ImageExtent{}
	err := s.with(id, func(n *session) error {
		if offset < 0 || length <= 0 || offset > n.size-length {
			return fault.New(fault.Range, "%d bytes at offset %d are not within the disk's %d", length, offset, n.size)
		}
		return n.images.Diff(ctx, n.name, "", n.snapshot, uint64(offset), uint64(offset+length), func(e ceph.Extent) error {
			if e.Zero {
				return nil
			}
			begin, end := int64(e.Offset), int64(e.Offset+e.Length)
			if last := len(list) - 1; last >= 0 && (list[last].Offset+list[last].Length >= begin || len(list) >= extentLimit) {
				list[last].Length = end - list[last].Offset
				return nil
			}
			list = append(list, volumeapi.ImageExtent{Offset: begin, Length: end - begin})
			return nil
		})
	})
	return list, err
}
