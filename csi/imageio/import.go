package imageio

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/rpc/volumeapi"
	"github.com/holdfast-storage/holdfast/pkg/vdisk/content"
)

// hole is the length of zeros within a chunk that is not written, in bytes: what BlueStore allocates on disks, at most.
const hole = 64 << 10

// Import begins to fill an image, or goes on with one that is partly filled. End it.
func (s *Server) Import(ctx context.Context, r volumeapi.ImportRequest) (volumeapi.ImportSession, error) {
	p, err := s.find(ctx, r.Name)
	if err != nil {
		return volumeapi.ImportSession{}, err
	}
	if err := checkImport(p, r); err != nil {
		return volumeapi.ImportSession{}, err
	}
	made := &session{place: p, opened: p.partial(), request: r, size: int64(r.Disk)}
	if err := s.begin(ctx, made, p.String()); err != nil {
		return volumeapi.ImportSession{}, err
	}
	if err := made.prepare(ctx); err != nil {
		return volumeapi.ImportSession{}, errors.Join(err, s.End(made.id))
	}
	return volumeapi.ImportSession{Session: made.id, Mark: made.state.Mark}, nil
}

func checkImport(p place, r volumeapi.ImportRequest) error {
	switch {
	case r.Disk <= 0 || r.Bytes < r.Disk:
		return fault.New(fault.Invalid, "a disk of %d bytes does not go into an image of %d", r.Disk, r.Bytes)
	case !p.volume && strings.HasPrefix(p.name, "hf-"):
		return fault.New(fault.Invalid, "images whose name begins with hf- belong to volumes: use `holdfast volume create --from-image`, or another name")
	case p.volume && (r.Overwrite || r.Restart):
		return fault.New(fault.Invalid, "a volume is not written over")
	case strings.HasSuffix(p.name, ".partial"):
		return fault.New(fault.Invalid, "the name %q is that of an import that is not complete: take another", p.name)
	}
	return nil
}

// prepare finds or makes the image that is filled, and opens it.
func (n *session) prepare(ctx context.Context) error {
	if err := n.unfinished(ctx); err != nil {
		return err
	}
	if err := n.free(ctx); err != nil {
		return err
	}
	state, err := readState(ctx, n.images, n.opened)
	switch {
	case errors.Is(err, fault.NotFound) && n.volume:
		return err
	case errors.Is(err, fault.NotFound):
		err = n.create(ctx)
	case err == nil && n.request.Restart && state != nil:
		if err = n.images.Remove(ctx, n.opened); err == nil {
			err = n.create(ctx)
		}
	case err == nil:
		err = n.resume(ctx, state)
	}
	if err != nil {
		return err
	}
	if n.open, err = n.images.Open(ctx, n.opened, ""); err != nil {
		n.open = nil // not an interface of nothing
		return err
	}
	if n.open.Size() < n.request.Disk {
		return fault.New(fault.Range, "%s has %s, and the disk %s", n.place, n.open.Size(), n.request.Disk)
	}
	return nil
}

// unfinished refuses what an earlier session of the caller has finished, so that it is not filled, and put in its own place, again.
func (n *session) unfinished(ctx context.Context) error {
	if !n.request.Finishing || n.volume {
		return nil
	}
	if _, err := n.images.Size(ctx, n.opened); !errors.Is(err, fault.NotFound) { // it has not got its name yet
		return err
	}
	state, err := readState(ctx, n.images, n.name)
	if errors.Is(err, fault.NotFound) || err == nil && state == nil {
		return nil
	}
	if err == nil && state.Complete && state.Source == n.request.Source && state.Size == int64(n.request.Disk) {
		return fault.New(fault.Exists, "image %s holds the disk of %s already", n.place, state.Source)
	}
	return err
}

// free refuses a name that another image has.
func (n *session) free(ctx context.Context) error {
	if n.volume {
		return nil
	}
	watchers, err := n.images.Watchers(ctx, n.name)
	switch {
	case errors.Is(err, fault.NotFound):
		return nil
	case err != nil:
		return err
	case !n.request.Overwrite:
		return fault.New(fault.Exists, "there is an image %s already: take another name, or --overwrite", n.place)
	case len(watchers) > 0:
		return fault.New(fault.Busy, "image %s is in use by %s: it is not written over", n.place, watchers[0].Address)
	}
	return nil
}

func (n *session) create(ctx context.Context) error {
	n.state = volumeapi.Import{Source: n.request.Source, Size: int64(n.request.Disk)}
	pairs, err := encodeState(n.state)
	if err != nil {
		return err
	}
	return n.images.Create(ctx, n.opened, ceph.ImageSpec{Size: n.request.Bytes, DataPool: n.request.DataPool, Metadata: pairs})
}

// resume goes on with an image that an import of the same disk left. One that is empty and tells of nothing was cut off
// between its creation and the note, or is a new volume.
func (n *session) resume(ctx context.Context, state *volumeapi.Import) error {
	if state == nil {
		nothing, err := empty(ctx, n.images, n.opened)
		if err != nil {
			return err
		}
		if !nothing && n.volume {
			return fault.New(fault.Exists, "the volume holds something already, and is not written over: take another name, or delete it")
		}
		if !nothing {
			return errNoImport(n.place)
		}
		n.state = volumeapi.Import{Source: n.request.Source, Size: int64(n.request.Disk)}
		if err := n.note(ctx); err != nil {
			return err
		}
		return n.resize(ctx)
	}
	switch {
	case state.Complete && n.volume:
		return fault.New(fault.Exists, "the volume holds the disk of %s already, and is not written over", state.Source)
	case state.Source != n.request.Source || state.Size != int64(n.request.Disk):
		return fault.New(fault.Precondition, "an import of another disk into %s was cut off (of %s; this is %s): go on with that one, or say --restart to throw away what it left", n.place, state.Source, n.request.Source)
	}
	n.state = *state
	return n.resize(ctx)
}

