// Package luks makes and opens LUKS2 volumes by cryptsetup(8). A header has a fixed size and
// layout, so that the kernel's dm-crypt and librbd's own decryption read the same image.
package luks

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// HeaderSize is what the header takes at the beginning of an image. The data behind it begins
// at an object of Ceph's default size.
const HeaderSize = 4 * storage.MiB

const (
	sectorsOfHeader = int64(HeaderSize) / 512
	written         = 1 << 20 // what of the header holds anything: two copies of the metadata and one key slot
)

// Header returns the beginning of an image that opens with key, which is random and long, so
// that stretching it would gain nothing. The rest of the HeaderSize bytes is zeros. Each call
// makes another header: data written under one cannot be read under the next.
func Header(ctx context.Context, run command.Runner, key storage.Secret) ([]byte, error) {
	dir, err := os.MkdirTemp("", "holdfast-luks")
	if err != nil {
		return nil, fmt.Errorf("make a directory: %w", err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "header")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return nil, fmt.Errorf("make a file: %w", err)
	}
	if err := os.Truncate(path, int64(HeaderSize)+int64(storage.MiB)); err != nil {
		return nil, fmt.Errorf("make a file: %w", err)
	}
	err = cryptsetup(ctx, run, key, "luksFormat", "--type", "luks2", "--batch-mode", "--cipher", "aes-xts-plain64", "--key-size", "512",
		"--sector-size", "4096", "--luks2-metadata-size", "16k", "--luks2-keyslots-size", "512k", "--offset", strconv.FormatInt(sectorsOfHeader, 10),
		"--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file", "-", path)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the header: %w", err)
	}
	return data[:written], nil
}

// Name is what the opened device of an attachment is called below /dev/mapper.
func Name(id string) string { return "holdfast-" + id }

// Path is where the opened device is.
func Path(id string) string { return filepath.Join("/dev/mapper", Name(id)) }

// Opened reports whether the device is open.
func Opened(id string) bool {
	_, err := os.Stat(Path(id))
	return err == nil
}

// Open makes the data of device readable as Path(id). One that is open stays. It needs
// dm-crypt: fault.Unsupported without.
func Open(ctx context.Context, run command.Runner, device, id string, key storage.Secret, readOnly bool) error {
	if Opened(id) {
		return nil
	}
	args := []string{"open", "--type", "luks2", "--batch-mode", "--disable-keyring", "--key-file", "-", "--allow-discards", device, Name(id)}
	if readOnly {
		args = append(args, "--readonly")
	}
	return cryptsetup(ctx, run, key, args...)
}

// Close ends it: fault.Busy while somebody uses it. One that is not open is closed.
func Close(ctx context.Context, run command.Runner, id string) error {
	if !Opened(id) {
		return nil
	}
	return cryptsetup(ctx, run, storage.Secret{}, "close", Name(id))
}

// Grow makes the opened device as large as what it stands on.
func Grow(ctx context.Context, run command.Runner, id string) error {
	return cryptsetup(ctx, run, storage.Secret{}, "resize", "--batch-mode", "--disable-keyring", Name(id))
}

// Exit codes of cryptsetup(8), "RETURN CODES".
const (
	noPermission = 2 // a wrong passphrase
	busy         = 5
)

func cryptsetup(ctx context.Context, run command.Runner, key storage.Secret, args ...string) error {
	_, err := run.Run(ctx, command.Cmd{Name: "cryptsetup", Args: args, Stdin: strings.NewReader(key.Reveal())})
	var exit *command.ExitError
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &exit):
		return fault.As(fault.Unsupported, fmt.Errorf("encrypted volumes need cryptsetup (apt-get install cryptsetup-bin): %w", err))
	case exit.Code == noPermission:
		return fault.New(fault.Denied, "the image's encryption does not open with the volume's key: its first 4 MiB, which hold the header, are damaged or of another volume; a snapshot may hold them whole")
	case exit.Code == busy:
		return fault.As(fault.Busy, err)
	default:
		return fmt.Errorf("encryption: %w", err)
	}
}
