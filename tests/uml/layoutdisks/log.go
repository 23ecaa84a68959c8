package layoutdisks

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// logged is the device whose writes are logged.
const logged = "logged"

// OpenLog has all writes to a device go to a log on another, in the order in which they came to be stable (dm-log-writes), and returns the device to
// write to.
func OpenLog(device, log string, size storage.Bytes) (string, error) {
	return "/dev/mapper/" + logged, dmsetup("create", logged, "--table", fmt.Sprintf("0 %d log-writes %s %s", size/512, device, log))
}

// AddSlice makes a disk of a part of a device. All disks of one log are parts of one device: so the log has one order.
func (d *Disks) AddSlice(id plan.DiskID, device string, size storage.Bytes) error {
	var start storage.Bytes
	for _, one := range d.list {
		start += one.size
	}
	if err := d.addPart(id, device, start, size); err != nil {
		return err
	}
	return d.caches(id)
}

// Layout of device-mapper's requests (linux/dm-ioctl.h): struct dm_ioctl, then struct dm_target_msg.
const (
	dmTargetMsg = 0xc138fd0e // _IOWR(0xfd, 14, struct dm_ioctl)
	dmHeader    = 312
	dmName      = 48
)

// Mark writes a mark to the log: whatever is in the log before it had been flushed when Mark was called. A program of its own for each would take longer
// than what is marked.
func Mark(text string) error {
	control, err := os.OpenFile("/dev/mapper/control", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	message := append([]byte("mark "+text), 0)
	request := make([]byte, dmHeader+8+len(message))
	for i, n := range []uint32{4, 0, 0, uint32(len(request)), dmHeader} { // version, size, where the data start
		binary.LittleEndian.PutUint32(request[4*i:], n)
	}
	copy(request[dmName:], logged)
	copy(request[dmHeader+8:], message) // to the target at sector 0
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, control.Fd(), dmTargetMsg, uintptr(unsafe.Pointer(unsafe.SliceData(request))))
	if errno != 0 {
		err = fmt.Errorf("mark %q: %w", bytes.TrimRight(message, "\x00"), errno)
	}
	return errors.Join(err, control.Close())
}