// resize gives an image of one's own the size that is asked for now.
func (n *session) resize(ctx context.Context) error {
	if n.volume {
		return nil
	}
	size, err := n.images.Size(ctx, n.opened)
	if err == nil && size != n.request.Bytes {
		err = n.images.Resize(ctx, n.opened, n.request.Bytes)
	}
	return err
}

func (n *session) note(ctx context.Context) error {
	pairs, err := encodeState(n.state)
	if err != nil {
		return err
	}
	return n.images.SetMetadata(ctx, n.opened, pairs)
}

// Write puts a chunk into the image of a session: what in it is not zeros. sum is its SHA-256.
func (s *Server) Write(ctx context.Context, id string, offset int64, data []byte, sum string) error {
	return s.with(id, func(n *session) error {
		if err := n.sized(offset, len(data)); err != nil {
			return err
		}
		if hexSum(data) != sum {
			return mismatch("came over the socket", offset)
		}
		image, err := n.image()
		if err != nil {
			return err
		}
		for _, piece := range content.Pack(data, hole, nil) {
			if err := image.WriteAt(ctx, piece.Data, uint64(offset)+uint64(piece.At)); err != nil {
				return err
			}
		}
		return nil
	})
}

func hexSum(p []byte) string {
	sum := sha256.Sum256(p)
	return hex.EncodeToString(sum[:])
}

// Keep remembers how far a session is. A write that returned is on the OSDs: librbd caches nothing here.
func (s *Server) Keep(ctx context.Context, r volumeapi.KeepRequest) error {
	return s.with(r.Session, func(n *session) error {
		state := n.state
		state.Mark = r.Mark
		pairs, err := encodeState(state)
		if err != nil {
			return err
		}
		return n.images.SetMetadata(ctx, n.opened, pairs)
	})
}

// Compare reads a stretch of the image back.
func (s *Server) Compare(ctx context.Context, r volumeapi.CompareRequest) error {
	return s.with(r.Session, func(n *session) error {
		if r.From < 0 || r.To > n.size || r.From > r.To {
			return fault.New(fault.Range, "bytes %d to %d are not within the disk's %d", r.From, r.To, n.size)
		}
		image, err := n.image()
		if err != nil {
			return err
		}
		chunks := map[int64]bool{}
		buffer := make([]byte, volumeapi.ImageChunkLimit)
		for _, c := range r.Chunks {
			if err := n.sized(c.Offset, c.Length); err != nil {
				return err
			}
			chunks[c.Offset] = true
			p := buffer[:c.Length]
			if err := image.ReadAt(ctx, p, uint64(c.Offset)); err != nil {
				return err
			}
			if hexSum(p) != c.Sum {
				return mismatch("reads back", c.Offset)
			}
		}
		return n.zeros(ctx, image, r.From, r.To, chunks, buffer)
	})
}

// zeros reads what is allocated in a stretch of the image and belongs to no chunk.
func (n *session) zeros(ctx context.Context, image ceph.OpenImage, from, to int64, chunks map[int64]bool, p []byte) error {
	const step = volumeapi.ImageChunkLimit
	if from == to {
		return nil
	}
	return n.images.Diff(ctx, n.opened, "", "", uint64(from), uint64(to), func(e ceph.Extent) error {
		if e.Zero {
			return nil
		}
		for at, end := int64(e.Offset), int64(e.Offset+e.Length); at < end; {
			begin := at / step * step
			next := min(begin+step, end)
			if !chunks[begin] {
				if err := image.ReadAt(ctx, p[:next-at], uint64(at)); err != nil {
					return err
				}
				if !content.IsZero(p[:next-at]) {
					return mismatch("should be zeros", at)
				}
			}
			at = next
		}
		return nil
	})
}

// Finish gives a whole image its name, or removes the snapshot that an export took.
func (s *Server) Finish(ctx context.Context, id string) (volumeapi.ImageFinished, error) {
	var done volumeapi.ImageFinished
	err := s.with(id, func(n *session) (err error) {
		if n.snapshot != "" {
			return n.finishExport(ctx)
		}
		done, err = n.finish(ctx)
		return err
	})
	return done, err
}

func (n *session) finish(ctx context.Context) (volumeapi.ImageFinished, error) {
	done := volumeapi.ImageFinished{Name: n.place.String()}
	state, err := readState(ctx, n.images, n.opened)
	if err != nil {
		return done, err
	}
	if state == nil || state.Mark.UpTo != n.size {
		return done, fault.New(fault.Precondition, "not all of the disk is in %s", n.place)
	}
	n.state = *state
	n.state.Complete = true
	if err := n.note(ctx); err != nil || n.volume {
		return done, err
	}
	if err := n.close(); err != nil { // who has it open holds up a renaming
		return done, err
	}
	if err := n.free(ctx); err != nil {
		return done, err
	}
	if n.request.Overwrite {
		switch err := n.images.Trash(ctx, n.name); {
		case err == nil:
			done.Trashed = n.name
		case !errors.Is(err, fault.NotFound):
			return done, fmt.Errorf("move the image that is there to the trash: %w", err)
		}
	}
	return done, n.images.Rename(ctx, n.opened, n.name)
}
