// Package gpt reads and writes GUID partition tables by sfdisk (util-linux), on disks that may be in use.
//
// Invariant: a partition is known by its UUID; its number and device are looked up.
//
// It must not import the other node adapters.
package gpt

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// TypeRAID is the type of partitions that are members of md arrays (UEFI's registry by way of
// sfdisk --list-types: Linux RAID).
const TypeRAID = "A19D880F-05FC-4D3B-A006-743F0F84911E"

// Tool is sfdisk, with partx to tell the kernel and wipefs to look for what is there.
type Tool struct{ Run command.Runner }

// Partition is an entry of a table.
type Partition struct {
	Device      string // path
	UUID        string // lower case
	Name        string
	Start, Size storage.Bytes
}

// Table is a disk's partition table.
type Table struct {
	GUID       string // lower case
	Partitions []Partition
}

// Partition finds a partition by its UUID.
func (t Table) Partition(uuid string) (Partition, bool) {
	i := slices.IndexFunc(t.Partitions, func(p Partition) bool { return p.UUID == uuid })
	if i < 0 {
		return Partition{}, false
	}
	return t.Partitions[i], true
}

// dump is what sfdisk --json prints.
type dump struct {
	Table *struct {
		Label      string `json:"label"`
		ID         string `json:"id"`
		SectorSize int64  `json:"sectorsize"`
		Partitions []struct {
			Node  string `json:"node"`
			Start int64  `json:"start"`
			Size  int64  `json:"size"`
			UUID  string `json:"uuid"`
			Name  string `json:"name"`
		} `json:"partitions"`
	} `json:"partitiontable"`
}

// parse reads sfdisk's JSON. fault.Unsupported for a table that is not a GPT or makes no sense.
func parse(data []byte) (Table, error) {
	var d dump
	if err := json.Unmarshal(data, &d); err != nil {
		return Table{}, fault.New(fault.Unsupported, "read sfdisk's table: %w", err)
	}
	if d.Table == nil || d.Table.Label != "gpt" {
		return Table{}, fault.New(fault.Unsupported, "the disk's partition table is no GPT")
	}
	sector := d.Table.SectorSize
	if sector != 512 && sector != 4096 {
		return Table{}, fault.New(fault.Unsupported, "sectors of %d bytes", sector)
	}
	t := Table{GUID: strings.ToLower(d.Table.ID)}
	for _, p := range d.Table.Partitions {
		if p.Start < 0 || p.Size < 0 || p.Start > 1<<50 || p.Size > 1<<50 {
			return Table{}, fault.New(fault.Unsupported, "partition %s begins at sector %d and has %d", p.Node, p.Start, p.Size)
		}
		t.Partitions = append(t.Partitions, Partition{
			Device: p.Node, UUID: strings.ToLower(p.UUID), Name: p.Name,
			Start: storage.Bytes(p.Start * sector), Size: storage.Bytes(p.Size * sector),
		})
	}
	return t, nil
}

// Read reads a disk's table; fault.NotFound where there is none.
func (t Tool) Read(ctx context.Context, disk string) (Table, error) {
	r, err := t.Run.Run(ctx, command.Cmd{Name: "sfdisk", Args: []string{"--json", disk}})
	if command.ExitCode(err) > 0 {
		return Table{}, fault.New(fault.NotFound, "disk %s has no partition table: %w", disk, err)
	}
	if err != nil {
		return Table{}, fmt.Errorf("read partition table: %w", err)
	}
	return parse(r.Stdout)
}

// Signatures lists what is on a device by name ("LVM2_member", "gpt", "ext4"), nothing for a blank one.
func (t Tool) Signatures(ctx context.Context, device string) ([]string, error) {
	r, err := t.Run.Run(ctx, command.Cmd{Name: "wipefs", Args: []string{"--no-act", "--json", device}})
	if err != nil {
		return nil, fmt.Errorf("look for signatures: %w", err)
	}
	if len(strings.TrimSpace(string(r.Stdout))) == 0 {
		return nil, nil
	}
	var found struct {
		Signatures []struct {
			Type string `json:"type"`
		} `json:"signatures"`
	}
	if err := json.Unmarshal(r.Stdout, &found); err != nil {
		return nil, fault.New(fault.Unsupported, "read wipefs' list: %w", err)
	}
	var list []string
	for _, s := range found.Signatures {
		list = append(list, s.Type)
	}
	return list, nil
}

// Wipe removes all signatures from a device.
func (t Tool) Wipe(ctx context.Context, device string) error {
	if _, err := t.Run.Run(ctx, command.Cmd{Name: "wipefs", Args: []string{"--all", "--quiet", device}}); err != nil {
		return fmt.Errorf("wipe signatures: %w", err)
	}
	return nil
}

