package native

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// decodeSubvolumeInfo reads the answer to `fs subvolume info`.
func decodeSubvolumeInfo(out []byte) (ceph.SubvolumeInfo, error) {
	var answer struct {
		Path     string          `json:"path"`
		Quota    json.RawMessage `json:"bytes_quota"` // a number, or "infinite"
		Used     int64           `json:"bytes_used"`
		DataPool string          `json:"data_pool"`
		State    string          `json:"state"`
	}
	if err := json.Unmarshal(out, &answer); err != nil {
		return ceph.SubvolumeInfo{}, fmt.Errorf("decode subvolume info: %w", err)
	}
	quota, err := strconv.ParseInt(string(answer.Quota), 10, 64)
	if err != nil {
		quota = 0
	}
	return ceph.SubvolumeInfo{
		Path: answer.Path, Quota: storage.Bytes(max(quota, 0)), Used: storage.Bytes(max(answer.Used, 0)),
		DataPool: answer.DataPool, State: answer.State,
	}, nil
}

// decodeCloneStatus reads the answer to `fs clone status`. Squid adds a progress report
// whose percentage is a text such as "12.34%" (Ceph's doc/cephfs/fs-volumes.rst).
func decodeCloneStatus(out []byte) (ceph.CloneStatus, error) {
	var answer struct {
		Status struct {
			State   string `json:"state"`
			Failure struct {
				Reason json.RawMessage `json:"error_msg"`
				Errno  json.RawMessage `json:"errno"`
			} `json:"failure"`
			Progress struct {
				Percent json.RawMessage `json:"percentage cloned"`
			} `json:"progress_report"`
		} `json:"status"`
	}
	if err := json.Unmarshal(out, &answer); err != nil {
		return ceph.CloneStatus{}, fmt.Errorf("decode clone status: %w", err)
	}
	state := ceph.CloneState(answer.Status.State)
	if state == "" {
		return ceph.CloneStatus{}, fmt.Errorf("decode clone status: no state in %q", out)
	}
	return ceph.CloneStatus{
		State: state, Percent: percent(answer.Status.Progress.Percent), Reason: plain(answer.Status.Failure.Reason),
	}, nil
}

// plain is a JSON text without its quotes, or another JSON value as it stands.
func plain(raw json.RawMessage) string {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return text
	}
	return string(bytes.TrimSpace(raw))
}

// percent reads 12, 12.34 or "12.34%"; -1 for anything else.
func percent(raw json.RawMessage) int {
	f, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(plain(raw)), "%"), 64)
	if err != nil || !(f >= 0 && f <= 100) {
		return -1
	}
	return int(f)
}

// decodePendingClones reads who copies the snapshot that `fs subvolume snapshot info`
// answers about.
func decodePendingClones(out []byte) ([]string, error) {
	var answer struct {
		Clones []struct {
			Name string `json:"name"`
		} `json:"pending_clones"`
	}
	if err := json.Unmarshal(out, &answer); err != nil {
		return nil, fmt.Errorf("decode snapshot info: %w", err)
	}
	names := make([]string, 0, len(answer.Clones))
	for _, c := range answer.Clones {
		names = append(names, c.Name)
	}
	return names, nil
}

// decodeNames reads [{"name": "a"}, ...], sorted.
func decodeNames(out []byte) ([]string, error) {
	var entries []struct {
		Name string `json:"name"`
	}
	if err := json.Unmarshal(out, &entries); err != nil {
		return nil, fmt.Errorf("decode list of names: %w", err)
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name)
	}
	slices.Sort(names)
	return names, nil
}
