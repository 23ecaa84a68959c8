package standalone

import (
	"context"
	"fmt"
	"sort"
	"strings"

	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// cephReport is what is read of the monitors' answer to "status".
type cephReport struct {
	Health struct {
		Status string `json:"status"`
		Checks map[string]struct {
			Severity string `json:"severity"`
			Summary  struct {
				Message string `json:"message"`
			} `json:"summary"`
		} `json:"checks"`
	} `json:"health"`
	PGMap struct {
		ByState []struct {
			Name  string `json:"state_name"`
			Count int    `json:"count"`
		} `json:"pgs_by_state"`
		PGs   int   `json:"num_pgs"`
		Used  int64 `json:"bytes_used"`
		Avail int64 `json:"bytes_avail"`
		Total int64 `json:"bytes_total"`
	} `json:"pgmap"`
	FSMap struct {
		ByRank []struct {
			Status string `json:"status"`
		} `json:"by_rank"`
	} `json:"fsmap"`
	MgrMap struct {
		Available bool `json:"available"`
	} `json:"mgrmap"`
}

func (s *Supervisor) cephReport(ctx context.Context) (*cephReport, error) {
	var r cephReport
	if err := s.monJSON(ctx, "status", nil, &r); err != nil {
		return nil, err
	}
	return &r, nil
}

func (r *cephReport) mdsActive() bool {
	for _, rank := range r.FSMap.ByRank {
		if rank.Status == "up:active" {
			return true
		}
	}
	return false
}

// settled: Ceph is content, and not for want of knowing: new placement groups are no
// reason for a warning until a minute has passed.
func (r *cephReport) settled() bool {
	clean := 0
	for _, p := range r.PGMap.ByState {
		if strings.HasPrefix(p.Name, "active+clean") { // scrubbing may follow
			clean += p.Count
		}
	}
	return r.Health.Status == "HEALTH_OK" && r.MgrMap.Available && clean == r.PGMap.PGs && clean > 0
}

// summary puts Ceph's checks into an error.
func (r *cephReport) summary() error {
	var texts []string
	for code, check := range r.Health.Checks {
		texts = append(texts, code+" ("+check.Summary.Message+")")
	}
	sort.Strings(texts)
	for _, p := range r.PGMap.ByState {
		texts = append(texts, fmt.Sprintf("%d placement groups %s", p.Count, p.Name))
	}
	return fault.New(fault.Unavailable, "%s: %s", r.Health.Status, strings.Join(texts, "; "))
}

// osdMap is what is read of the answer to "osd dump".
type osdMap struct {
	Epoch int `json:"epoch"`
	OSDs  []struct {
		ID     int `json:"osd"`
		Up     int `json:"up"`
		In     int `json:"in"`
		UpFrom int `json:"up_from"`
	} `json:"osds"`
	Pools []struct {
		ID      int64  `json:"pool"`
		Name    string `json:"pool_name"`
		Size    int    `json:"size"`
		MinSize int    `json:"min_size"`
	} `json:"pools"`
}
