package standalone

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/rpc/localapi"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// look builds an observation of three OSDs, some up, from pairs of PG state and count.
func look(t *testing.T, up int, health string, pgs map[string]int) observation {
	t.Helper()
	seen := observation{at: time.Now(), hostFree: 100 * storage.GiB}
	if err := json.Unmarshal([]byte(health), &seen.report.Health); err != nil {
		t.Fatal(err)
	}
	for state, count := range pgs {
		seen.report.PGMap.ByState = append(seen.report.PGMap.ByState, struct {
			Name  string `json:"state_name"`
			Count int    `json:"count"`
		}{state, count})
		seen.report.PGMap.PGs += count
	}
	osds, _ := json.Marshal(map[string]any{"pools": []map[string]any{{"size": 3, "min_size": 2}}})
	if err := json.Unmarshal(osds, &seen.osds); err != nil {
		t.Fatal(err)
	}
	for id := range 3 {
		osd := struct {
			ID     int `json:"osd"`
			Up     int `json:"up"`
			In     int `json:"in"`
			UpFrom int `json:"up_from"`
		}{ID: id, In: 1}
		if id < up {
			osd.Up = 1
		}
		seen.osds.OSDs = append(seen.osds.OSDs, osd)
	}
	return seen
}

func TestVerdict(t *testing.T) {
	const ok = `{"status":"HEALTH_OK"}`
	osdDown := `{"status":"HEALTH_WARN","checks":{"OSD_DOWN":{"severity":"HEALTH_WARN","summary":{"message":"1 osds down"}}}}`
	cases := []struct {
		name                        string
		facts                       facts
		health, data, writes, spare string
		code                        string // a check that must be there; empty: none at all
	}{
		{
			"all is well", facts{replicas: 3, seen: look(t, 3, ok, map[string]int{"active+clean": 8, "active+clean+scrubbing": 1})},
			"HEALTH_OK", "safe", "work", "2 more OSDs without losing data; writes go on without 1", "",
		},
		{
			"one OSD is down", facts{replicas: 3, seen: look(t, 2, osdDown, map[string]int{"active+undersized+degraded": 9})},
			"HEALTH_WARN", "present, with less redundancy", "work", "1 more OSD without losing data, but writes stop", "HF-OSD-DOWN",
		},
		{
			"two OSDs are down", facts{replicas: 3, seen: look(t, 1, osdDown, map[string]int{"undersized+degraded+peered": 9})},
			"HEALTH_WARN", "present", "some wait: 9 of 9", "none", "HF-OSD-DOWN",
		},
		{
			"the monitors never answered", facts{replicas: 3, err: errors.New("no route")},
			"HEALTH_UNKNOWN", "unknown", "unknown", "unknown", "HF-MON-UNREACHABLE",
		},
		{
			"a daemon crashes again and again", facts{
				replicas: 3, seen: look(t, 3, ok, map[string]int{"active+clean": 1}),
				daemons: []localapi.Daemon{{Name: "csi", State: localapi.DaemonBackoff, Restarts: 4}}, looping: []string{"csi"},
			},
			"HEALTH_WARN", "safe", "work", "2 more", "HF-DAEMON-CRASHLOOP",
		},
		{
			"there is one copy of everything", facts{replicas: 1, seen: look(t, 3, ok, map[string]int{"active+clean": 1})},
			"HEALTH_OK", "safe: all of it has its 1 copy", "work", "none", "HF-NO-REDUNDANCY",
		},
	}
	for _, test := range cases {
		t.Run(test.name, func(t *testing.T) {
			checks := test.facts.checks()
			if got := worst(test.facts.base(), checks); got != test.health {
				t.Errorf("health %s, want %s", got, test.health)
			}
			v := test.facts.verdict(checks)
			for what, pair := range map[string][2]string{"data": {v.Data, test.data}, "writes": {v.Writes, test.writes}, "spare": {v.Spare, test.spare}} {
				if !strings.HasPrefix(pair[0], pair[1]) {
					t.Errorf("%s: %q, want %q", what, pair[0], pair[1])
				}
			}
			if test.code == "" && (len(checks) > 0 || v.Next != "") {
				t.Errorf("unexpected checks %+v, next %q", checks, v.Next)
			}
			found := test.code == ""
			for _, c := range checks {
				found = found || c.Code == test.code
			}
			if !found {
				t.Errorf("no %s in %+v", test.code, checks)
			}
		})
	}
}

func TestOldNewsIsNeverGreen(t *testing.T) {
	f := facts{replicas: 3, seen: look(t, 3, `{"status":"HEALTH_OK"}`, map[string]int{"active+clean": 1})}
	f.seen.at = time.Now().Add(-time.Minute)
	if got := worst(f.base(), f.checks()); got != localapi.HealthUnknown {
		t.Errorf("health %s of an observation one minute old", got)
	}
}
