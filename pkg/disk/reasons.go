package disk

import (
	"fmt"
	"strings"

	"github.com/holdfast-storage/holdfast/pkg/disk/signature"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// reasons concludes from the facts why the disk is not free, the most telling first. It is
// pure. What concerns several disks at once is twins' work.
func reasons(f facts, minSize storage.Bytes, fsid string) []storage.Reason {
	var all []storage.Reason
	add := func(code storage.ReasonCode, format string, args ...any) {
		all = append(all, storage.Reason{Code: code, Message: fmt.Sprintf(format, args...)})
	}
	if f.driver == "" {
		add(storage.ReasonKind, "%s", f.why)
	}
	if f.scsiType != "" && f.scsiType != "0" && f.scsiType != "14" {
		add(storage.ReasonKind, "it is a SCSI device of type %s, and no disk", f.scsiType)
	}
	for _, c := range f.Contents {
		code, text := describe(c, fsid)
		add(code, "%s", text)
	}
	if len(f.Mounts) > 0 {
		add(storage.ReasonMounted, "mounted at %s", strings.Join(f.Mounts, ", "))
	}
	if len(f.swaps) > 0 {
		add(storage.ReasonSwap, "swap in use: %s", strings.Join(f.swaps, ", "))
	}
	if len(f.heldBy) > 0 {
		add(storage.ReasonHeld, "used by %s", strings.Join(f.heldBy, ", "))
	}
	if len(f.Slaves) > 0 && f.driver != "" && f.volume == "" {
		add(storage.ReasonKind, "it is made of %s", strings.Join(f.Slaves, ", "))
	}
	if len(f.Partitions) > 0 {
		add(storage.ReasonPartitions, "%s", describePartitions(f))
	}
	return append(all, nature(f, minSize)...)
}

// nature are the reasons that lie in the disk itself.
func nature(f facts, minSize storage.Bytes) []storage.Reason {
	var all []storage.Reason
	for _, r := range []struct {
		is   bool
		code storage.ReasonCode
		text string
	}{
		{f.hidden, storage.ReasonHidden, "it is one path of a multipath device"},
		{f.ReadOnly, storage.ReasonReadOnly, "it is read-only"},
		{f.Removable, storage.ReasonRemovable, "it is removable"},
		{f.zoned == "host-managed", storage.ReasonZoned, "its zones take no random writes"},
		{f.Size == 0 && f.driver != "", storage.ReasonSize, "it has no medium"},
		{f.Size > 0 && f.Size < minSize && f.driver != "" && f.volume == "", storage.ReasonSize, fmt.Sprintf("it has %s: at least %s are wanted", f.Size, minSize)},
		{f.ID == "" && f.driver != "", storage.ReasonNoIdentity, "it has neither a WWN nor a serial number, so it could not be told from another disk later"},
		{f.busy != "", storage.ReasonBusy, f.busy},
	} {
		if r.is {
			all = append(all, storage.Reason{Code: r.code, Message: r.text})
		}
	}
	for _, text := range f.unanswered {
		all = append(all, storage.Reason{Code: storage.ReasonUnknown, Message: "no answer: " + text})
	}
	return all
}

// describe says what a content means for the disk.
func describe(c storage.Content, fsid string) (storage.ReasonCode, string) {
	text := c.Kind
	if c.Label != "" {
		text += fmt.Sprintf(" %q", c.Label)
	}
	if c.Detail != "" {
		text += " (" + c.Detail + ")"
	}
	switch {
	case c.OSD != nil:
		return storage.ReasonCeph, describeOSD(c, fsid)
	case c.Kind == signature.GPT || c.Kind == signature.DOS:
		return storage.ReasonTable, fmt.Sprintf("partition table %s: %s", c.Kind, c.Detail)
	case c.Kind == signature.Data:
		return storage.ReasonData, fmt.Sprintf("data of an unknown kind at byte %d", c.Offset)
	case c.Offset >= 1<<20:
		return storage.ReasonContent, fmt.Sprintf("%s at byte %d", text, c.Offset)
	default:
		return storage.ReasonContent, text
	}
}

func describeOSD(c storage.Content, fsid string) string {
	text := signature.DescribeOSD(*c.OSD)
	if c.Detail != "" {
		text += " (" + c.Detail + ")"
	}
	switch {
	case fsid != "" && c.OSD.FSID == fsid:
		return text + ", which is this one"
	case fsid != "" && c.OSD.FSID != "":
		return text + ", which is a foreign one"
	default:
		return text
	}
}

// describePartitions tells phantoms from partitions: BlueStore's data can look like an Atari
// partition table to the kernel.
func describePartitions(f facts) string {
	names := make([]string, len(f.Partitions))
	for i, p := range f.Partitions {
		names[i] = p.Name
	}
	list := strings.Join(names, ", ")
	table, blueStore := false, false
	for _, c := range f.Contents {
		table = table || c.Kind == signature.GPT || c.Kind == signature.DOS
		blueStore = blueStore || c.Kind == signature.BlueStore
	}
	switch {
	case table:
		return "it has partitions: " + list
	case blueStore:
		return fmt.Sprintf("the kernel has partitions of it (%s) that no table explains: it took BlueStore's data for one", list)
	default:
		return fmt.Sprintf("the kernel has partitions of it (%s) that no table explains", list)
	}
}
