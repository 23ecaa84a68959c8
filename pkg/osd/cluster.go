package osd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/poll"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// pollEvery is how often the cluster is asked for what it does not announce.
const pollEvery = 500 * time.Millisecond

// entry is an OSD in the cluster's map (`osd dump`).
type entry struct {
	ID     int      `json:"osd"`
	UUID   string   `json:"uuid"`
	Up     int      `json:"up"`
	In     int      `json:"in"`
	States []string `json:"state"`
	Public struct {
		Addresses []struct {
			Address string `json:"addr"`
		} `json:"addrvec"`
	} `json:"public_addrs"`
}

// address is where clients find the OSD; the zero value if the map does not say.
func (e entry) address() netip.Addr {
	for _, a := range e.Public.Addresses {
		if at, err := netip.ParseAddrPort(a.Address); err == nil {
			return at.Addr()
		}
	}
	return netip.Addr{}
}

func (e entry) destroyed() bool { return slices.Contains(e.States, "destroyed") }

func (n *Node) mon(ctx context.Context, into any, prefix string, args map[string]any) error {
	return decode(ctx, n.Cluster.Mon, into, prefix, args, nil)
}

func decode(ctx context.Context, send func(context.Context, map[string]any, []byte) ([]byte, error), into any, prefix string, args map[string]any, input []byte) error {
	cmd := map[string]any{"prefix": prefix}
	for key, value := range args {
		cmd[key] = value
	}
	out, err := send(ctx, cmd, input)
	if err != nil || into == nil {
		return err
	}
	if err := json.Unmarshal(out, into); err != nil {
		return fmt.Errorf("read the answer to %q: %w", prefix, err)
	}
	return nil
}

func (n *Node) entries(ctx context.Context) ([]entry, error) {
	var dump struct {
		OSDs []entry `json:"osds"`
	}
	err := n.mon(ctx, &dump, "osd dump", nil)
	return dump.OSDs, err
}

// byID returns the map's entry, fault.NotFound without one.
func (n *Node) byID(ctx context.Context, id int) (entry, error) {
	return n.find(ctx, name(id), func(e entry) bool { return e.ID == id })
}

func (n *Node) byUUID(ctx context.Context, uuid string) (entry, error) {
	return n.find(ctx, "OSD "+uuid, func(e entry) bool { return e.UUID == uuid })
}

func (n *Node) find(ctx context.Context, what string, is func(entry) bool) (entry, error) {
	all, err := n.entries(ctx)
	if err != nil {
		return entry{}, err
	}
	if i := slices.IndexFunc(all, is); i >= 0 {
		return all[i], nil
	}
	return entry{}, fault.New(fault.NotFound, "the cluster knows no %s", what)
}

// crushItem is an OSD in the CRUSH tree.
type crushItem struct {
	ID     int     `json:"id"`
	Class  string  `json:"device_class"`
	Weight float64 `json:"crush_weight"` // TiB
}

func (n *Node) crush(ctx context.Context, id int) (crushItem, error) {
	var tree struct {
		Nodes []crushItem `json:"nodes"`
		Stray []crushItem `json:"stray"`
	}
	if err := n.mon(ctx, &tree, "osd tree", nil); err != nil {
		return crushItem{}, err
	}
	all := slices.Concat(tree.Nodes, tree.Stray)
	if i := slices.IndexFunc(all, func(c crushItem) bool { return c.ID == id }); i >= 0 {
		return all[i], nil
	}
	return crushItem{}, fault.New(fault.NotFound, "%s is not in the CRUSH map", name(id))
}

// weightOf is the CRUSH weight of a device: its size in TiB.
func weightOf(size storage.Bytes) float64 { return float64(size) / float64(storage.TiB) }

// awaitUp waits until the map calls the OSD up.
func (n *Node) awaitUp(ctx context.Context, id int) error {
	return n.await(ctx, name(id)+" to come up; its log says why it does not", func(ctx context.Context) (bool, error) {
		e, err := n.byID(ctx, id)
		return e.Up == 1, err
	})
}

func (n *Node) await(ctx context.Context, what string, done func(ctx context.Context) (bool, error)) error {
	bounded, cancel := context.WithTimeout(ctx, n.patience())
	defer cancel()
	err := poll.Until(bounded, pollEvery, func() (bool, error) { return done(bounded) })
	if err != nil && ctx.Err() == nil && bounded.Err() != nil {
		return fault.New(fault.Unavailable, "waited %s for %s", n.patience(), what)
	}
	return err
}

