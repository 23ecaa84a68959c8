package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// state is what has been made outside the state directory and must be taken away again. It is on
// disk before the thing counts as made.
type state struct {
	mu   sync.Mutex
	path string
	Data stateData
}

type stateData struct {
	Namespaces []string  `json:"namespaces,omitempty"`
	Ceph       bool      `json:"ceph,omitempty"`
	Processes  []process `json:"processes,omitempty"`
	Cgroups    []string  `json:"cgroups,omitempty"`
}

func loadState(path string) (*state, error) {
	s := &state{path: path}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read cluster state: %w", err)
	}
	if err := json.Unmarshal(data, &s.Data); err != nil {
		return nil, fmt.Errorf("read cluster state %s: %w", path, err)
	}
	return s, nil
}

// update changes the state and writes it in one step.
func (s *state) update(change func(*stateData)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.Data)
	data, err := json.MarshalIndent(s.Data, "", "  ")
	if err != nil {
		return fmt.Errorf("encode cluster state: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(s.path), 0o755); err != nil {
		return fmt.Errorf("create state directory: %w", err)
	}
	if err := os.WriteFile(s.path+".new", data, 0o644); err != nil {
		return fmt.Errorf("write cluster state: %w", err)
	}
	if err := os.Rename(s.path+".new", s.path); err != nil {
		return fmt.Errorf("write cluster state: %w", err)
	}
	return nil
}

func (s *state) snapshot() stateData {
	s.mu.Lock()
	defer s.mu.Unlock()
	data := s.Data
	data.Namespaces, data.Processes, data.Cgroups = slices.Clone(data.Namespaces), slices.Clone(data.Processes), slices.Clone(data.Cgroups)
	return data
}
