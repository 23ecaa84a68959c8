// Package server is the gRPC plumbing that the CSI services share: the socket, a
// request id and a log line for each call, metrics, deadlines, and the one place
// where errors become gRPC codes. Requests and responses are never logged whole:
// they carry secrets.
package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"google.golang.org/grpc"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/obs"
)

// Server is one CSI endpoint.
type Server struct {
	grpc     *grpc.Server
	listener net.Listener
	log      *slog.Logger
}

// maxSocketPath is the longest path of a Unix socket (unix(7): 108 bytes with the NUL).
const maxSocketPath = 107

// SocketPath returns the path of an endpoint, "unix:///path" or the path itself.
func SocketPath(endpoint string) string { return strings.TrimPrefix(endpoint, "unix://") }

// Listen opens endpoint for a driver; see ListenUnix.
func Listen(ctx context.Context, endpoint string, log *slog.Logger, metrics *Metrics, driver string) (*Server, error) {
	listener, err := ListenUnix(ctx, SocketPath(endpoint))
	if err != nil {
		return nil, err
	}
	calls := &interceptor{log: log.With(obs.KeyDriver, driver), metrics: metrics, driver: driver}
	return &Server{grpc: grpc.NewServer(grpc.UnaryInterceptor(calls.intercept), grpc.StreamInterceptor(calls.interceptStream)), listener: listener, log: log}, nil
}

// ListenUnix listens on a socket that only this user can open. A socket file that
// nobody listens on is removed first; one in use is fault.Busy.
func ListenUnix(ctx context.Context, path string) (net.Listener, error) {
	if !filepath.IsAbs(path) {
		return nil, fault.New(fault.Invalid, "socket %q: want an absolute path", path)
	}
	if len(path) > maxSocketPath {
		return nil, fault.New(fault.Invalid, "socket %q: the path has %d bytes, a Unix socket takes %d", path, len(path), maxSocketPath)
	}
	if err := removeDeadSocket(ctx, path); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("make the socket's directory: %w", err)
	}
	listener, err := (&net.ListenConfig{Control: private}).Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return listener, nil
}

func removeDeadSocket(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at %s: %w", path, err)
	}
	if info.Mode()&fs.ModeSocket == 0 {
		return fault.New(fault.Precondition, "%s is there and is no socket: it is left alone", path)
	}
	if conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path); err == nil {
		_ = conn.Close()
		return fault.New(fault.Busy, "another process listens on %s", path)
	}
	return os.Remove(path)
}

// private sets the socket's mode before it is bound, so that there is no moment when
// others may connect: bind(2) gives the file the mode of the socket, less the umask.
func private(_, _ string, raw syscall.RawConn) error {
	var failed error
	err := raw.Control(func(fd uintptr) { failed = syscall.Fchmod(int(fd), 0o600) })
	return errors.Join(err, failed)
}

// Registrar is where the services are registered.
func (s *Server) Registrar() grpc.ServiceRegistrar { return s.grpc }

// Serve answers calls until ctx ends, then lets the calls under way finish.
func (s *Server) Serve(ctx context.Context) error {
	s.log.Info("listening", obs.KeyPath, s.listener.Addr().String())
	return ServeGRPC(ctx, s.grpc, s.listener)
}

// ServeGRPC runs a gRPC server until ctx ends, then lets the calls under way finish.
func ServeGRPC(ctx context.Context, server *grpc.Server, listener net.Listener) error {
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		server.GracefulStop()
	})
	err := server.Serve(listener)
	if !stop() {
		<-stopped
		return nil // asked to
	}
	return err
}
