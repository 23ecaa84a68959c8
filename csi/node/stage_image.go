package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/csi/attach"
	"github.com/holdfast-storage/holdfast/csi/capability"
	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/obs"
	"github.com/holdfast-storage/holdfast/pkg/poll"
)

// How long to wait for other clients of an image to go. A watch of a client that died
// lasts 30 s (osd_client_watch_timeout): worth waiting for when it was this node's own
// (it crashed, or its attacher did). A controller that resizes has the image open for a moment.
const (
	ownWatcherGrace   = 40 * time.Second
	otherWatcherGrace = 3 * time.Second
)

// stageImage attaches an RBD volume and mounts its file system.
func (s *Server) stageImage(ctx context.Context, st *staging, v *staged) error {
	c := &st.context
	if c.Pool == "" || c.Image == "" {
		return fault.New(fault.Invalid, "volume_context lacks pool or image")
	}
	info, err := st.conn.Images(c.Pool, c.RadosNamespace).Info(ctx, c.Image)
	if err != nil {
		return err
	}
	img := attach.Image{
		Volume: st.volume, FSID: st.fsid, Endpoint: st.site.Endpoint(), Credentials: st.creds,
		Pool: c.Pool, Namespace: c.RadosNamespace, Name: c.Image, Features: info.Features, ReadOnly: st.cap.readOnly(),
		Mounter: c.Mounter, MapOptions: c.MapOptions, UnmapOption: c.UnmapOptions,
	}
	if c.Encrypted == "true" {
		if img.Passphrase, err = s.volumeKey(ctx, st); err != nil {
			return err
		}
	}
	dev, found, err := s.cfg.Devices.Find(ctx, img)
	if err != nil {
		return err
	}
	if found && st.fenced { // of no use any more
		if err := s.cfg.Devices.Detach(ctx, dev); err != nil {
			return fmt.Errorf("take down what was fenced: %w", err)
		}
		found = false
	}
	before, err := s.watchersBefore(ctx, st, found)
	if err != nil {
		return err
	}
	start := time.Now()
	dev, err = s.cfg.Devices.Attach(ctx, img)
	s.cfg.Observer.Attached(s.cfg.Driver, dev.Mounter, time.Since(start), err)
	if err != nil {
		return err
	}
	v.Device = &dev
	client, err := s.imageClient(ctx, st, dev, found, before)
	if err == nil {
		err = s.claim(ctx, st, dev.Mounter, client)
	}
	if err != nil {
		return errors.Join(err, s.undoAttach(ctx, dev))
	}
	if err := s.prepareImage(ctx, st, v, info); err != nil {
		return errors.Join(err, s.undoAttach(ctx, dev))
	}
	return nil
}

// watchersBefore are the image's clients before it is attached: none, once a single node may have it.
func (s *Server) watchersBefore(ctx context.Context, st *staging, found bool) ([]ceph.Watcher, error) {
	images := st.conn.Images(st.context.Pool, st.context.RadosNamespace)
	if !found && capability.SingleNode(st.cap.mode) {
		return nil, s.AwaitFree(ctx, images, st.context.Image, ownWatcherGrace)
	}
	return images.Watchers(ctx, st.context.Image)
}

// undoAttach detaches after a failed staging, also when the caller is gone.
func (s *Server) undoAttach(ctx context.Context, dev attach.Device) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	if err := s.cfg.Devices.Detach(ctx, dev); err != nil {
		s.cfg.Log.Warn("undo of an attachment is left to the next call", obs.KeyVolume, dev.Volume, obs.KeyDevice, dev.Path, obs.KeyError, err)
	}
	return nil
}

