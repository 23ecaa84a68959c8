package osd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/disk/signature"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// An encrypted OSD lies in a LUKS2 volume over the whole disk. Its header says in its label
// which OSD it is and in its subsystem of which cluster, so that it is known without its key;
// the key lies with the cluster.

// mapping is the name of the opened volume below /dev/mapper.
func mapping(uuid string) string { return signature.LabelOfOSD + uuid }

func mappedDevice(uuid string) string { return "/dev/mapper/" + mapping(uuid) }

// encrypted: the disk has the header of this very OSD.
func (n *Node) encrypted(ctx context.Context, r Request) (State, error) {
	d, err := n.Disks.Find(ctx, r.Disk)
	if err != nil {
		return Todo, err
	}
	osd := onDisk(d)
	switch {
	case osd != nil && osd.UUID == r.UUID && osd.Encrypted:
		return Done, nil
	case osd != nil:
		_, err := n.own(d)
		return Todo, errors.Join(err, fault.New(fault.Precondition, "disk %s carries %s", d.ID, osdName(*osd)))
	default:
		return Todo, nil
	}
}

func (n *Node) encrypt(ctx context.Context, r Request) error {
	d, file, err := n.Disks.Claim(ctx, r.Disk)
	if err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return fmt.Errorf("let go of the disk: %w", err)
	}
	key, err := n.luksKey(ctx, r.UUID)
	if err != nil {
		return err
	}
	// The key is random and long, so that stretching it would gain nothing.
	return n.cryptsetup(ctx, key, "luksFormat", "--type", "luks2", "--batch-mode", "--cipher", "aes-xts-plain64", "--key-size", "512",
		"--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--label", mapping(r.UUID), "--subsystem", signature.SubsystemOfOSD+n.FSID,
		"--key-file", "-", n.Disks.Path(d))
}

func (n *Node) luksKey(ctx context.Context, uuid string) (storage.Secret, error) {
	out, err := n.Cluster.Mon(ctx, map[string]any{"prefix": "config-key get", "key": "dm-crypt/osd/" + uuid + "/luks"}, nil)
	if err != nil {
		return storage.Secret{}, fmt.Errorf("fetch the encryption key of OSD %s: %w", uuid, err)
	}
	return storage.NewSecret(strings.TrimSpace(string(out))), nil
}

func (n *Node) cryptsetup(ctx context.Context, key storage.Secret, args ...string) error {
	_, err := n.Run.Run(ctx, command.Cmd{Name: "cryptsetup", Args: args, Stdin: strings.NewReader(key.Reveal()), Env: []string{"DM_DISABLE_UDEV=" + noUdev()}})
	return err
}

// noUdev tells device-mapper not to wait for a udev that is not there.
func noUdev() string {
	if _, err := os.Stat("/run/udev/control"); err != nil {
		return "1"
	}
	return ""
}

// inside returns the BlueStore label of the OSD on a disk and the device that it lies on: the
// disk, or the opened encryption, which it opens. fault.NotFound: there is none (yet); the
// device is returned all the same.
func (n *Node) inside(ctx context.Context, d storage.Disk) (storage.OSD, string, error) {
	osd := onDisk(d)
	switch {
	case osd == nil:
		return storage.OSD{}, n.Disks.Path(d), fault.New(fault.NotFound, "disk %s carries no OSD", d.ID)
	case !osd.Encrypted:
		return *osd, n.Disks.Path(d), nil
	}
	if _, err := n.own(d); err != nil {
		return storage.OSD{}, "", err
	}
	if err := n.openEncryption(ctx, d, osd.UUID); err != nil {
		return storage.OSD{}, "", err
	}
	device := mappedDevice(osd.UUID)
	label, err := readLabel(device)
	return label, device, err
}

func (n *Node) openEncryption(ctx context.Context, d storage.Disk, uuid string) error {
	if _, err := os.Stat(mappedDevice(uuid)); err == nil {
		return nil
	}
	key, err := n.luksKey(ctx, uuid)
	if err != nil {
		return err
	}
	return n.cryptsetup(ctx, key, "open", "--type", "luks2", "--key-file", "-", n.Disks.Path(d), mapping(uuid))
}

// closeEncryption is no error when it is closed.
func (n *Node) closeEncryption(ctx context.Context, uuid string) error {
	if _, err := os.Stat(mappedDevice(uuid)); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return n.cryptsetup(ctx, storage.NewSecret(""), "close", mapping(uuid))
}

// readLabel reads the label at the start of a device.
func readLabel(device string) (storage.OSD, error) {
	f, err := os.Open(device)
	if err != nil {
		return storage.OSD{}, fmt.Errorf("open %s: %w", device, err)
	}
	defer f.Close()
	head := make([]byte, signature.LabelSize)
	if _, err := io.ReadFull(f, head); err != nil {
		return storage.OSD{}, fmt.Errorf("read %s: %w", device, err)
	}
	content, ok := signature.ParseLabel(head)
	if !ok { // a fresh encryption decrypts zeros to noise
		return storage.OSD{}, fault.New(fault.NotFound, "%s carries no OSD", device)
	}
	return *content.OSD, nil
}
