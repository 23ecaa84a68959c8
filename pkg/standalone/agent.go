package standalone

import (
	"context"
	"path/filepath"
	"strings"

	"github.com/holdfast-storage/holdfast/pkg/certs"
	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/rpc/agentapi"
)

// childAgent is the name of the agent among the children.
const childAgent = "agent"

// agentName is what the node is called towards the coordinators. One name is theirs alone, and a host may have it.
func (s *State) agentName() string {
	if s.NodeName == string(certs.Coordinator) {
		return s.NodeName + "-node"
	}
	return s.NodeName
}

// agentCommand has no port of its own choice for the metrics: several clusters may be on one machine.
// Its node is called as the certificate says.
func (s *Supervisor) agentCommand() command.Cmd {
	return command.Cmd{Name: s.tools.Executable, Args: []string{
		"agent", "--data-dir", s.dir, "--metrics-listen", "127.0.0.1:0", "--node-id", s.state.agentName(),
		"--coordinators", strings.Join(s.coordinatorAddresses(), ","), "--certs", s.coordinatorDir(agentDir),
	}}
}

func (s *Supervisor) startAgent(ctx context.Context) error {
	if err := s.retire(ctx, childAgent, s.agentCommand()); err != nil {
		return err
	}
	_, err := s.keep(childAgent, s.agentCommand())
	return err
}

func (s *Supervisor) awaitAgent(ctx context.Context) error {
	return within(ctx, waitCSI, "the agent does not answer", filepath.Join(s.paths.Log(), childAgent+".out"), func(ctx context.Context) (bool, error) {
		_, err := agentapi.NewClient(s.dir).Status(ctx)
		return err == nil, err
	})
}
