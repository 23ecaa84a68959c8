package cli

import (
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/executor"
)

func TestAPlanThatIsOverSaysHowItEnded(t *testing.T) {
	status := executor.Status{Phase: executor.Running, Step: 1, Steps: 5, What: "wave", Forecast: 600}
	for want, v := range map[string]planView{
		"superseded by plan B (osd.3 is out): holdfast plan watch B": {Phase: "abandoned", SupersededBy: "B", SupersededWhy: "osd.3 is out", Status: status},
		"given up with nothing left to do (osd.3 is out)":            {Phase: "abandoned", SupersededWhy: "osd.3 is out", Status: status},
		"ended at step 2 of 5":                                       {Phase: "abandoned", Status: status},
		"all steps are done and verified":                            {Phase: "completed", Status: status},
		"step 2/5 wave, about 10m left":                              {Phase: "running", Status: status},
	} {
		if got := v.progress(); got != want {
			t.Errorf("%s: %q, want %q", v.Phase, got, want)
		}
	}
}
