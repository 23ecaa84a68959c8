package md

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Creation is an array to be made.
type Creation struct {
	Name, UUID string
	Level      string // raid1, raid5, raid6
	Component  storage.Bytes
	DataOffset storage.Bytes
	Chunk      storage.Bytes // of raid5 and raid6
	// Consistency is resync or bitmap; a partial parity log comes once the array is in sync (Protect).
	Consistency string
	// AssumeClean skips the first sync: only for members that read as zeros.
	AssumeClean bool
	Members     []string // paths
}

// Create makes and starts an array.
func (t Tool) Create(ctx context.Context, c Creation) error {
	args := []string{
		"--create", "/dev/md/" + c.Name, "--run", "--force", "--metadata=1.2", "--homehost=any", "--name=" + c.Name, "--uuid=" + c.UUID,
		"--level=" + c.Level, "--raid-devices=" + strconv.Itoa(len(c.Members)), "--size=" + kib(c.Component), "--data-offset=" + kib(c.DataOffset),
	}
	if c.Level != "raid1" {
		args = append(args, "--chunk="+kib(c.Chunk))
	}
	switch c.Consistency {
	case "bitmap":
		args = append(args, "--bitmap=internal")
	default:
		args = append(args, "--bitmap=none")
	}
	if c.AssumeClean {
		args = append(args, "--assume-clean")
	}
	if err := t.mdadm(ctx, append(args, c.Members...)...); err != nil {
		return fmt.Errorf("create array %s: %w", c.Name, err)
	}
	return nil
}

func kib(b storage.Bytes) string { return strconv.FormatInt(int64(b/storage.KiB), 10) }

// manage runs mdadm on a running array.
func (t Tool) manage(ctx context.Context, a Array, verb string, args ...string) error {
	if err := t.mdadm(ctx, args...); err != nil {
		return fmt.Errorf("%s array %s: %w", verb, a.Device, err)
	}
	return nil
}

// Add makes devices spares; an array that misses members starts to fill them.
func (t Tool) Add(ctx context.Context, a Array, devices ...string) error {
	return t.manage(ctx, a, "add to", append([]string{a.Path(), "--add"}, devices...)...)
}

// ReAdd gives a member that was away what it missed, by the bitmap.
func (t Tool) ReAdd(ctx context.Context, a Array, device string) error {
	return t.manage(ctx, a, "re-add to", a.Path(), "--re-add", device)
}

// Fail marks a member as faulty.
func (t Tool) Fail(ctx context.Context, a Array, device string) error {
	return t.manage(ctx, a, "fail a member of", a.Path(), "--fail", device)
}

// Remove takes a faulty or spare device out.
func (t Tool) Remove(ctx context.Context, a Array, device string) error {
	return t.manage(ctx, a, "remove from", a.Path(), "--remove", device)
}

// RemoveDetached takes out members whose devices are gone.
func (t Tool) RemoveDetached(ctx context.Context, a Array) error {
	return t.manage(ctx, a, "remove what is gone from", a.Path(), "--fail", "detached", "--remove", "detached")
}

// Replace copies a member to a spare while it serves.
func (t Tool) Replace(ctx context.Context, a Array, old, with string) error {
	return t.manage(ctx, a, "replace a member of", a.Path(), "--replace", old, "--with", with)
}

// Resize sets the number of members of a mirror.
func (t Tool) Resize(ctx context.Context, a Array, disks int) error {
	return t.manage(ctx, a, "resize", "--grow", a.Path(), "--raid-devices="+strconv.Itoa(disks))
}

// Reshape changes level and number of members in one pass.
func (t Tool) Reshape(ctx context.Context, a Array, level string, disks int) error {
	args := []string{"--grow", a.Path(), "--raid-devices=" + strconv.Itoa(disks)}
	if a.Level != level {
		args = append(args, "--level="+level)
	}
	return t.manage(ctx, a, "reshape", args...)
}

// Widen sets the component size of an array.
func (t Tool) Widen(ctx context.Context, a Array, component storage.Bytes) error {
	return t.manage(ctx, a, "widen", "--grow", a.Path(), "--size="+kib(component))
}

// Protect changes the consistency policy to resync, bitmap or ppl; what is there goes first.
func (t Tool) Protect(ctx context.Context, a Array, policy string) error {
	if a.Consistency == policy {
		return nil
	}
	switch a.Consistency {
	case "bitmap":
		if err := t.manage(ctx, a, "remove the bitmap of", "--grow", a.Path(), "--bitmap=none"); err != nil {
			return err
		}
	case "ppl":
		if err := t.manage(ctx, a, "remove the parity log of", "--grow", a.Path(), "--consistency-policy=resync"); err != nil {
			return err
		}
	}
	switch policy {
	case "bitmap":
		return t.manage(ctx, a, "add a bitmap to", "--grow", a.Path(), "--bitmap=internal")
	case "ppl":
		return t.addLog(a)
	}
	return nil
}

// Assemble starts an array from members that are there, also in the middle of a reshape; those that miss the writes of others
// are left out. Where others are missing that were there before, it is not started: ErrMissing.
func (t Tool) Assemble(ctx context.Context, name, uuid string, devices []string) error {
	err := t.assemble(ctx, name, uuid, devices)
	if command.ExitCode(err) == 1 { // mdadm(8), exit status and --run
		err = errors.Join(ErrMissing, err)
	}
	if err != nil {
		return fmt.Errorf("assemble array %s: %w", name, err)
	}
	return nil
}

// ErrMissing says that an array was not started because not all members are there that it had when it last ran.
var ErrMissing = errors.New("members are missing that were there before")

// AssembleWithout starts an array without the members that are missing. md refuses it if too many are. Whether those that are
// there have the newest data cannot be told from them.
func (t Tool) AssembleWithout(ctx context.Context, name, uuid string, devices []string) error {
	if err := t.assemble(ctx, name, uuid, devices, "--run"); err != nil {
		return fmt.Errorf("assemble array %s without members that are missing: %w", name, err)
	}
	return nil
}

func (t Tool) assemble(ctx context.Context, name, uuid string, devices []string, options ...string) error {
	args := append([]string{"--assemble", "/dev/md/" + name, "--uuid=" + uuid}, devices...)
	return t.mdadm(ctx, append(args, options...)...)
}

// Writable ends the state in which an array waits for the first write before it syncs.
func (t Tool) Writable(ctx context.Context, a Array) error {
	return t.manage(ctx, a, "make writable", "--readwrite", a.Path())
}

// Stop ends an array.
func (t Tool) Stop(ctx context.Context, a Array) error {
	return t.manage(ctx, a, "stop", "--stop", a.Path())
}

// Forget wipes md's superblock from a device; one that has none is left alone.
func (t Tool) Forget(ctx context.Context, device string) error {
	if err := t.mdadm(ctx, "--zero-superblock", "--force", device); err != nil {
		return fmt.Errorf("forget array on %s: %w", device, err)
	}
	return nil
}

// Events is how often the newest of the devices says that the state of its array was written; devices without a superblock
// count for nothing. It grows with every change of the members and between clean and dirty.
func (t Tool) Events(devices []string) (uint64, error) {
	var newest uint64
	for _, d := range devices {
		n, err := superblockEvents(d)
		if err != nil {
			return 0, err
		}
		newest = max(newest, n)
	}
	return newest, nil
}

// MemberOf returns the UUID of the array that a device's superblock names, "" if it has none.
func (t Tool) MemberOf(device string) (string, error) { return superblockUUID(device) }
