package cli

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/holdfast-storage/holdfast/pkg/placement"
	v1 "github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi/coordinatorv1"
)

const policyText = `
cluster: {failures: 1, failure_domain: host, max_degraded_percent: 0.5, approves: [upmap-wave]}
classes:
  ssd: {pgs_per_osd: 150, osd_memory: 8GiB}
pools:
  밤: {bytes: 2TB, pg_bytes: 40000000000, device_class: ssd, failures: 2}
`

func TestPoliciesComeBackAsTheyWereApplied(t *testing.T) {
	all, err := readPolicies([]byte(policyText))
	if err != nil {
		t.Fatal(err)
	}
	stored := map[string]*v1.Policy{}
	for name, p := range all {
		if stored[name], err = policyMessage(name, p); err != nil {
			t.Fatal(err)
		}
	}
	var pool placement.Policy
	if err := json.Unmarshal(stored["pool 밤"].GetSpec(), &pool); err != nil || pool.Bytes != 2e12 || pool.PGBytes != 40e9 || pool.Class != "ssd" || pool.Failures != 2 {
		t.Errorf("the pool's policy is %+v, %v", pool, err)
	}
	if got := stored["cluster"]; len(got.GetApproves()) != 1 || strings.Contains(string(got.GetSpec()), "approves") {
		t.Errorf("the cluster's policy is %s, and approves %v", got.GetSpec(), got.GetApproves())
	}
	var warned bytes.Buffer
	stored["registers"] = &v1.Policy{Name: "registers", Spec: []byte("17")}
	text, err := yaml.Marshal(policyFileOf(&warned, stored))
	if err != nil {
		t.Fatal(err)
	}
	again, err := readPolicies(text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if diff := cmp.Diff(all, again); diff != "" {
		t.Errorf("shown and applied again it differs:\n%s", diff)
	}
	if !strings.Contains(warned.String(), "registers has another form") {
		t.Errorf("nothing was said of a policy of another form: %s", warned.String())
	}
}

func TestPoliciesThatCannotBeAreRefused(t *testing.T) {
	for text, want := range map[string]string{
		"":                                        "no policies",
		"cluster: {failure: 1}":                   "failure",
		"cluster: {failures: 9}":                  "1 to 4",
		"cluster: {max_degraded_percent: 101}":    "0 to 100",
		"cluster: {approves: [upmap-waves]}":      "upmap-waves",
		"cluster: {profile: films}":               "films",
		"pools: {vms: {max_degraded_percent: 1}}": "for the cluster",
		"pools: {vms: {bytes: many}}":             "many",
		"pools: {vms: }":                          "empty",
		"- cluster":                               "read policies",
	} {
		if _, err := readPolicies([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func FuzzPolicies(f *testing.F) {
	f.Add([]byte(policyText))
	f.Fuzz(func(t *testing.T, data []byte) {
		all, err := readPolicies(data)
		if err != nil {
			return
		}
		for name, p := range all {
			if _, err := policyMessage(name, p); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}
