package standalone

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/obs"
	"github.com/holdfast-storage/holdfast/pkg/rpc/localapi"
)

// servers are the API on the unix socket and metrics and health on --listen.
type servers struct {
	list []*http.Server
	wg   sync.WaitGroup
	log  func(error)
}

const shutdownGrace = 3 * time.Second

// serve opens both listeners. The directory's lock is held: a socket file that is there
// is of a supervisor that is gone.
func (s *Supervisor) serve(ctx context.Context) (*servers, error) {
	local, err := listenPrivate(ctx, s.dir)
	if err != nil {
		return nil, err
	}
	public, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.state.Listen)
	if err != nil {
		local.Close()
		return nil, s.listenError(err)
	}
	all := &servers{log: func(err error) { s.tools.Log.Error("server ended", obs.KeyError, err) }}
	base := func(net.Listener) context.Context { return ctx }
	all.start(&http.Server{Handler: s.localHandler(), BaseContext: base, ReadHeaderTimeout: shutdownGrace}, local)
	all.start(&http.Server{Handler: s.publicHandler(), BaseContext: base, ReadHeaderTimeout: shutdownGrace}, public)
	return all, nil
}

// listenPrivate opens the API's socket, which only this user can connect to.
func listenPrivate(ctx context.Context, dir string) (net.Listener, error) {
	path := localapi.Socket(dir)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove the old API socket: %w", err)
	}
	listener, err := (&net.ListenConfig{Control: private}).Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("open the API socket: %w", err)
	}
	return listener, nil
}

// private sets the socket's mode before it is bound, so that there is no moment when
// others may connect: bind(2) gives the file the mode of the socket, less the umask.
func private(_, _ string, raw syscall.RawConn) error {
	var failed error
	err := raw.Control(func(fd uintptr) { failed = syscall.Fchmod(int(fd), 0o600) })
	return errors.Join(err, failed)
}

func (a *servers) start(server *http.Server, l net.Listener) {
	a.list = append(a.list, server)
	a.wg.Go(func() {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			a.log(err)
		}
	})
}

func (a *servers) close() {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownGrace)
	defer cancel()
	for _, server := range a.list {
		if err := server.Shutdown(ctx); err != nil {
			_ = server.Close()
		}
	}
	a.wg.Wait()
}

func (s *Supervisor) localHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(s.Status(r.Context())); err != nil {
			s.tools.Log.Warn("could not send status", obs.KeyError, err)
		}
	})
	mux.HandleFunc("GET /v1/up", func(w http.ResponseWriter, r *http.Request) {
		send := sender(w)
		_ = s.Follow(r.Context(), send) // its only error: the client went away
	})
	mux.HandleFunc("POST /v1/down", s.handleDown)
	return mux
}

// sender writes events to a client as they come.
func sender(w http.ResponseWriter) func(localapi.Event) error {
	w.Header().Set("Content-Type", "application/x-ndjson")
	encoder, control := json.NewEncoder(w), http.NewResponseController(w)
	return func(e localapi.Event) error {
		if err := encoder.Encode(e); err != nil {
			return err
		}
		return control.Flush()
	}
}

func (s *Supervisor) publicHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", s.handleHealthz)
	mux.HandleFunc("GET /metrics", s.handleMetrics)
	return mux
}
