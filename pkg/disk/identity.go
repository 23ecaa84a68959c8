package disk

import (
	"cmp"
	"regexp"
	"strings"

	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// identify reads what the disk says of itself. The files are the kernel's ABI
// (Documentation/ABI/testing/sysfs-block-device, sysfs-class-nvme, sysfs-devices-mmc); udev is
// not needed.
func (f *facts) identify(d *directory) {
	switch {
	case f.driver == "": // a path of a multipath NVMe device has its identity, too
		return
	case f.volume != "":
		f.ID = storage.VolumeDisk(f.volume)
		return
	case strings.HasPrefix(f.Name, "nvme"):
		f.WWN, f.Serial, f.Model = f.ask(d, "wwid"), f.ask(d, "device/serial"), f.ask(d, "device/model")
	case strings.HasPrefix(f.Name, "vd"), strings.HasPrefix(f.Name, "xvd"):
		f.Serial = f.ask(d, "serial")
	case strings.HasPrefix(f.Name, "mmcblk"):
		f.WWN, f.Serial, f.Model = f.ask(d, "device/cid"), f.ask(d, "device/serial"), f.ask(d, "device/name")
	case f.driver == "sd":
		f.identifySCSI(d)
	default: // asked for by its path: a loop device, or a disk of User Mode Linux
		f.Serial = cmp.Or(f.ask(d, "loop/backing_file"), f.ask(d, "device/serial"), f.ask(d, "serial"))
	}
	f.WWN, f.Serial = meaningful(f.WWN), meaningful(f.Serial)
	f.ID = idOf(f.Disk)
}

func (f *facts) identifySCSI(d *directory) {
	f.WWN, f.Vendor, f.Model, f.scsiType = f.ask(d, "device/wwid"), f.ask(d, "device/vendor"), f.ask(d, "device/model"), f.ask(d, "device/type")
	// The page of the unit's serial number: four bytes of header (SPC-4, 7.8.13).
	page, err := d.raw("device/vpd_pg80")
	switch {
	case err == nil && len(page) > 4:
		f.Serial = oneBlank(string(page[4:]))
	case err != nil && !absent(err):
		f.unanswered = append(f.unanswered, err.Error())
	}
}

// ask reads a file that may be missing; another error means that the disk cannot be told.
func (f *facts) ask(d *directory, name string) string {
	text, err := d.optional(name)
	if err != nil {
		f.unanswered = append(f.unanswered, err.Error())
	}
	return oneBlank(text)
}

func oneBlank(s string) string {
	return strings.Join(strings.FieldsFunc(strings.ToValidUTF8(s, "?"), func(r rune) bool { return r <= ' ' }), " ")
}

// meaningless are identities that tell nothing: all zeros, as some firmware has them, or what C prints of none.
var meaningless = regexp.MustCompile(`^\(null\)$|^(naa\.|eui\.|nvme\.|uuid\.|0x)?[0-]*$`)

func meaningful(id string) string {
	if meaningless.MatchString(id) {
		return ""
	}
	return id
}

func idOf(d storage.Disk) storage.DiskID {
	switch {
	case d.WWN != "":
		return storage.DiskID(strings.ReplaceAll(d.WWN, " ", "_"))
	case d.Serial != "":
		return storage.DiskID("serial." + strings.ReplaceAll(strings.Trim(oneBlank(d.Vendor+" "+d.Model+" "+d.Serial), " "), " ", "_"))
	default:
		return ""
	}
}

// buses are told by the device's place in sysfs, the innermost first.
var buses = []struct{ part, bus string }{
	{"/usb", "usb"}, {"/nvme", "nvme"}, {"/virtio", "virtio"}, {"/mmc_host/", "mmc"}, {"/session", "iscsi"}, {"/rport-", "fc"},
	{"/end_device-", "sas"}, {"/ata", "sata"}, {"/vmbus", "hyperv"}, {"/vbd-", "xen"}, {"/tcm_loop", "loopback"}, {"/host", "scsi"}, {"/virtual/", "virtual"},
}

func busOf(place string) string {
	for _, b := range buses {
		if strings.Contains(place, b.part) {
			return b.bus
		}
	}
	return ""
}
