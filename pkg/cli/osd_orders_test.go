package cli

import (
	"encoding/json"
	"net/http"
	"sync"
	"testing"

	"github.com/holdfast-storage/holdfast/csi/server"
	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/rpc/agentapi"
)

// TestAnAgentThatIsNotCoordinatedIsOrderedHere, whatever certificate the person has.
func TestAnAgentThatIsNotCoordinatedIsOrderedHere(t *testing.T) {
	dir := t.TempDir()
	t.Setenv(certsVariable, t.TempDir())
	p, err := plan.Plan{Subject: "osd on D1", What: "make an OSD", Parent: "0", Steps: []plan.Step{{Kind: "a", What: "a", Args: []byte(`{}`)}}}.Seal(1)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var asked []string
	mux := http.NewServeMux()
	for path, v := range map[string]any{
		"GET " + agentapi.PathStatus:                                   agentapi.Status{},
		"POST " + agentapi.PathOSDPlan:                                 agentapi.Plan{Plan: p, Status: executor.Status{Plan: p.ID, Phase: executor.Proposed}},
		"POST " + agentapi.PathPlans + "/" + string(p.ID) + "/approve": agentapi.Plan{Plan: p, Status: executor.Status{Plan: p.ID, Phase: executor.Waiting}},
		"GET " + agentapi.PathPlans + "/" + string(p.ID) + "/watch":    executor.Status{Plan: p.ID, Phase: executor.Succeeded},
	} {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			asked = append(asked, r.URL.Path)
			_ = json.NewEncoder(w).Encode(v)
		})
	}
	l, err := server.ListenUnix(t.Context(), agentapi.Socket(dir))
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: mux}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	if out, err := runLine(t, "osd prepare D1 --yes --data-dir "+dir); err != nil {
		t.Errorf("%v after %v: %s", err, asked, out)
	}
}
