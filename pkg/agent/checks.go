package agent

import (
	"fmt"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/certs"
	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/ledger"
	"github.com/holdfast-storage/holdfast/pkg/obs/codes"
	"github.com/holdfast-storage/holdfast/pkg/rpc/agentapi"
	"github.com/holdfast-storage/holdfast/pkg/rpc/localapi"
)

// checks is all that is wrong on this node.
func (a *Agent) checks(list []ledger.Entry) []agentapi.Check {
	all := []agentapi.Check{}
	for _, e := range list {
		all = append(all, planChecks(a.view(e))...)
	}
	a.mu.Lock()
	for name, err := range a.down {
		if err != nil {
			all = append(all, agentapi.Check{
				Code: string(codes.StackDown), Severity: localapi.HealthErr, Message: fmt.Sprintf("stack %s does not come up: %v", name, err),
				Action: "holdfast plan activate " + name,
			})
		}
	}
	if a.stuck != "" {
		all = append(all, agentapi.Check{Code: string(codes.OSDDown), Severity: localapi.HealthWarn, Message: a.stuck, Action: "see the OSD's log below the data directory, then holdfast osd activate"})
	}
	a.mu.Unlock()
	if a.Expires != nil {
		all = append(all, expiryChecks(a.Expires(), a.Now())...)
	}
	if a.Problems != nil {
		all = append(all, a.Problems()...)
	}
	return all
}

// expiryChecks is what is wrong with a certificate that ends then.
func expiryChecks(ends, now time.Time) []agentapi.Check {
	if ends.Sub(now) >= certs.Soon {
		return nil
	}
	return []agentapi.Check{{
		Code: string(codes.CertificateExpires), Severity: localapi.HealthWarn, Message: "the certificate by which the coordinators know this node ends at " + ends.Local().Format(time.DateTime),
		Action: "holdfast coordinator certificate DIR --ca ... --role agent, and copy it to the agent's --certs; or start the agent with --join and a new token once it has ended",
	}}
}

// planChecks is what is wrong with one plan.
func planChecks(p agentapi.Plan) []agentapi.Check {
	check := agentapi.Check{Code: string(codes.PlanStopped), Severity: localapi.HealthWarn}
	switch {
	case p.Error != "":
		check.Message = fmt.Sprintf("plan %s cannot be read: %s", p.Plan.ID, p.Error)
	case p.Status.Phase == executor.Failed:
		check.Message = fmt.Sprintf("plan %s of %s has stopped: %s", p.Plan.ID, p.Plan.Subject, p.Status.Error)
		check.Action = fmt.Sprintf("put that right, then holdfast plan resume %s; if it can never be: holdfast plan abandon %s", p.Plan.ID, p.Plan.ID)
	default:
		return nil
	}
	return []agentapi.Check{check}
}
