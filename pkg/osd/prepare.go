package osd

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/daemon"
	"github.com/holdfast-storage/holdfast/pkg/durable"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Prepare returns the steps that make a new OSD of a free disk.
func (n *Node) Prepare(r Request) ([]Step, error) {
	if err := r.validate(); err != nil {
		return nil, err
	}
	steps := []Step{
		{Kind: "osd-claim", What: "make sure that the disk is free", check: func(ctx context.Context) (State, error) { return n.claimable(ctx, r) },
			do: func(ctx context.Context) error { return n.claim(ctx, r) }, verify: nothing},
		{Kind: "osd-register", What: "register the OSD", check: func(ctx context.Context) (State, error) { return n.registered(ctx, r) },
			do: func(ctx context.Context) error { return n.register(ctx, r) }},
	}
	if r.Encrypt {
		steps = append(steps, Step{Kind: "osd-encrypt", What: "encrypt the disk", check: func(ctx context.Context) (State, error) { return n.encrypted(ctx, r) },
			do: func(ctx context.Context) error { return n.encrypt(ctx, r) }})
	}
	steps = append(steps,
		Step{Kind: "osd-mkfs", What: "make the OSD's store", check: func(ctx context.Context) (State, error) { return n.made(ctx, r) },
			do: func(ctx context.Context) error { return n.mkfs(ctx, r) }},
		n.activation(r.UUID, r.Disk),
		n.entering(r.UUID),
	)
	if r.Class != "" {
		steps = append(steps, n.classing(r))
	}
	return steps, nil
}

func nothing(context.Context) error { return nil }

// claimable finds Done when a run before has begun to write to the disk.
func (n *Node) claimable(ctx context.Context, r Request) (State, error) {
	d, err := n.Disks.Find(ctx, r.Disk)
	if err != nil {
		return Todo, err
	}
	if osd := onDisk(d); osd != nil && osd.UUID == r.UUID && osd.FSID == n.FSID {
		return Done, nil
	}
	if !d.Free() {
		return Todo, fault.New(fault.Precondition, "disk %s (%s) is not free, nothing was written to it: %s", d.ID, d.Name, d.Why())
	}
	return Todo, nil
}

// claim looks at more of the disk than a scan, under its lock. The lock is let go of at once:
// cryptsetup and ceph-osd take one of their own.
func (n *Node) claim(ctx context.Context, r Request) error {
	_, file, err := n.Disks.Claim(ctx, r.Disk)
	if err != nil {
		return err
	}
	return file.Close()
}

// registered: the map has the UUID. An id to keep must be that of a destroyed OSD until then.
func (n *Node) registered(ctx context.Context, r Request) (State, error) {
	e, err := n.byUUID(ctx, r.UUID)
	if err == nil && r.Replace != nil && e.ID != *r.Replace {
		return Todo, fault.New(fault.Precondition, "OSD %s is %s already, and not %s", r.UUID, name(e.ID), name(*r.Replace))
	}
	if err == nil {
		if _, err := os.Stat(n.Paths.Keyring(name(e.ID))); errors.Is(err, os.ErrNotExist) {
			return Begun, nil
		}
		return Done, nil
	}
	if !errors.Is(err, fault.NotFound) {
		return Todo, err
	}
	if r.Replace == nil {
		return Todo, nil
	}
	old, err := n.byID(ctx, *r.Replace)
	if err == nil && !old.destroyed() {
		err = fault.New(fault.Precondition, "%s is not destroyed: its id is not free", name(*r.Replace))
	}
	return Todo, err
}

// secrets are what `osd new` takes with an encrypted OSD: the cluster keeps the key, as
// ceph-volume has it keep it, at dm-crypt/osd/UUID/luks.
type secrets struct {
	Cephx   string `json:"cephx_secret"`
	Lockbox string `json:"cephx_lockbox_secret,omitempty"`
	DMCrypt string `json:"dmcrypt_key,omitempty"`
}

func (n *Node) register(ctx context.Context, r Request) error {
	e, err := n.byUUID(ctx, r.UUID)
	if errors.Is(err, fault.NotFound) {
		if err = n.newOSD(ctx, r); err == nil {
			e, err = n.byUUID(ctx, r.UUID)
		}
	}
	if err != nil {
		return err
	}
	return n.fetchKeyring(ctx, e.ID)
}

// newOSD makes map entry, keys and encryption key in one command of the monitors.
func (n *Node) newOSD(ctx context.Context, r Request) error {
	var s secrets
	key, err := daemon.NewKey(rand.Reader, time.Now())
	if err != nil {
		return err
	}
	s.Cephx = key.Reveal()
	if r.Encrypt {
		lockbox, err := daemon.NewKey(rand.Reader, time.Now())
		if err != nil {
			return err
		}
		raw := make([]byte, 96)
		if _, err := rand.Read(raw); err != nil {
			return fmt.Errorf("read random bytes of a key: %w", err)
		}
		s.Lockbox, s.DMCrypt = lockbox.Reveal(), base64.StdEncoding.EncodeToString(raw)
	}
	input, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encode the OSD's keys: %w", err)
	}
	args := map[string]any{"uuid": r.UUID}
	if r.Replace != nil {
		args["id"] = *r.Replace
	}
	return decode(ctx, n.Cluster.Mon, nil, "osd new", args, input)
}

