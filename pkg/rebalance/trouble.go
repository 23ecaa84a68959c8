package rebalance

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
)

// full are the checks that forbid to move data, beside all errors.
var full = []string{"OSD_NEARFULL", "OSD_BACKFILLFULL", "OSD_FULL", "POOL_NEARFULL", "POOL_BACKFILLFULL"}

// Trouble is why no further wave may begin, "" for nothing: the cluster's health is an error, an OSD is nearly full, or more than a part of
// the copies are missing, from 0 to 1. What a wave itself moves is misplaced, not missing.
func Trouble(ctx context.Context, c ceph.Cluster, degraded float64) (string, error) {
	now, err := ceph.LookAtPGs(ctx, c)
	if err != nil {
		return "", err
	}
	return trouble(ctx, c, now, degraded)
}

// trouble is that of a cluster whose PGs are so.
func trouble(ctx context.Context, c ceph.Cluster, now ceph.PGs, degraded float64) (string, error) {
	data, err := c.Mon(ctx, map[string]any{"prefix": "health"}, nil)
	if err != nil {
		return "", err
	}
	var health struct {
		Status string                     `json:"status"`
		Checks map[string]json.RawMessage `json:"checks"`
	}
	if err := json.Unmarshal(data, &health); err != nil {
		return "", fmt.Errorf("read health from %.200q: %w", data, err)
	}
	names := slices.Sorted(maps.Keys(health.Checks))
	if health.Status == "HEALTH_ERR" {
		return "HEALTH_ERR: " + strings.Join(names, ", "), nil
	}
	for _, name := range names {
		if slices.Contains(full, name) {
			return name, nil
		}
	}
	if now.Degraded > 0 && now.Lacking > degraded {
		return fmt.Sprintf("%d objects lack copies", now.Degraded), nil
	}
	return "", nil
}
