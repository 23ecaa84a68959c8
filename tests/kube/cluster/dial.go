package cluster

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// HTTPClient speaks HTTP inside node-a's network: pods and Services are reached as from a node.
func (c *Cluster) HTTPClient() *http.Client {
	return &http.Client{Timeout: time.Minute, Transport: &http.Transport{DialContext: dialInside, DisableKeepAlives: true}}
}

// dialInside connects from node-a's network namespace. A socket belongs for good to the namespace
// of the thread that made it, so one thread goes there for the dial alone; address must be an IP
// with a port, for a name would be looked up on other threads.
func dialInside(ctx context.Context, network, address string) (net.Conn, error) {
	type answer struct {
		conn net.Conn
		err  error
	}
	answers := make(chan answer, 1)
	go func() {
		// Never unlocked: the thread ends with the goroutine, and its namespace goes with it.
		runtime.LockOSThread()
		conn, err := dialFrom(ctx, "/run/netns/"+namespaceA, network, address)
		answers <- answer{conn, err}
	}()
	a := <-answers
	return a.conn, a.err
}

func dialFrom(ctx context.Context, namespace, network, address string) (net.Conn, error) {
	file, err := os.Open(namespace)
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	defer file.Close()
	if err := unix.Setns(int(file.Fd()), unix.CLONE_NEWNET); err != nil {
		return nil, fmt.Errorf("join network namespace: %w", err)
	}
	return (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, network, address)
}
