package standalone

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/rpc/volumeapi"
)

// Names of Holdfast's own children.
const (
	childAttach = "attach"
	childCSI    = "csi"
)

func (s *Supervisor) csiDir() string       { return filepath.Join(s.dir, "csi") }
func (s *Supervisor) rbdSocket() string    { return filepath.Join(s.csiDir(), "rbd.sock") }
func (s *Supervisor) cephfsSocket() string { return filepath.Join(s.csiDir(), "cephfs.sock") }
func (s *Supervisor) attachSocket() string { return filepath.Join(s.paths.Run(), "attach.sock") }
func (s *Supervisor) metricsSocket() string {
	return filepath.Join(s.paths.Run(), "csi-metrics.sock")
}

func (s *Supervisor) attachDir() string { return filepath.Join(s.paths.Run(), "attach") }
func (s *Supervisor) nodeDir() string   { return filepath.Join(s.paths.Run(), "node") }

// csiCommand has no secrets: keys come from the calls and from the credentials directory.
func (s *Supervisor) csiCommand() command.Cmd {
	return command.Cmd{Name: s.tools.Executable, Args: []string{
		"csi", "--services", "controller,node", "--drivers", "rbd,cephfs",
		"--rbd-endpoint", "unix://" + s.rbdSocket(),
		"--cephfs-endpoint", "unix://" + s.cephfsSocket(),
		"--node-id", s.state.NodeName,
		"--config", filepath.Join(s.csiDir(), "config.json"),
		"--credentials-dir", filepath.Join(s.csiDir(), "credentials"),
		"--state-dir", s.nodeDir(),
		"--attach-socket", s.attachSocket(),
		"--metrics-listen", "unix://" + s.metricsSocket(),
		"--admin-socket", volumeapi.Socket(s.dir),
	}}
}

func (s *Supervisor) attachCommand() command.Cmd {
	return command.Cmd{Name: s.tools.Executable, Args: []string{
		"attach", "--socket", s.attachSocket(), "--state-dir", s.attachDir(),
	}}
}

func (s *Supervisor) startCSI(context.Context) error {
	for _, dir := range []string{s.attachDir(), s.nodeDir()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("make directory: %w", err)
		}
	}
	if _, err := s.keep(childAttach, s.attachCommand()); err != nil {
		return err
	}
	_, err := s.keep(childCSI, s.csiCommand())
	return err
}

func (s *Supervisor) awaitCSI(ctx context.Context) error {
	return within(ctx, waitCSI, "the CSI services do not answer", filepath.Join(s.paths.Log(), "csi.out"), func(ctx context.Context) (bool, error) {
		for _, path := range []string{s.rbdSocket(), s.cephfsSocket(), volumeapi.Socket(s.dir)} {
			conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
			if err != nil {
				return false, err
			}
			conn.Close()
		}
		return true, nil
	})
}
