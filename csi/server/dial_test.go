package server_test

import (
	"context"
	"net"
	"time"
)

// dialUnix connects to the socket whatever address is asked for, once it is there.
func dialUnix(socket string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, _, _ string) (conn net.Conn, err error) {
		for range 100 {
			if conn, err = (&net.Dialer{}).DialContext(ctx, "unix", socket); err == nil {
				return conn, nil
			}
			time.Sleep(20 * time.Millisecond)
		}
		return nil, err
	}
}
