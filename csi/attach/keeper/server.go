package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/keylock"
	"github.com/holdfast-storage/holdfast/pkg/obs"
)

// Config wires the keeper.
type Config struct {
	Socket   string // unix socket to listen on; made with mode 0600
	StateDir string // short (sockets live under it); in Kubernetes shared with the node plugin
	// OpTimeout bounds a RADOS operation of a helper: beyond it the program that writes
	// gets EIO instead of hanging for ever. It must be well above the time that Ceph takes
	// to notice a dead OSD (20 s) and to peer. Zero: 2 minutes.
	OpTimeout time.Duration
	Log       *slog.Logger
}

const defaultOpTimeout = 2 * time.Minute

// Run serves until ctx ends. Helpers stay.
func Run(ctx context.Context, cfg Config) error {
	if cfg.OpTimeout == 0 {
		cfg.OpTimeout = defaultOpTimeout
	}
	if len(filepath.Join(cfg.StateDir, "0123456789abcdef", "qmp.sock")) > 107 {
		return fault.New(fault.Invalid, "state directory %s: too long for the unix sockets below it: want at most 80 bytes", cfg.StateDir)
	}
	if err := os.MkdirAll(cfg.StateDir, 0o700); err != nil {
		return fmt.Errorf("make state directory: %w", err)
	}
	k := &keeper{cfg: cfg, locks: keylock.New()}
	listener, err := listen(ctx, cfg.Socket)
	if err != nil {
		return err
	}
	k.report()
	server := &http.Server{Handler: k.handler(), ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	cfg.Log.Info("attach daemon serves", obs.KeyPath, cfg.Socket)
	k.sweep(ctx, served)
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	err = server.Shutdown(stop)
	if served := <-served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

// listen makes the socket; one that nobody listens on any more is replaced.
func listen(ctx context.Context, path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make socket directory: %w", err)
	}
	var dialer net.Dialer
	if conn, err := dialer.DialContext(ctx, "unix", path); err == nil {
		conn.Close()
		return nil, fault.New(fault.Exists, "another attach daemon serves %s", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove stale socket: %w", err)
	}
	old := unix.Umask(0o177) // no moment in which others may connect
	listener, err := new(net.ListenConfig).Listen(ctx, "unix", path)
	unix.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return listener, nil
}

type keeper struct {
	cfg   Config
	locks *keylock.Locks
}

// report says at the start which helpers of an earlier keeper still run.
func (k *keeper) report() {
	for _, r := range k.records() {
		if r.Process.alive() {
			k.cfg.Log.Info("attachment found again", obs.KeyVolume, r.Spec.Volume, "pid", r.Process.PID, "kind", r.Spec.Kind)
		} else {
			k.cfg.Log.Warn("attachment is dead", obs.KeyVolume, r.Spec.Volume, "kind", r.Spec.Kind)
		}
	}
}

// sweep collects helpers that ended and logs each death once.
func (k *keeper) sweep(ctx context.Context, served chan error) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	dead := map[process]bool{}
	for {
		select {
		case <-ctx.Done():
			return
		case err := <-served:
			served <- err
			return
		case <-ticker.C:
		}
		for _, r := range k.records() {
			r.Process.reap()
			if !r.Process.alive() && !dead[r.Process] && r.Process.PID != 0 && !r.Stopping {
				dead[r.Process] = true
				k.cfg.Log.Error("attachment died; stage the volume again", obs.KeyVolume, r.Spec.Volume,
					"pid", r.Process.PID, "kind", r.Spec.Kind, "tail", tail(filepath.Join(k.dir(r.Spec.ID), "log")))
			}
		}
	}
}

func (k *keeper) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/start", call(func(ctx context.Context, s Spec) (Status, error) { return k.start(ctx, s) }))
	mux.HandleFunc("POST /v1/stop", call(func(ctx context.Context, r idRequest) (struct{}, error) {
		return struct{}{}, k.stop(ctx, r.ID, r.Dead)
	}))
	mux.HandleFunc("POST /v1/resize", call(func(ctx context.Context, r idRequest) (Status, error) {
		return k.resize(ctx, r.ID, r.Size)
	}))
	mux.HandleFunc("POST /v1/describe", call(func(_ context.Context, r idRequest) (Status, error) { return k.describe(r.ID) }))
	mux.HandleFunc("POST /v1/list", call(func(context.Context, struct{}) ([]Status, error) { return k.list(), nil }))
	mux.HandleFunc("POST /v1/ability", call(func(context.Context, struct{}) (Ability, error) { return ability(), nil }))
	return mux
}

// call adapts a typed function to JSON over HTTP.
func call[In, Out any](f func(context.Context, In) (Out, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var in In
		err := json.NewDecoder(io.LimitReader(r.Body, 1<<20)).Decode(&in)
		if err != nil {
			err = fault.As(fault.Invalid, fmt.Errorf("read request: %w", err))
		}
		var out Out
		if err == nil {
			out, err = f(r.Context(), in)
		}
		w.Header().Set("Content-Type", "application/json")
		if err != nil {
			w.WriteHeader(http.StatusConflict)
			_ = json.NewEncoder(w).Encode(toWire(err)) // the caller went away: nothing to tell it
			return
		}
		_ = json.NewEncoder(w).Encode(out)
	}
}
