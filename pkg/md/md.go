// Package md is Linux software RAID: arrays are read from sysfs (Documentation/admin-guide/md.rst) and changed
// by mdadm. An array is known by its UUID, a member by its partition's device at the moment of the call.
//
// Invariant: nothing here creates an array over members that belong to one; what is inactive is assembled.
//
// It must not import the other node adapters.
package md

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Tool is mdadm with the kernel's own view beside it.
type Tool struct {
	Run command.Runner
	// Sys is where sysfs is mounted, "/sys" unless a test says otherwise.
	Sys string
}

// Member is one of an array's devices.
type Member struct {
	Device string // kernel name, such as "sda1"
	Slot   int    // -1 for a spare
	Faulty bool
	InSync bool
	// Replacing: it is the copy that takes over from the member of the same slot.
	Replacing bool
	// WantReplacement: it is being copied to another.
	WantReplacement bool
}

// Array is an array as the kernel runs it.
type Array struct {
	Device      string // kernel name, such as "md127"
	UUID        string // 8-4-4-4-12, lower case
	Level       string // raid1, raid5, raid6
	Disks       int
	Component   storage.Bytes
	Capacity    storage.Bytes // of the block device
	State       string        // array_state
	Action      string        // sync_action: idle, resync, recover, reshape, check, repair, frozen
	Done, Total storage.Bytes // of the action, per member; 0 and 0 when there is none
	Speed       storage.Bytes // of the action, a second
	Degraded    int
	Consistency string // consistency_policy
	Mismatches  int64  // sectors that the last check found unequal
	Members     []Member
}

// Busy reports whether the array is syncing, reshaping or scrubbing, or is about to.
func (a Array) Busy() bool { return a.Action != "idle" && a.Action != "frozen" && a.Action != "" }

// Scrubbing reports whether all that the array does is to compare, which can be ended and begun again at any time.
func (a Array) Scrubbing() bool { return a.Action == "check" }

// Syncing reports whether the array writes what its members lack, or reshapes, or is about to.
func (a Array) Syncing() bool { return a.Busy() && !a.Scrubbing() }

// Path is the device's path.
func (a Array) Path() string { return "/dev/" + a.Device }

// Member finds a member by its kernel name.
func (a Array) Member(device string) (Member, bool) {
	i := slices.IndexFunc(a.Members, func(m Member) bool { return m.Device == device })
	if i < 0 {
		return Member{}, false
	}
	return a.Members[i], true
}

// Arrays lists what the kernel has, inactive arrays too.
func (t Tool) Arrays() ([]Array, error) {
	dirs, err := filepath.Glob(filepath.Join(t.Sys, "block", "md*", "md"))
	if err != nil {
		return nil, fmt.Errorf("list md arrays: %w", err)
	}
	var list []Array
	for _, dir := range dirs {
		a, err := t.read(filepath.Base(filepath.Dir(dir)))
		if errors.Is(err, fs.ErrNotExist) {
			continue // it was stopped meanwhile
		}
		if err != nil {
			return nil, err
		}
		list = append(list, a)
	}
	return list, nil
}

// Find returns the array of a UUID; fault.NotFound if the kernel has none.
func (t Tool) Find(uuid string) (Array, error) {
	list, err := t.Arrays()
	if err != nil {
		return Array{}, err
	}
	for _, a := range list {
		if a.UUID == uuid {
			return a, nil
		}
	}
	return Array{}, fault.New(fault.NotFound, "array %s does not run", uuid)
}

// attributes reads files of one directory and keeps the first error.
type attributes struct {
	dir string
	err error
}

