package command

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// Start starts a program that outlives its starter: in a session of its own, with
// output (may be nil) as stdout and stderr, nothing on stdin, and files as descriptors
// 3 and up. The environment is the process's own without CEPH_* (a user's CEPH_CONF or
// CEPH_ARGS would redirect a daemon) plus c.Env. The caller must Wait for it while it lives.
func Start(c Cmd, output *os.File, files ...*os.File) (*os.Process, error) {
	cmd := exec.Command(c.Name, c.Args...) //nolint:noctx // it outlives every context
	cmd.Dir = c.Dir
	cmd.Env = append(withoutCeph(os.Environ()), c.Env...)
	if output != nil {
		cmd.Stdout, cmd.Stderr = output, output
	}
	cmd.ExtraFiles = files
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", c, err)
	}
	return cmd.Process, nil
}

func withoutCeph(environ []string) []string {
	var kept []string
	for _, pair := range environ {
		if !strings.HasPrefix(pair, "CEPH_") {
			kept = append(kept, pair)
		}
	}
	return kept
}
