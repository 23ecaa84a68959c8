package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-storage/holdfast/csi/attach"
	"github.com/holdfast-storage/holdfast/csi/fence"
	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/obs"
	"github.com/holdfast-storage/holdfast/pkg/poll"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

const (
	// noteLimit bounds what is done about notes where the cluster is not needed otherwise.
	noteLimit = 5 * time.Second
	// clientPatience is how long to wait until it is clear which watcher is this node's.
	clientPatience = 10 * time.Second
	sweepPause     = 20 * time.Second
	// attachLimit is longer than any NodeStageVolume takes.
	attachLimit = 10 * time.Minute
	// remembered is for how long a late staging is feared after the volume was taken.
	remembered = time.Hour
)

// id is what this node is called in notes and towards CSI.
func (s *Server) id() storage.NodeID {
	return storage.NodeID(idPrefix + strings.TrimPrefix(s.cfg.NodeID, idPrefix))
}

func (s *Server) noteName(volume string) string { return fence.Name(s.id(), volume) }

// announce notes that this node begins to attach the volume. What it attaches may not be written
// to before claim. It says in st whether an earlier attachment was fenced.
func (s *Server) announce(ctx context.Context, st *staging) error {
	s.users.Store(st.handle.Cluster, st.creds)
	notes := fence.Notes(st.conn)
	old, err := notes.Read(ctx, s.noteName(st.volume))
	if errors.Is(err, fault.Denied) {
		s.cfg.Log.Warn("this node cannot be fenced: give its Ceph user the right to write notes (deploy/ceph-users.md)", obs.KeyVolume, st.volume, obs.KeyError, err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the note of what this node has: %w", err)
	}
	if old != nil && old.Value.Fenced != nil && old.Value.Publication != "" && old.Value.Publication == st.publication {
		return fault.New(fault.Precondition, "the volume was taken from this node at %s: it must be published to it again first", old.Value.Fenced.Format(time.RFC3339))
	}
	note := fence.NewNote(s.id(), st.volume, s.boot, st.publication, rand.Text(), time.Now())
	if old != nil && old.Value.Boot == s.boot {
		note.Clients, note.Fenced = old.Value.Clients, old.Value.Fenced
	}
	st.fenced = note.Fenced != nil && len(note.Clients) > 0
	if st.note, err = notes.Write(ctx, s.noteName(st.volume), old, note); err != nil {
		return fmt.Errorf("note that the volume is attached: %w", err)
	}
	return nil
}

// claim notes the client through which the volume is written from now on, "" for none that can
// write. When a controller has taken the volume away meanwhile it fails, and the caller must
// take the attachment down.
func (s *Server) claim(ctx context.Context, st *staging, mounter string, client ceph.ClientAddress) error {
	if st.note == nil {
		return nil
	}
	note := st.note.Value
	note.Attaching, note.Fenced, note.Clients, note.Unknown = "", nil, nil, ""
	if client == "" && !st.cap.readOnly() {
		note.Unknown = mounter
	}
	if client != "" {
		note.Clients = []fence.Client{{Address: client, Mounter: mounter}}
	}
	for _, c := range st.note.Value.Clients {
		if c.Address == client || c.Mounter == mounter && (mounter == attach.FuseLoop || mounter == attach.UserFS) {
			continue // there is one helper at a time
		}
		if lives, err := s.living(ctx, st.volume, c); err != nil || lives {
			note.Clients = append(note.Clients, c) // an earlier mount that pods still have
		}
	}
	var err error
	if st.note, err = fence.Notes(st.conn).Write(ctx, s.noteName(st.volume), st.note, note); err != nil {
		return fmt.Errorf("note the client %s (the volume may have been taken from this node meanwhile): %w", client, err)
	}
	return nil
}

func (s *Server) living(ctx context.Context, volume string, c fence.Client) (bool, error) {
	if s.cfg.Driver == storage.CephFS {
		return s.cfg.Directories.Living(ctx, volume, c.Mounter, c.Address)
	}
	return s.cfg.Devices.Living(ctx, volume, c.Mounter, c.Address)
}

// imageClient finds the client of a device that was just attached: the machine tells, or it is the
// one watcher of this machine that was not there before. earlier is whom the last note named.
func (s *Server) imageClient(ctx context.Context, st *staging, dev attach.Device, found bool, before []ceph.Watcher) (ceph.ClientAddress, error) {
	client, err := s.cfg.Devices.Client(ctx, dev)
	if client != "" || err != nil || st.note == nil || st.cap.readOnly() {
		return client, err // a reader sets no watch, and cannot write
	}
	if i := slices.IndexFunc(st.note.Value.Clients, func(c fence.Client) bool { return c.Mounter == dev.Mounter }); found && i >= 0 {
		return st.note.Value.Clients[i].Address, nil // the helper that is there is the one that was
	}
	if found {
		before = nil
	}
	own := ownAddresses()
	if self, err := st.conn.Self(ctx); err == nil {
		own[self.Host()] = true
	}
	var mine []ceph.ClientAddress
	ctx, cancel := context.WithTimeout(ctx, clientPatience)
	defer cancel()
	images := st.conn.Images(st.context.Pool, st.context.RadosNamespace)
	err = poll.Until(ctx, 200*time.Millisecond, func() (bool, error) {
		now, err := images.Watchers(ctx, st.context.Image)
		mine = newcomers(before, now, own)
		return len(mine) == 1, err
	})
	switch {
	case err == nil:
		return mine[0], nil
	case len(mine) > 1:
		return "", fault.New(fault.Precondition, "image %s was opened by several clients of this machine at once, %v, so the node's own cannot be told: end the others", st.context.Image, mine)
	default:
		return "", fmt.Errorf("find this node's client among the watchers of image %s: %w", st.context.Image, err)
	}
}

// newcomers are the watchers with an own address that were not there before.
func newcomers(before, now []ceph.Watcher, own map[string]bool) []ceph.ClientAddress {
	var list []ceph.ClientAddress
	for _, w := range now {
		client, err := ceph.ParseClient(w.Address)
		if err != nil || !own[client.Host()] || slices.Contains(list, client) {
			continue
		}
		if !slices.ContainsFunc(before, func(b ceph.Watcher) bool { return b.Client == w.Client }) {
			list = append(list, client)
		}
	}
	return list
}

// noteOf reads what is noted of a volume, with what is known of its cluster. Nil without a note.
func (s *Server) noteOf(ctx context.Context, volume string) (fence.Store[fence.Note], *fence.Stored[fence.Note], error) {
	handle, err := s.readKnown(volume)
	if err != nil {
		return fence.Store[fence.Note]{}, nil, err
	}
	if v, _ := s.current(volume); v != nil && handle.Cluster == "" {
		handle.Cluster = v.Cluster
	}
	conn, err := s.reach(ctx, handle.Cluster)
	if err != nil {
		return fence.Store[fence.Note]{}, nil, err
	}
	notes := fence.Notes(conn)
	note, err := notes.Read(ctx, s.noteName(volume))
	return notes, note, err
}

// reach connects to a cluster without secrets at hand: with the service's own credentials,
// without them as in the last staging on it.
func (s *Server) reach(ctx context.Context, id storage.ClusterID) (ceph.Cluster, error) {
	entry, err := s.cfg.Clusters.Cluster(id)
	if err != nil {
		return nil, err
	}
	creds, err := s.cfg.Clusters.Credentials(id)
	if known, ok := s.users.Load(id); err != nil && ok {
		creds, err = known.(ceph.Credentials), nil //nolint:forcetypeassert // nothing else is stored
	}
	if err != nil {
		return nil, err
	}
	return s.cfg.Dialer.Dial(ctx, entry.Endpoint(), creds)
}

// fencedSince tells when this node was cut off from a volume, nil if it is not, or if the
// cluster does not answer at once.
func (s *Server) fencedSince(ctx context.Context, volume string) *time.Time {
	ctx, cancel := context.WithTimeout(ctx, noteLimit)
	defer cancel()
	_, note, err := s.noteOf(ctx, volume)
	if err != nil || note == nil || note.Value.Boot != s.boot || len(note.Value.Clients) == 0 {
		return nil
	}
	return note.Value.Fenced
}

// settle takes out of the note what is gone from this machine, and the note when all of it is. The
// volume is not used any more, so a cluster that does not answer holds nobody up: sweep comes back.
// That the volume was taken from this node less than an hour before now is remembered, so that no staging that is
// late goes on; with the zero time it is not: the volume was unstaged.
func (s *Server) settle(ctx context.Context, volume string, now time.Time) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), noteLimit)
	defer cancel()
	notes, old, err := s.noteOf(ctx, volume)
	if err != nil || old == nil {
		return err
	}
	note := old.Value
	note.Clients, note.Attaching = nil, ""
	var trouble error
	for _, c := range old.Value.Clients {
		if old.Value.Boot != s.boot {
			continue
		}
		lives, err := s.living(ctx, volume, c)
		if lives || err != nil {
			note.Clients = append(note.Clients, c)
			trouble = errors.Join(trouble, err, fault.New(fault.Busy, "client %s lives on", c.Address))
		}
	}
	if len(note.Clients) > 0 {
		_, err := notes.Write(ctx, s.noteName(volume), old, note)
		return errors.Join(trouble, err)
	}
	if at := note.Fenced; at != nil && note.Boot == s.boot && !now.IsZero() && at.After(now.Add(-remembered)) {
		_, err := notes.Write(ctx, s.noteName(volume), old, note)
		return err
	}
	return notes.Remove(ctx, old)
}

