// Package lvm is LVM2: volume groups on the devices that are named, and logical volumes in them. State is read as
// JSON (lvmreport(7)); every call names the devices that LVM may look at, so nothing else on the machine is touched.
//
// It must not import the other node adapters.
package lvm

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

// Tool is lvm.
type Tool struct {
	Run command.Runner
	// NoUdev is for machines where no udevd runs: LVM then makes its device nodes itself.
	NoUdev bool
}

// PV is a physical volume.
type PV struct {
	Device string
	Group  string // "" for one that is in none
	Size   storage.Bytes
}

// LV is a logical volume.
type LV struct {
	Group, Name string
	Size        storage.Bytes
	Active      bool
	New         bool // made, and what lay there may not be wiped yet
}

// Path is the volume's device.
func (v LV) Path() string { return Path(v.Group, v.Name) }

// Path is the device of a volume.
func Path(group, name string) string { return "/dev/mapper/" + Mapped(group, name) }

// Mapped is what device-mapper calls a volume. A dash in a name is doubled (its rule for such names).
func Mapped(group, name string) string {
	double := func(s string) string { return strings.ReplaceAll(s, "-", "--") }
	return double(group) + "-" + double(name)
}

// report is what lvm prints with --reportformat json: one list a kind, every value a string.
type report struct {
	Report []struct {
		PV []map[string]string `json:"pv"`
		LV []map[string]string `json:"lv"`
	} `json:"report"`
}

func parseReport(data []byte) (report, error) {
	var r report
	if err := json.Unmarshal(data, &r); err != nil {
		return r, fault.New(fault.Unsupported, "read lvm's report: %w", err)
	}
	return r, nil
}

func size(text string) (storage.Bytes, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return 0, fault.New(fault.Unsupported, "lvm's report: size %q is no number of bytes", text)
	}
	return storage.Bytes(n), nil
}

// lvm runs a command. No backup of metadata goes to /etc (it may be read-only); the metadata lies on every device. The alignment is
// what the plan says and not what a reshape will have changed by tomorrow.
func (t Tool) lvm(ctx context.Context, verb string, args ...string) ([]byte, error) {
	config := "backup{backup=0 archive=0} devices{md_chunk_alignment=0 data_alignment_offset_detection=0 use_devicesfile=0}"
	cmd := command.Cmd{Name: "lvm", Args: append([]string{verb, "--config", config}, args...), Env: []string{"LVM_SUPPRESS_FD_WARNINGS=1"}}
	if t.NoUdev {
		cmd.Env = append(cmd.Env, "DM_DISABLE_UDEV=1")
	}
	result, err := t.Run.Run(ctx, cmd)
	return result.Stdout, err
}

var units = []string{"--reportformat", "json", "--units", "b", "--nosuffix"}

// PVs lists all physical volumes; Size is what they give to their group.
func (t Tool) PVs(ctx context.Context) ([]PV, error) {
	out, err := t.lvm(ctx, "pvs", append(units, "-o", "pv_name,vg_name,pv_size")...)
	if err != nil {
		return nil, fmt.Errorf("list physical volumes: %w", err)
	}
	r, err := parseReport(out)
	if err != nil {
		return nil, err
	}
	var list []PV
	for _, part := range r.Report {
		for _, row := range part.PV {
			n, err := size(row["pv_size"])
			if err != nil {
				return nil, err
			}
			list = append(list, PV{Device: row["pv_name"], Group: row["vg_name"], Size: n})
		}
	}
	return list, nil
}

// LVs lists the volumes of a group; none if there is no such group.
func (t Tool) LVs(ctx context.Context, group string) ([]LV, error) {
	out, err := t.lvm(ctx, "lvs", append(units, "-o", "vg_name,lv_name,lv_size,lv_active,lv_tags", "-S", "vg_name="+group)...)
	if err != nil {
		return nil, fmt.Errorf("list volumes of %s: %w", group, err)
	}
	r, err := parseReport(out)
	if err != nil {
		return nil, err
	}
	var list []LV
	for _, part := range r.Report {
		for _, row := range part.LV {
			n, err := size(row["lv_size"])
			if err != nil {
				return nil, err
			}
			list = append(list, LV{Group: row["vg_name"], Name: row["lv_name"], Size: n, Active: row["lv_active"] == "active", New: slices.Contains(strings.Split(row["lv_tags"], ","), newTag)})
		}
	}
	return list, nil
}

// do runs a verb that changes something.
func (t Tool) do(ctx context.Context, verb string, args ...string) error {
	if _, err := t.lvm(ctx, verb, args...); err != nil {
		return fmt.Errorf("%s %s: %w", verb, strings.Join(args, " "), err)
	}
	return nil
}

// CreatePV makes a device a physical volume whose data begin at head.
func (t Tool) CreatePV(ctx context.Context, device string, head storage.Bytes) error {
	return t.do(ctx, "pvcreate", "--yes", "--zero", "y", "--dataalignment", bytes(head), "--dataalignmentoffset", "0", device)
}

// ResizePV takes the device's size.
func (t Tool) ResizePV(ctx context.Context, device string) error {
	return t.do(ctx, "pvresize", device)
}

// CreateGroup makes a volume group of one device.
func (t Tool) CreateGroup(ctx context.Context, group, device string, extent storage.Bytes) error {
	return t.do(ctx, "vgcreate", "--physicalextentsize", bytes(extent), group, device)
}

// ExtendGroup adds a device.
func (t Tool) ExtendGroup(ctx context.Context, group, device string) error {
	return t.do(ctx, "vgextend", group, device)
}

// newTag marks a volume on which old signatures may still lie.
const newTag = "holdfast.new"

// CreateVolume makes a volume of exactly a size. Signatures that lie there are wiped, but for a crash in between: the volume is
// LV.New until it is Cleared.
func (t Tool) CreateVolume(ctx context.Context, group, name string, size storage.Bytes) error {
	return t.do(ctx, "lvcreate", "--yes", "--wipesignatures", "y", "--addtag", newTag, "--size", bytes(size), "--name", name, group)
}

// Cleared says that nothing old lies on a volume any more.
func (t Tool) Cleared(ctx context.Context, group, name string) error {
	return t.do(ctx, "lvchange", "--deltag", newTag, group+"/"+name)
}

// ExtendVolume grows a volume to exactly a size.
func (t Tool) ExtendVolume(ctx context.Context, group, name string, size storage.Bytes) error {
	return t.do(ctx, "lvextend", "--size", bytes(size), group+"/"+name)
}

// Activate brings a group's volumes up.
func (t Tool) Activate(ctx context.Context, group string) error {
	return t.do(ctx, "vgchange", "--activate", "y", group)
}

// Deactivate takes a group's volumes down.
func (t Tool) Deactivate(ctx context.Context, group string) error {
	return t.do(ctx, "vgchange", "--activate", "n", group)
}

func bytes(b storage.Bytes) string { return strconv.FormatInt(int64(b), 10) + "b" }
