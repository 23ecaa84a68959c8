// Package kms wraps the keys of encrypted volumes. Each volume has a key of its own, made at
// random; what is kept of it (in the volume's record and in the image's metadata) is only
// that key wrapped by a key-encryption key, which is in a Secret of the call or in a file. It
// knows nothing of volumes.
package kms

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Default is the KMS of volumes whose class names none: the passphrase in the call's secrets.
const Default = "secret"

// Names of the secrets that hold passphrases, by ceph-csi's name. Old is tried when a key
// does not open with the first, so that a passphrase can be changed.
const (
	Passphrase    = "encryptionPassphrase"
	OldPassphrase = "encryptionPassphraseOld"
)

// ImageMetadata is the key of an image's metadata under which its wrapped key is, in JSON.
const ImageMetadata = "holdfast.encryption"

// Wrapped is a volume's key as it may be stored.
type Wrapped struct {
	KMS string `json:"kms"`
	Key string `json:"key"`
}

// Backend wraps keys. Its errors carry classes of package fault, and never a key.
type Backend interface {
	Wrap(ctx context.Context, key storage.Secret) (string, error)
	// Unwrap fails with fault.Denied when the backend's key does not open it.
	Unwrap(ctx context.Context, wrapped string) (storage.Secret, error)
}

// Config are the KMS there are beside Default, by id.
type Config map[string]entry

type entry struct {
	Type string `json:"type"` // "file"
	Path string `json:"path"` // of the file with the passphrase
}

// Load reads a config file: {"ID": {"type": "file", "path": "/etc/holdfast/kms/passphrase"}}.
// No path is no config.
func Load(path string) (Config, error) {
	if path == "" {
		return Config{}, nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the KMS config: %w", err)
	}
	return Parse(data)
}

// Parse reads a config: fault.Invalid for what it does not know.
func Parse(data []byte) (Config, error) {
	var c Config
	if err := json.Unmarshal(data, &c); err != nil {
		return nil, fault.New(fault.Invalid, "KMS config is not a JSON object of entries: %v", err)
	}
	for id, e := range c {
		switch {
		case id == "" || id == Default:
			return nil, fault.New(fault.Invalid, "KMS config: the id %q is taken: it is the passphrase in the call's secrets", id)
		case e.Type != "file":
			return nil, fault.New(fault.Invalid, "KMS config: %q has type %q; there is \"file\"", id, e.Type)
		case e.Path == "":
			return nil, fault.New(fault.Invalid, "KMS config: %q names no path", id)
		}
	}
	return c, nil
}

// Keyring are the KMS that one call can use.
type Keyring struct {
	config  Config
	secrets map[string]string
}

// Keyring returns the KMS of the config, with the secrets of a call.
func (c Config) Keyring(secrets map[string]string) Keyring { return Keyring{c, secrets} }

// Knows reports whether id names a KMS: fault.Invalid with those there are.
func (c Config) Knows(id string) error {
	if _, ok := c[id]; ok || id == Default {
		return nil
	}
	known := append(slices.Sorted(maps.Keys(c)), Default)
	return fault.New(fault.Invalid, "parameter \"encryptionKMSID\": there is no KMS %q; there are: %s", id, strings.Join(known, ", "))
}

// Wrap wraps a key by the KMS with the id ("" is Default).
func (k Keyring) Wrap(ctx context.Context, id string, key storage.Secret) (Wrapped, error) {
	if id == "" {
		id = Default
	}
	list, err := k.backends(id)
	if err != nil {
		return Wrapped{}, err
	}
	text, err := list[0].Wrap(ctx, key)
	if err != nil {
		return Wrapped{}, fmt.Errorf("wrap the volume's key by KMS %q: %w", id, err)
	}
	return Wrapped{id, text}, nil
}

// Unwrap returns the key. fault.Denied says what is lost and what can be tried.
func (k Keyring) Unwrap(ctx context.Context, w Wrapped) (storage.Secret, error) {
	list, err := k.backends(w.KMS)
	if err != nil {
		return storage.Secret{}, err
	}
	for _, b := range list {
		var key storage.Secret
		if key, err = b.Unwrap(ctx, w.Key); err == nil {
			return key, nil
		}
		if !errors.Is(err, fault.Denied) {
			return storage.Secret{}, fmt.Errorf("unwrap the volume's key by KMS %q: %w", w.KMS, err)
		}
	}
	return storage.Secret{}, fault.New(fault.Denied, "the volume's key was wrapped by KMS %q with another passphrase than it has now (%v). "+
		"Without the old passphrase the data is lost: Holdfast keeps no other copy of the key. Look for it in backups of the Secret or file and put it beside the new one, in the Secret as %q or in a file named like the other with %q added, or give back the old value",
		w.KMS, err, OldPassphrase, oldSuffix)
}

// backends returns the ways to use a KMS, that for new keys first.
func (k Keyring) backends(id string) ([]Backend, error) {
	if id == Default {
		var list []Backend
		for _, name := range []string{Passphrase, OldPassphrase} {
			if value := k.secrets[name]; value != "" {
				list = append(list, passphrase{storage.NewSecret(value)})
			}
		}
		if k.secrets[Passphrase] == "" {
			return nil, fault.New(fault.Denied, "the secrets of the call hold no %q, which encrypted volumes need (StorageClass: provisioner-secret and node-stage-secret)", Passphrase)
		}
		return list, nil
	}
	if err := k.config.Knows(id); err != nil {
		return nil, err
	}
	path := k.config[id].Path
	value, err := readPassphrase(path)
	if err != nil {
		return nil, fault.As(fault.Unavailable, fmt.Errorf("read the passphrase of KMS %q: %w", id, err))
	}
	if value == "" {
		return nil, fault.New(fault.Precondition, "the passphrase file of KMS %q is empty: %s", id, path)
	}
	list := []Backend{passphrase{storage.NewSecret(value)}}
	if old, err := readPassphrase(path + oldSuffix); err == nil && old != "" {
		list = append(list, passphrase{storage.NewSecret(old)})
	}
	return list, nil
}

// oldSuffix is added to a passphrase file's name for the one that was valid before.
const oldSuffix = ".old"

func readPassphrase(path string) (string, error) {
	data, err := os.ReadFile(path)
	return strings.TrimRight(string(data), "\r\n"), err
}
