package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/holdfast-storage/holdfast/csi/attach"
	"github.com/holdfast-storage/holdfast/pkg/durable"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// staged is what must be known of a staged volume when no secrets and no volume
// context are at hand. It holds no keys.
type staged struct {
	Volume    string               `json:"volume"`
	Boot      string               `json:"boot"` // of the machine; another one means: nothing of this is attached
	Cluster   storage.ClusterID    `json:"cluster"`
	Staging   string               `json:"staging"`
	Block     bool                 `json:"block,omitempty"`
	Mode      string               `json:"mode"` // access mode
	ReadOnly  bool                 `json:"readOnly,omitempty"`
	FS        string               `json:"fs,omitempty"`
	Device    *attach.Device       `json:"device,omitempty"` // RBD
	Mount     *attach.Mount        `json:"mount,omitempty"`  // CephFS
	Published map[string]published `json:"published,omitempty"`
}

// published is a target path of a staged volume.
type published struct {
	Mode     string `json:"mode"`
	ReadOnly bool   `json:"readOnly,omitempty"`
	Block    bool   `json:"block,omitempty"`
}

// mounter names the attacher, for logs and metrics.
func (v *staged) mounter() string {
	switch {
	case v.Device != nil:
		return v.Device.Mounter
	case v.Mount != nil:
		return v.Mount.Mounter
	}
	return ""
}

// store keeps one file a staged volume.
type store struct{ dir string }

func (s *store) path(volume string) string {
	return filepath.Join(s.dir, attach.ID(volume)+".json")
}

// load returns nil for a volume that is not there. A file that cannot be read as JSON
// counts as not there: it is what a crash of the machine left, and nothing is attached.
func (s *store) load(volume string) (*staged, error) {
	data, err := os.ReadFile(s.path(volume))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read state of volume: %w", err)
	}
	var v staged
	if err := json.Unmarshal(data, &v); err != nil || v.Volume != volume {
		return nil, nil
	}
	if v.Published == nil {
		v.Published = map[string]published{}
	}
	return &v, nil
}

// save replaces the file such that after a power cut it is the old or the new one.
func (s *store) save(v *staged) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encode state of volume: %w", err)
	}
	if err := durable.WriteFile(s.path(v.Volume), data, 0o600); err != nil {
		return fmt.Errorf("save state of volume: %w", err)
	}
	return nil
}

func (s *store) remove(volume string) error {
	if err := os.Remove(s.path(volume)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove state of volume: %w", err)
	}
	return durable.SyncDir(s.dir)
}