// settleLater is settle, and a sweep where that fails.
func (s *Server) settleLater(ctx context.Context, volume string, now time.Time) {
	if err := s.settle(ctx, volume, now); err != nil {
		s.cfg.Log.Debug("note is left to the sweep", obs.KeyVolume, volume, obs.KeyError, err)
		s.unsettled.Store(true)
	}
}

// Run keeps the notes in order until ctx ends: those of volumes that this node has no more.
func (s *Server) Run(ctx context.Context) error {
	ticker := time.NewTicker(sweepPause)
	defer ticker.Stop()
	s.unsettled.Store(true) // an earlier process may have left some
	for {
		if s.unsettled.Swap(false) {
			if err := s.Sweep(ctx); err != nil && ctx.Err() == nil {
				s.cfg.Log.Debug("notes are looked through again later", obs.KeyError, err)
				s.unsettled.Store(true)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// Sweep looks once at all notes of this node.
func (s *Server) Sweep(ctx context.Context) error {
	clusters, err := s.cfg.Clusters.Clusters()
	if err != nil {
		return err
	}
	var trouble []error
	for _, c := range clusters {
		conn, err := s.reach(ctx, c.ID)
		if err != nil {
			trouble = append(trouble, err)
			continue
		}
		list, err := fence.Notes(conn).List(ctx, fence.Prefix(s.id()))
		trouble = append(trouble, err)
		for _, note := range list {
			if h, err := s.readID(note.Value.Volume); err == nil && h.Cluster == c.ID {
				trouble = append(trouble, s.sweepNote(ctx, &note.Value))
			}
		}
	}
	return errors.Join(trouble...)
}

func (s *Server) sweepNote(ctx context.Context, note *fence.Note) error {
	unlock, err := s.locks.Lock(ctx, note.Volume)
	if err != nil {
		return err
	}
	defer unlock()
	v, err := s.current(note.Volume)
	if err != nil || v != nil {
		return err // it is staged
	}
	// While this process takes over from an earlier one, that may be attaching.
	if note.Attaching != "" && note.Boot == s.boot && time.Since(note.Since) < attachLimit {
		return fault.New(fault.Busy, "volume %s is being attached, or was until a moment ago", note.Volume)
	}
	return s.settle(ctx, note.Volume, time.Now())
}
