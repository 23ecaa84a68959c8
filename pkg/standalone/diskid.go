package standalone

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// A by-path name is a place, and what is plugged in there may change. A disk that was
// chosen is therefore remembered by what it says of itself, too.

// identitySources are where the kernel tells a disk's identity, below its directory in
// sysfs, the best first: the world-wide id of NVMe and SCSI (Documentation/ABI), eMMC's
// register, the serial number of virtio and of the controller behind the disk.
var identitySources = [...]string{"wwid", "device/wwid", "device/cid", "serial", "device/serial"}

// udevSource marks an identity that comes from udev's database.
const udevSource = "udev"

// udevData is udev's database; an entry's "E:" lines are its properties.
const udevData = "/run/udev/data"

// identity returns "source=value", or "" for a disk that has nothing to tell it by.
func (d disk) identity() string {
	for _, source := range identitySources {
		if value := d.identityFrom(source); value != "" {
			return source + "=" + value
		}
	}
	if value := d.identityFrom(udevSource); value != "" {
		return udevSource + "=" + value
	}
	return ""
}

func (d disk) identityFrom(source string) string {
	if source != udevSource {
		data, err := os.ReadFile(filepath.Join(d.sys, source))
		if err != nil {
			return ""
		}
		return strings.Join(strings.Fields(string(data)), " ")
	}
	data, err := os.ReadFile(fmt.Sprintf("%s/b%d:%d", udevData, unix.Major(d.num), unix.Minor(d.num)))
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(line, "E:ID_SERIAL="); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// checkIdentity refuses another disk than the one that was chosen. The source of then is
// asked again: a later kernel may have a better one first.
func (d disk) checkIdentity(chosen string) error {
	source, value, told := strings.Cut(chosen, "=")
	if !told {
		return nil
	}
	if now := d.identityFrom(source); now != value {
		return fault.New(fault.Precondition, "--disk %s (%s) is another disk than the one that was chosen: its %s is %q, and was %q; nothing was written to it. Put the old one back, or remove this unfinished cluster (holdfast down --wipe) and begin again", d.name, d.dev, source, now, value)
	}
	return nil
}
