package native

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/poll"
)

func (i *images) Unwatched(ctx context.Context, name string) error {
	return i.do(ctx, "look for clients of", name, func(ioctx *rados.IOContext) error {
		image, err := rbd.OpenImageReadOnly(ioctx, name, rbd.NoSnapshot)
		if err != nil {
			return err
		}
		return thenClose(image, i.unwatched(ctx, ioctx, image))
	})
}

// unwatched refuses an image that a client has open (fault.Busy), and has the OSD forget clients that are none.
//
// An OSD of 16.2 writes a watch down although the client's connection has gone meanwhile, and then never times it out:
// PrimaryLogPG::do_osd_op_effects returns early when the connection has no session. A client that is killed in that moment holds
// the image until the OSD reads the object's state from disk again, which on an idle cluster may be never. It does so when its
// PG peers anew, and the watch is gone a moment later.
func (i *images) unwatched(ctx context.Context, ioctx *rados.IOContext, image *rbd.Image) error {
	watchers, err := i.watchers(image)
	if err != nil || len(watchers) == 0 {
		return err
	}
	busy := fault.New(fault.Busy, "client %s has it open", watchers[0].Address)
	id, err := image.GetId()
	if err != nil {
		return busy
	}
	header := "rbd_header." + id
	if alive(ioctx, header, watchers) {
		return busy
	}
	if err := i.peerAnew(ctx, header); err != nil {
		return fault.New(fault.Busy, "client %s is gone, and its OSD has not noticed; let the PG of %s peer anew: %w", watchers[0].Address, header, err)
	}
	err = poll.Until(ctx, 100*time.Millisecond, func() (bool, error) {
		watchers, err := i.watchers(image)
		return len(watchers) == 0, err
	})
	return fault.As(fault.Unavailable, err)
}

// watchPatience is how long a living watcher may take to answer. One that takes longer counts as living, too.
const watchPatience = 3 * time.Second

// alive reports whether the OSD has a connection, or the hope of one, to any of the watchers: it sends each a notification and waits
// for the answer. An empty one is what librbd and krbd know as "read the header anew".
func alive(ioctx *rados.IOContext, header string, watchers []ceph.Watcher) bool {
	acks, late, err := ioctx.NotifyWithTimeout(header, nil, watchPatience)
	if err != nil && len(late) == 0 {
		return true // nothing is known
	}
	heard := map[int64]bool{}
	for _, a := range acks {
		heard[int64(a.NotifierID)] = true
	}
	for _, l := range late {
		heard[int64(l.NotifierID)] = true
	}
	for _, w := range watchers {
		if heard[w.Client] {
			return true
		}
	}
	return false
}

// peerAnew has an object's PG peer anew.
func (i *images) peerAnew(ctx context.Context, object string) error {
	place := map[string]any{"prefix": "osd map", "pool": i.pool, "object": object, "format": "json"}
	if i.namespace != "" {
		place["nspace"] = i.namespace
	}
	data, err := i.cluster.Mon(ctx, place, nil)
	if err != nil {
		return err
	}
	var at struct {
		PG string `json:"pgid"`
	}
	if err := json.Unmarshal(data, &at); err != nil || at.PG == "" {
		return fmt.Errorf("read the PG of %s from %.200q: %w", object, data, err)
	}
	_, err = i.cluster.Mon(ctx, map[string]any{"prefix": "pg repeer", "pgid": at.PG}, nil)
	return err
}
