// Package attach brings a volume to a node: an RBD image as a block device (by krbd,
// or by qemu-storage-daemon's FUSE export under a loop device), a CephFS directory as
// a mount (by the kernel, or by ceph-fuse). Which of them a node can do is found out
// by looking, see Choose.
//
// Invariant: what is attached is found again without this process's memory (in sysfs,
// in the loop device's own tag, in the keeper's state files), so a restart loses
// nothing and every call may be repeated. It must not import a CSI service.
package attach

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/holdfast-storage/holdfast/csi/luks"
	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// The ways to attach, as the StorageClass parameter "mounter" names them.
const (
	Auto      = "auto"
	Krbd      = "krbd"
	FuseLoop  = "fuse-loop"
	KernelFS  = "kernel"
	UserFS    = "fuse"
	tagPrefix = "holdfast:"
)

// Image says which RBD image is wanted and how.
type Image struct {
	Volume      string // the volume's handle: the identity of the attachment
	FSID        string // of the cluster, so that equal names in two clusters differ
	Endpoint    ceph.Endpoint
	Credentials ceph.Credentials
	Pool        string
	Namespace   string
	Name        string
	Features    []string // as Ceph names them; what the kernel lacks goes to fuse-loop
	ReadOnly    bool
	Passphrase  storage.Secret // of an encrypted image; empty for others
	Mounter     string         // Krbd, FuseLoop or Auto ("" is Auto)
	MapOptions  string         // krbd's, comma separated
	UnmapOption string
}

// Device is an attached image. It holds no secrets and is stored in the node's state.
type Device struct {
	Mounter     string `json:"mounter"`
	Volume      string `json:"volume"`
	Path        string `json:"path"` // the device node: /dev/rbd0, /dev/loop3
	FSID        string `json:"fsid"`
	Pool        string `json:"pool"`
	Namespace   string `json:"namespace,omitempty"`
	Image       string `json:"image"`
	ReadOnly    bool   `json:"readOnly,omitempty"`
	UnmapOption string `json:"unmapOption,omitempty"`
	// Encrypted: the device shows what is behind the header of the image.
	Encrypted bool `json:"encrypted,omitempty"`
	// Mapped is the kernel's device of an encrypted image, of which Path shows the content.
	Mapped string `json:"mapped,omitempty"`
}

// header is what stands before the data in the image.
func (d Device) header() storage.Bytes {
	if d.Encrypted {
		return luks.HeaderSize
	}
	return 0
}

// Data returns how much of an image of size bytes the device shows.
func (d Device) Data(size storage.Bytes) storage.Bytes { return size - d.header() }

// ImageSize returns how large the image is under a device of size bytes.
func (d Device) ImageSize(size storage.Bytes) storage.Bytes { return size + d.header() }

// Beneath returns the device, and the byte in it where the data begins, on which data that was
// never written reads as zeros: dm-crypt shows noise for it.
func (d Device) Beneath() (path string, from int64) {
	if d.Mapped != "" {
		return d.Mapped, int64(d.header())
	}
	return d.Path, 0
}

// mapped returns the device that the kernel's rbd made.
func (d Device) mapped() Device {
	if d.Mapped != "" {
		d.Path = d.Mapped
	}
	return d
}

// Directory says which directory of which CephFS file system is wanted and how.
type Directory struct {
	Cluster       ceph.Cluster // to fence what a dead helper left; may be nil
	Volume        string
	FSID          string
	Endpoint      ceph.Endpoint
	Credentials   ceph.Credentials
	Filesystem    string
	Path          string // from the root of the file system
	ReadOnly      bool
	Mounter       string // KernelFS, UserFS or Auto ("" is Auto)
	KernelOptions string // comma separated
	FuseOptions   string
	Options       []string // mount flags of the volume capability
}

// Mount is a mounted directory. It holds no secrets and is stored in the node's state.
type Mount struct {
	Mounter string `json:"mounter"`
	Volume  string `json:"volume"`
	Target  string `json:"target"`
}

// Config wires the attachers.
type Config struct {
	Socket string         // of the attach daemon; empty: no user-space attachers
	Runner command.Runner // for modprobe
	Log    *slog.Logger
}

// ID names a volume's attachment in the keeper, in state files and in the loop
// device's tag: 16 hex digits of SHA-256.
func ID(volume string) string {
	sum := sha256.Sum256([]byte(volume))
	return hex.EncodeToString(sum[:8])
}

// ErrLost marks what Check says of an attachment that is gone for good: it is of no
// use to anybody and the volume must be staged again. An error without it means that
// nothing is known, for example because the attach daemon does not answer just now.
var ErrLost = errors.New("attachment lost")

// lostError is of the classes ErrLost and fault.Unavailable.
type lostError struct{ text string }

func (e *lostError) Error() string   { return e.text }
func (e *lostError) Unwrap() []error { return []error{ErrLost, fault.Unavailable} }

// Lost returns an error that says so; the advice to stage again is added.
func Lost(format string, args ...any) error {
	return &lostError{text: fmt.Sprintf(format, args...) + "; the volume must be staged again"}
}

// pollEvery is how often a condition is looked at that nobody announces.
const pollEvery = 50 * time.Millisecond
