package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/holdfast-storage/holdfast/pkg/command"
)

// KubectlCommand is the command line that runs kubectl against this cluster.
func (c *Cluster) KubectlCommand(arguments ...string) []string {
	return append([]string{
		"/usr/bin/nsenter", "--net=/run/netns/" + namespaceA, "--",
		c.program("kubectl"), "--kubeconfig", c.pki("admin.kubeconfig"),
	}, arguments...)
}

// Kubectl runs kubectl as the cluster's administrator and returns its output.
func (c *Cluster) Kubectl(ctx context.Context, arguments ...string) ([]byte, error) {
	return c.KubectlInput(ctx, nil, arguments...)
}

// KubectlInput is Kubectl with something to read.
func (c *Cluster) KubectlInput(ctx context.Context, stdin io.Reader, arguments ...string) ([]byte, error) {
	argv := c.KubectlCommand(arguments...)
	result, err := c.Runner.Run(ctx, command.Cmd{Name: argv[0], Args: argv[1:], Stdin: stdin})
	return result.Stdout, err
}

// KubectlJSON runs kubectl and decodes what it prints as JSON.
func (c *Cluster) KubectlJSON(ctx context.Context, into any, arguments ...string) error {
	out, err := c.Kubectl(ctx, append(arguments, "--output", "json")...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(out, into); err != nil {
		return fmt.Errorf("decode answer of kubectl: %w", err)
	}
	return nil
}
