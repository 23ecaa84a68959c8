package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Event says that a block device came, went or changed.
type Event struct {
	Action string // "add", "remove", "change", "move", "online", "offline", ...
	Name   string // of the whole disk; "" when events were lost and all disks must be looked at
}

// Uevents are the kernel's own messages about devices (netlink, group 1): udev is not needed.
type Uevents struct{ socket *os.File }

// receiveBuffer holds what comes while a scan runs; what does not fit is told as lost.
const receiveBuffer = 1 << 20

// OpenUevents begins to listen. It needs the host's network namespace to hear of its devices.
func OpenUevents() (*Uevents, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, fmt.Errorf("listen to kernel events: %w", err)
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer) // a smaller one loses events, which is told
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("listen to kernel events: %w", err)
	}
	return &Uevents{socket: os.NewFile(uintptr(fd), "uevents")}, nil
}

// Close ends listening; a waiting Next returns.
func (u *Uevents) Close() error { return u.socket.Close() }

// Next waits for the next event of a block device.
func (u *Uevents) Next(ctx context.Context) (Event, error) {
	stop := context.AfterFunc(ctx, func() { _ = u.socket.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	buf := make([]byte, 64<<10)
	for {
		n, err := u.socket.Read(buf)
		switch {
		case ctx.Err() != nil:
			return Event{}, ctx.Err()
		case errors.Is(err, unix.ENOBUFS):
			return Event{}, nil
		case err != nil:
			return Event{}, fmt.Errorf("listen to kernel events: %w", err)
		}
		if event, ok := parseUevent(buf[:n]); ok {
			return event, nil
		}
	}
}

// parseUevent reads a message of the kernel: "ACTION@PATH", then NAME=VALUE each, all ended
// by NUL (lib/kobject_uevent.c). ok is false for what is no block device.
func parseUevent(message []byte) (event Event, ok bool) {
	header, rest, _ := bytes.Cut(message, []byte{0})
	if !bytes.Contains(header, []byte("@")) {
		return event, false
	}
	values := map[string]string{}
	for _, pair := range bytes.Split(rest, []byte{0}) {
		key, value, _ := strings.Cut(string(pair), "=")
		values[key] = value
	}
	if values["SUBSYSTEM"] != "block" {
		return event, false
	}
	event.Action, event.Name = values["ACTION"], path.Base(values["DEVPATH"])
	if values["DEVTYPE"] == "partition" {
		event.Name = path.Base(path.Dir(values["DEVPATH"]))
	}
	return event, event.Action != "" && event.Name != "." && event.Name != "/"
}