// sfdisk feeds a script to sfdisk. The kernel is told by partx afterwards, since re-reading a table that is in use is refused.
func (t Tool) sfdisk(ctx context.Context, script string, args ...string) error {
	args = append([]string{"--quiet", "--no-reread", "--no-tell-kernel", "--wipe", "never", "--wipe-partitions", "always", "--lock=yes"}, args...)
	_, err := t.Run.Run(ctx, command.Cmd{Name: "sfdisk", Args: args, Stdin: strings.NewReader(script)})
	return err
}

// Label writes an empty table to a disk, whose partitions may begin at first. Left to itself sfdisk rounds that up to the
// optimal I/O size, which some disks give as several MiB.
func (t Tool) Label(ctx context.Context, disk, guid string, first storage.Bytes) error {
	sector, err := t.sectorSize(ctx, disk)
	if err != nil {
		return err
	}
	if err := t.sfdisk(ctx, fmt.Sprintf("label: gpt\nlabel-id: %s\nfirst-lba: %d\n", guid, first/sector), disk); err != nil {
		return fmt.Errorf("label %s: %w", disk, err)
	}
	return t.Tell(ctx, disk)
}

// sectorSize is the disk's logical sector, in bytes.
func (t Tool) sectorSize(ctx context.Context, disk string) (storage.Bytes, error) {
	r, err := t.Run.Run(ctx, command.Cmd{Name: "blockdev", Args: []string{"--getss", disk}})
	if err != nil {
		return 0, fmt.Errorf("read sector size: %w", err)
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(r.Stdout)), 10, 64)
	if err != nil || n < 512 || n > 1<<16 {
		return 0, fault.New(fault.Unsupported, "disk %s: sectors of %q bytes", disk, r.Stdout)
	}
	return storage.Bytes(n), nil
}

// Add adds a partition of type Linux RAID. Sizes are multiples of the disk's sectors, and go to sfdisk as such: it rounds
// those with a unit to the optimal I/O size.
func (t Tool) Add(ctx context.Context, disk string, p Partition) error {
	sector, err := t.sectorSize(ctx, disk)
	if err != nil {
		return err
	}
	script := fmt.Sprintf("start=%d, size=%d, type=%s, uuid=%s, name=\"%s\"\n", p.Start/sector, p.Size/sector, TypeRAID, p.UUID, p.Name)
	if err := t.sfdisk(ctx, script, "--append", "--force", disk); err != nil {
		return fmt.Errorf("add partition %s to %s: %w", p.Name, disk, err)
	}
	return t.Tell(ctx, disk)
}

// Resize sets the size of partition number n; what is in it stays.
func (t Tool) Resize(ctx context.Context, disk string, n int, size storage.Bytes) error {
	sector, err := t.sectorSize(ctx, disk)
	if err != nil {
		return err
	}
	script := fmt.Sprintf(",%d\n", size/sector)
	args := []string{
		"--quiet", "--no-reread", "--no-tell-kernel", "--wipe", "never", "--wipe-partitions", "never", "--lock=yes", "--force",
		"--partno", fmt.Sprint(n), disk,
	}
	if _, err := t.Run.Run(ctx, command.Cmd{Name: "sfdisk", Args: args, Stdin: strings.NewReader(script)}); err != nil {
		return fmt.Errorf("resize partition %d of %s: %w", n, disk, err)
	}
	return t.Tell(ctx, disk)
}

// Relocate moves the table's backup to the end of a disk that has grown.
func (t Tool) Relocate(ctx context.Context, disk string) error {
	_, err := t.Run.Run(ctx, command.Cmd{Name: "sfdisk", Args: []string{"--quiet", "--no-reread", "--no-tell-kernel", "--lock=yes", "--force", "--relocate", "gpt-bak-std", disk}})
	if err != nil {
		return fmt.Errorf("move the backup of the partition table of %s: %w", disk, err)
	}
	return nil
}

// Tell makes the kernel's view of a disk's partitions that of the table, also while some are in use.
func (t Tool) Tell(ctx context.Context, disk string) error {
	if _, err := t.Run.Run(ctx, command.Cmd{Name: "partx", Args: []string{"--update", disk}}); err != nil && command.ExitCode(err) < 0 {
		return fmt.Errorf("tell the kernel of the partitions of %s: %w", disk, err)
	}
	return nil
}

// Clear removes a disk's table; its partitions vanish.
func (t Tool) Clear(ctx context.Context, disk string) error {
	if _, err := t.Run.Run(ctx, command.Cmd{Name: "partx", Args: []string{"--delete", disk}}); err != nil && command.ExitCode(err) < 0 {
		return fmt.Errorf("forget the partitions of %s: %w", disk, err)
	}
	return t.Wipe(ctx, disk)
}