// text reads an attribute; one that is not there is "".
func (r *attributes) text(name string) string {
	data, err := os.ReadFile(filepath.Join(r.dir, name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) && r.err == nil {
		r.err = fmt.Errorf("read state of md: %w", err)
	}
	return strings.TrimSpace(string(data))
}

// number reads a number; what is not one ("none", "") is 0.
func (r *attributes) number(name string) int64 {
	n, err := strconv.ParseInt(r.text(name), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

func (t Tool) read(device string) (Array, error) {
	r := &attributes{dir: filepath.Join(t.Sys, "block", device, "md")}
	block := &attributes{dir: filepath.Dir(r.dir)}
	a := Array{
		Device: device, UUID: r.text("uuid"), Level: r.text("level"), State: r.text("array_state"), Action: r.text("sync_action"),
		Consistency: r.text("consistency_policy"), Degraded: int(r.number("degraded")), Mismatches: r.number("mismatch_cnt"),
		Component: storage.Bytes(r.number("component_size")) * storage.KiB, Speed: storage.Bytes(r.number("sync_speed")) * storage.KiB,
		Capacity: storage.Bytes(block.number("size")) * 512,
	}
	// During a reshape it is "4 (2)": what is to be, and what was.
	disks, _, _ := strings.Cut(r.text("raid_disks"), " ")
	a.Disks, _ = strconv.Atoi(disks)
	a.Done, a.Total = parseCompleted(r.text("sync_completed"))
	links, err := filepath.Glob(filepath.Join(r.dir, "dev-*"))
	if err != nil {
		return a, fmt.Errorf("list members of %s: %w", device, err)
	}
	for _, link := range links {
		a.Members = append(a.Members, readMember(link))
	}
	if a.UUID == "" && r.err == nil {
		return a, fs.ErrNotExist
	}
	return a, errors.Join(r.err, block.err)
}

// parseCompleted reads "1234 / 5678" in sectors; "none" and "delayed" are 0 and 0.
func parseCompleted(text string) (done, total storage.Bytes) {
	var d, n int64
	if _, err := fmt.Sscanf(text, "%d / %d", &d, &n); err != nil || d < 0 || n < d || n > 1<<53 {
		return 0, 0
	}
	return storage.Bytes(d) * 512, storage.Bytes(n) * 512
}

func readMember(dir string) Member {
	r := &attributes{dir: dir}
	flags := strings.Split(r.text("state"), ",")
	m := Member{
		Device: strings.TrimPrefix(filepath.Base(dir), "dev-"), Slot: -1, Faulty: slices.Contains(flags, "faulty"), InSync: slices.Contains(flags, "in_sync"),
		Replacing: slices.Contains(flags, "replacement"), WantReplacement: slices.Contains(flags, "want_replacement"),
	}
	if n, err := strconv.Atoi(r.text("slot")); err == nil {
		m.Slot = n
	}
	return m
}

// set writes an attribute of an array.
func (t Tool) set(device, name, value string) error {
	path := filepath.Join(t.Sys, "block", device, "md", name)
	if err := os.WriteFile(path, []byte(value), 0o200); err != nil {
		return fmt.Errorf("set %s of %s to %s: %w", name, device, value, err)
	}
	return nil
}

// Throttle bounds how fast the array syncs or reshapes, in bytes a second; 0 lifts the bound.
func (t Tool) Throttle(a Array, rate storage.Bytes) error {
	value := "system"
	if rate > 0 {
		value = strconv.FormatInt(max(1, int64(rate/storage.KiB)), 10)
		// The lower bound wins over the upper one and is 1000 KiB/s unless it is set.
		if err := t.set(a.Device, "sync_speed_min", "1"); err != nil {
			return err
		}
	} else if err := t.set(a.Device, "sync_speed_min", "system"); err != nil {
		return err
	}
	return t.set(a.Device, "sync_speed_max", value)
}

// Scrub starts to compare all copies or parity ("check"); Array.Mismatches says afterwards what differed.
func (t Tool) Scrub(a Array) error { return t.set(a.Device, "sync_action", "check") }

// Freeze keeps md from beginning a sync or a recovery, and interrupts one, until Idle.
func (t Tool) Freeze(a Array) error { return t.set(a.Device, "sync_action", "frozen") }

// Idle ends what Freeze began, and a check; a recovery or a resync that is due begins by itself.
func (t Tool) Idle(a Array) error { return t.set(a.Device, "sync_action", "idle") }

// mdadm runs mdadm.
func (t Tool) mdadm(ctx context.Context, args ...string) error {
	_, err := t.Run.Run(ctx, command.Cmd{Name: "mdadm", Args: args})
	return err
}
