package osd

import (
	"encoding/json"
	"testing"
)

func TestWhereTheMapHasAnOSD(t *testing.T) {
	for text, want := range map[string]string{
		`{"public_addrs": {"addrvec": [{"type": "v2", "addr": "10.0.0.7:6800", "nonce": 17}, {"type": "v1", "addr": "10.0.0.7:6801", "nonce": 17}]}}`: "10.0.0.7",
		`{"public_addrs": {"addrvec": [{"type": "v2", "addr": "[fd00::7]:6800", "nonce": 17}]}}`:                                                      "fd00::7",
		`{"public_addrs": {"addrvec": []}}`: "invalid IP",
		`{}`:                                "invalid IP",
	} {
		var e entry
		if err := json.Unmarshal([]byte(text), &e); err != nil || e.address().String() != want {
			t.Errorf("%s: %s, %v", text, e.address(), err)
		}
	}
}
