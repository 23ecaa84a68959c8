package standalone

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/daemon"
	"github.com/holdfast-storage/holdfast/pkg/durable"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// keysMade: the boot keyring is written last, from all the others.
func (s *Supervisor) keysMade(context.Context) (bool, error) {
	_, err := os.Stat(s.paths.BootKeyring())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// makeKeys makes a key for every entity, or reads the one that an earlier attempt left,
// and puts them all with their capabilities into the monitors' first keyring.
func (s *Supervisor) makeKeys(context.Context) error {
	if err := os.MkdirAll(s.paths.Keys(), 0o700); err != nil {
		return fmt.Errorf("make directory for keys: %w", err)
	}
	entities := daemon.Entities(s.state.daemons())
	for i, e := range entities {
		key, err := s.readKey(e.Name)
		if errors.Is(err, fault.NotFound) {
			if key, err = daemon.NewKey(rand.Reader, time.Now()); err != nil {
				return err
			}
			err = durable.WriteFile(s.paths.Keyring(e.Name), daemon.EncodeKeyring(daemon.Entity{Name: e.Name, Key: key}), 0o600)
		}
		if err != nil {
			return err
		}
		entities[i].Key = key
	}
	// the monitors share one key; each looks for it under its own name
	for _, m := range s.config.Monitors {
		if err := durable.WriteFile(s.paths.Keyring(m.Ref.Name()), daemon.EncodeKeyring(daemon.Entity{Name: "mon.", Key: entities[0].Key}), 0o600); err != nil {
			return err
		}
	}
	return durable.WriteFile(s.paths.BootKeyring(), daemon.EncodeKeyring(entities...), 0o600)
}

func (s *Supervisor) readKey(entity string) (storage.Secret, error) {
	data, err := os.ReadFile(s.paths.Keyring(entity))
	if errors.Is(err, fs.ErrNotExist) {
		return storage.Secret{}, fault.New(fault.NotFound, "there is no key of %s", entity)
	}
	if err != nil {
		return storage.Secret{}, fmt.Errorf("read key of %s: %w", entity, err)
	}
	return daemon.ParseKeyring(data, entity)
}

// passphrase returns what the keys of encrypted volumes are wrapped by, made by the first call.
// Without the file the volumes cannot be opened.
func (s *Supervisor) passphrase() (storage.Secret, error) {
	path := filepath.Join(s.paths.Keys(), "encryption.passphrase")
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		data = []byte(rand.Text())
		err = writeIfChanged(path, data, 0o600)
	}
	if err != nil {
		return storage.Secret{}, fmt.Errorf("passphrase of encrypted volumes: %w", err)
	}
	return storage.NewSecret(string(data)), nil
}
