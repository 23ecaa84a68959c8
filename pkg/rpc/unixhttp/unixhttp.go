// Package unixhttp is what the APIs on unix sockets share: HTTP over a socket, from both ends. It knows nothing of what
// is said. It imports nothing of this module but fault.
package unixhttp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// NewClient returns a client of a socket that has a connection of its own for each request.
func NewClient(socket string) *http.Client {
	transport := Transport(socket)
	transport.DisableKeepAlives = true
	return &http.Client{Transport: transport}
}

// Transport connects to a socket, whatever host a request names.
func Transport(socket string) *http.Transport {
	return &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}
}

// Loopback listens on a loopback address, of which others on the network see nothing. fault.Invalid for any other.
func Loopback(ctx context.Context, address string) (net.Listener, error) {
	host, _, err := net.SplitHostPort(address)
	if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() {
		return nil, fault.New(fault.Invalid, "address of the metrics %q: want a loopback address such as 127.0.0.1:9284", address)
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for metrics: %w", err)
	}
	return listener, nil
}

// grace is how long a client may take to send its headers, and calls under way to come to their end.
const grace = 5 * time.Second

// Serve answers on listener until ctx ends and the calls under way are through. Their contexts end with ctx.
func Serve(ctx context.Context, listener net.Listener, handler http.Handler) error {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: grace, BaseContext: func(net.Listener) context.Context { return ctx }}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
		defer cancel()
		_ = server.Shutdown(ending)
	})
	err := server.Serve(listener)
	if !stop() {
		<-stopped
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}
