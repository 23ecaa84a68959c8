package cluster

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/holdfast-storage/holdfast/pkg/command"
)

// networkUp makes the two network namespaces and the one cable between them.
func (c *Cluster) networkUp(ctx context.Context) error {
	for _, namespace := range []string{namespaceA, namespaceB} {
		if _, err := os.Stat("/run/netns/" + namespace); err == nil {
			return fmt.Errorf("network namespace %s exists already: another test cluster runs on this machine (HOLDFAST_KUBE_DIR names its directory for `hfkube down`)", namespace)
		}
	}
	for _, namespace := range []string{namespaceA, namespaceB} {
		if err := c.state.update(func(s *stateData) { s.Namespaces = append(s.Namespaces, namespace) }); err != nil {
			return err
		}
	}
	steps := []string{
		"netns add hfk-a",
		"netns add hfk-b",
		"-n hfk-a link add eth0 type veth peer name eth0 netns hfk-b",
		"-n hfk-a link set lo up",
		"-n hfk-b link set lo up",
		"-n hfk-a address add " + addressA + "/24 dev eth0",
		"-n hfk-b address add " + addressB + "/24 dev eth0",
		"-n hfk-a link set eth0 up",
		"-n hfk-b link set eth0 up",
		// A route must exist before the address of a Service is translated; it leads nowhere else.
		"-n hfk-a route add default dev eth0",
		"-n hfk-b route add default dev eth0",
		"-n hfk-a route add " + podsB + " via " + addressB,
		"-n hfk-b route add " + podsA + " via " + addressA,
	}
	for _, step := range steps {
		if _, err := c.Runner.Run(ctx, command.Cmd{Name: "ip", Args: strings.Fields(step)}); err != nil {
			return fmt.Errorf("make the network of the nodes: %w", err)
		}
	}
	for _, namespace := range []string{namespaceA, namespaceB} {
		if _, err := c.inNamespace(ctx, namespace, "sysctl", "-qw", "net.ipv4.ip_forward=1"); err != nil {
			return fmt.Errorf("forward packets in %s: %w", namespace, err)
		}
	}
	return nil
}

// networkDown removes the recorded namespaces, and with them their cable.
func (c *Cluster) networkDown(ctx context.Context) error {
	for _, namespace := range c.state.snapshot().Namespaces {
		if _, err := os.Stat("/run/netns/" + namespace); err == nil {
			if _, err := c.Runner.Run(ctx, command.Cmd{Name: "ip", Args: []string{"netns", "delete", namespace}}); err != nil {
				return fmt.Errorf("remove network namespace: %w", err)
			}
		}
		err := c.state.update(func(s *stateData) {
			s.Namespaces = slices.DeleteFunc(s.Namespaces, func(n string) bool { return n == namespace })
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// inNamespace runs a program inside a network namespace and nothing but it: `ip netns exec`
// would give it a mount namespace too, which then pins mounts.
func (c *Cluster) inNamespace(ctx context.Context, namespace string, argv ...string) (command.Result, error) {
	return c.Runner.Run(ctx, command.Cmd{Name: "nsenter", Args: append([]string{"--net=/run/netns/" + namespace, "--"}, argv...)})
}

func namespaceOf(node string) string {
	if node == NodeB {
		return namespaceB
	}
	return namespaceA
}

func addressOf(node string) string {
	if node == NodeB {
		return addressB
	}
	return addressA
}

func podsOf(node string) string {
	if node == NodeB {
		return podsB
	}
	return podsA
}