// prepareImage brings an attached image to its staging path.
func (s *Server) prepareImage(ctx context.Context, st *staging, v *staged, info ceph.ImageInfo) error {
	images := st.conn.Images(st.context.Pool, st.context.RadosNamespace)
	info.Size = v.Device.Data(info.Size) // of what the file system can have
	if st.cap.block {
		return s.disown(ctx, images, st)
	}
	f := formatting{
		s: s, cluster: st.conn, pool: st.context.Pool, ns: st.context.RadosNamespace, image: st.context.Image,
		device: v.Device.Path, beneath: v.Device.Beneath, size: info.Size, want: cmp.Or(st.cap.fs, st.context.FsType), options: st.context.MkfsOptions, readOnly: st.cap.readOnly(),
	}
	fs, err := f.ensure(ctx)
	if err != nil {
		return err
	}
	v.FS = fs
	at, err := s.mounts.At(st.target)
	if err != nil {
		return err
	}
	if at != nil && at.Source == v.Device.Path { // the record was lost, the mount was not
		return nil
	}
	if err := s.mounts.Drop(st.target); err != nil {
		return err
	}
	return s.mountGrown(ctx, v, st.cap.flags, info.Size)
}

// disown notes that an image is given out raw: what an unfinished mkfs left may be
// a person's data from now on.
func (s *Server) disown(ctx context.Context, images ceph.Images, st *staging) error {
	if st.cap.readOnly() {
		return nil
	}
	meta, err := images.Metadata(ctx, st.context.Image)
	if err != nil || stateOf(meta, st.context.Image) != stateStarted {
		return err
	}
	return images.SetMetadata(ctx, st.context.Image, map[string]string{metaState: stateNone})
}

// mountImage mounts the device on the staging path.
func (s *Server) mountImage(v *staged, flags []string) error {
	options := flags
	if v.FS == "xfs" {
		// A clone or a restored snapshot has its source's UUID, and may be on the same node.
		options = append([]string{"nouuid"}, flags...)
	}
	err := s.mounts.Mount(v.Device.Path, v.Staging, v.FS, options, v.ReadOnly)
	if v.ReadOnly && errors.Is(err, unix.EROFS) {
		// The log needs replay and the device cannot be written: mount without it.
		skip := map[string]string{"ext4": "noload", "xfs": "norecovery"}[v.FS]
		err = s.mounts.Mount(v.Device.Path, v.Staging, v.FS, append(options, skip), true)
	}
	return mountError(v.FS, v.Device.Path, err)
}

// AwaitFree refuses an image that another client has open (fault.Precondition), after
// a short patience: patience at most, less when a client of another machine has it.
func (s *Server) AwaitFree(ctx context.Context, images ceph.Images, image string, patience time.Duration) error {
	own := ownAddresses()
	start := time.Now()
	return poll.Until(ctx, 500*time.Millisecond, func() (bool, error) {
		watchers, err := images.Watchers(ctx, image)
		if err != nil || len(watchers) == 0 {
			return err == nil, err
		}
		grace := patience
		var addresses []string
		for _, w := range watchers {
			addresses = append(addresses, w.Address)
			if !own[hostOf(w.Address)] {
				grace = min(patience, otherWatcherGrace)
			}
		}
		if deadline, ok := ctx.Deadline(); ok {
			grace = min(grace, deadline.Sub(start)-2*time.Second)
		}
		if time.Since(start) < grace {
			return false, nil
		}
		return false, fault.New(fault.Precondition, "image %s is in use by %s, and its access mode allows one node: "+
			"stop the pod there and wait for it to unmount; if that node is surely dead, fence it with `ceph osd blocklist add ADDRESS`", image, strings.Join(addresses, ", "))
	})
}

// hostOf returns the IP address of "10.0.0.1:0/123" or "v1:10.0.0.1:0/123".
func hostOf(address string) string {
	address, _, _ = strings.Cut(address, "/")
	address = strings.TrimPrefix(strings.TrimPrefix(address, "v1:"), "v2:")
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	return host
}

// ownAddresses are the IP addresses of this machine.
func ownAddresses() map[string]bool {
	own := map[string]bool{}
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			own[n.IP.String()] = true
		}
	}
	return own
}