// safeToDestroy reports whether every PG has its full number of copies elsewhere.
func (n *Node) safeToDestroy(ctx context.Context, id int) (bool, error) {
	var answer struct {
		Safe []int `json:"safe_to_destroy"`
	}
	err := decode(ctx, n.Cluster.Mgr, &answer, "osd safe-to-destroy", map[string]any{"ids": []string{fmt.Sprint(id)}}, nil)
	if unsafe(err) {
		return false, nil
	}
	return slices.Contains(answer.Safe, id), err
}

// awaitSafe waits until the OSD is called safe to destroy for a while on end. The manager
// judges by what the OSDs reported last: of one that has just started or was just marked out
// it knows nothing yet, and calls it empty.
func (n *Node) awaitSafe(ctx context.Context, id int) error {
	var since time.Time
	return n.await(ctx, name(id)+" to become safe to destroy; it holds data that has no other place yet", func(ctx context.Context) (bool, error) {
		safe, err := n.safeToDestroy(ctx, id)
		if err != nil || !safe {
			since = time.Time{}
			return false, err
		}
		if since.IsZero() {
			since = time.Now()
		}
		return time.Since(since) >= n.settle(), nil
	})
}

// okToStop reports whether all data stays available without the OSD.
func (n *Node) okToStop(ctx context.Context, id int) (bool, error) {
	var answer struct {
		OK bool `json:"ok_to_stop"`
	}
	err := decode(ctx, n.Cluster.Mgr, &answer, "osd ok-to-stop", map[string]any{"ids": []string{fmt.Sprint(id)}}, nil)
	if unsafe(err) {
		return false, nil
	}
	return answer.OK, err
}

// atRest reports whether every PG has all its copies: waiting makes nothing safer then.
func (n *Node) atRest(ctx context.Context) (bool, error) {
	var status struct {
		PGMap struct {
			Total  int `json:"num_pgs"`
			States []struct {
				Name  string `json:"state_name"`
				Count int    `json:"count"`
			} `json:"pgs_by_state"`
		} `json:"pgmap"`
	}
	if err := n.mon(ctx, &status, "status", nil); err != nil {
		return false, err
	}
	clean := 0
	for _, s := range status.PGMap.States {
		states := strings.Split(s.Name, "+") // such as active+clean+scrubbing
		if slices.Contains(states, "active") && slices.Contains(states, "clean") {
			clean += s.Count
		}
	}
	return clean == status.PGMap.Total, nil
}

// unsafe are the manager's ways to say "not now": EBUSY, and EAGAIN while it has no statistics.
func unsafe(err error) bool {
	return errors.Is(err, fault.Busy) || errors.Is(err, fault.Unavailable) || errors.Is(err, fault.Precondition)
}

// Placed is an OSD on a disk of this node.
type Placed struct {
	Disk  storage.Disk
	Label storage.OSD
	ID    int // -1 if neither the label nor the cluster says
	Known bool
	Up    bool
	In    bool
	Class string
	// Address is where the cluster found it last; the zero value if it never ran.
	Address netip.Addr
}

// Own reports whether the OSD is one of a cluster.
func (p Placed) Own(fsid string) bool { return p.Label.FSID == fsid }

// List finds the OSDs on the disks of an inventory, and what the cluster has of its own.
func (n *Node) List(ctx context.Context, disks []storage.Disk) ([]Placed, error) {
	all, err := n.entries(ctx)
	if err != nil {
		return nil, err
	}
	var list []Placed
	for _, d := range disks {
		label := onDisk(d)
		if label == nil {
			continue
		}
		p := Placed{Disk: d, Label: *label, ID: -1}
		if id, err := idOf(*label); err == nil {
			p.ID = id
		}
		i := slices.IndexFunc(all, func(e entry) bool { return e.UUID == label.UUID && !e.destroyed() })
		if i >= 0 && label.FSID == n.FSID {
			p.ID, p.Known, p.Up, p.In = all[i].ID, true, all[i].Up == 1, all[i].In == 1
			p.Address = all[i].address()
			item, err := n.crush(ctx, p.ID)
			if err != nil && !errors.Is(err, fault.NotFound) {
				return nil, err
			}
			p.Class = item.Class
		}
		list = append(list, p)
	}
	return list, nil
}