// fetchKeyring writes the OSD's key, with the capabilities that it must have, to its file.
func (n *Node) fetchKeyring(ctx context.Context, id int) error {
	var answer struct {
		Key string `json:"key"`
	}
	if err := n.mon(ctx, &answer, "auth get-key", map[string]any{"entity": name(id)}); err != nil {
		return err
	}
	keyring := daemon.EncodeKeyring(daemon.Entity{Name: name(id), Key: storage.NewSecret(answer.Key)})
	return durable.WriteFile(n.Paths.Keyring(name(id)), keyring, 0o600)
}

// made: the label says that mkfs came to its end.
func (n *Node) made(ctx context.Context, r Request) (State, error) {
	d, err := n.Disks.Find(ctx, r.Disk)
	if err != nil {
		return Todo, err
	}
	label, _, err := n.inside(ctx, d)
	switch {
	case errors.Is(err, fault.NotFound): // blank, or encrypted and blank inside
		return Todo, nil
	case err != nil:
		return Todo, err
	case label.UUID != r.UUID || label.FSID != "" && label.FSID != n.FSID:
		return Todo, fault.New(fault.Precondition, "disk %s carries %s of cluster %s: it is not touched", d.ID, osdName(label), label.FSID)
	case !label.Ready:
		return Begun, nil
	default:
		return Done, nil
	}
}

// mkfs makes the store. What a mkfs that was cut off left is made anew: it never ran.
func (n *Node) mkfs(ctx context.Context, r Request) error {
	state, err := n.made(ctx, r)
	if err != nil {
		return err
	}
	if state == Todo && !r.Encrypt {
		if err := n.claim(ctx, r); err != nil {
			return err
		}
	}
	d, err := n.Disks.Find(ctx, r.Disk)
	if err != nil {
		return err
	}
	e, err := n.byUUID(ctx, r.UUID)
	if err != nil {
		return err
	}
	_, device, err := n.inside(ctx, d)
	if err != nil && !errors.Is(err, fault.NotFound) {
		return err
	}
	if err := n.freshStore(e.ID, device); err != nil {
		return err
	}
	_, err = n.Run.Run(ctx, command.Cmd{Name: "ceph-osd", Args: []string{
		"--mkfs", "--conf", n.Paths.Conf(), "--id", fmt.Sprint(e.ID), "--osd-uuid", r.UUID, "--osd-data", n.store(e.ID),
	}})
	return err
}

// freshStore makes an empty data directory with a link to the device. The directory of an
// OSD that has a daemon is never one that mkfs is asked for.
func (n *Node) freshStore(id int, device string) error {
	dir := n.store(id)
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("clear %s: %w", dir, err)
	}
	if err := os.Mkdir(dir, 0o750); err != nil {
		return fmt.Errorf("make the store of %s: %w", name(id), err)
	}
	return linkDevice(dir, device)
}

// linkDevice points the store's link at the device, wherever it is now.
func linkDevice(dir, device string) error {
	link := dir + "/block"
	if now, err := os.Readlink(link); err == nil && now == device {
		return nil
	}
	temporary := link + ".new"
	_ = os.Remove(temporary)
	if err := errors.Join(os.Symlink(device, temporary), os.Rename(temporary, link)); err != nil {
		return fmt.Errorf("link %s: %w", link, err)
	}
	return nil
}

// entering makes an OSD take data: one that keeps the id of an old one is out as that was.
func (n *Node) entering(uuid string) Step {
	return Step{Kind: "osd-in", What: "let the OSD take data", check: func(ctx context.Context) (State, error) {
		e, err := n.byUUID(ctx, uuid)
		if err != nil || e.In == 0 {
			return Todo, err
		}
		return Done, nil
	}, do: func(ctx context.Context) error {
		e, err := n.byUUID(ctx, uuid)
		if err != nil {
			return err
		}
		return n.mon(ctx, nil, "osd in", map[string]any{"ids": []string{fmt.Sprint(e.ID)}})
	}}
}

// classing sets the device class; Ceph changes none that is set.
func (n *Node) classing(r Request) Step {
	current := func(ctx context.Context) (crushItem, error) {
		e, err := n.byUUID(ctx, r.UUID)
		if err != nil {
			return crushItem{}, err
		}
		return n.crush(ctx, e.ID)
	}
	return Step{Kind: "osd-class", What: "set the device class " + r.Class, check: func(ctx context.Context) (State, error) {
		c, err := current(ctx)
		if err != nil || c.Class != r.Class {
			return Todo, err
		}
		return Done, nil
	}, do: func(ctx context.Context) error {
		c, err := current(ctx)
		if err != nil {
			return err
		}
		ids := []string{name(c.ID)}
		if err := n.mon(ctx, nil, "osd crush rm-device-class", map[string]any{"ids": ids}); err != nil {
			return err
		}
		return n.mon(ctx, nil, "osd crush set-device-class", map[string]any{"class": r.Class, "ids": ids})
	}}
}
