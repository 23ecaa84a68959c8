package coordinatorapi_test

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/holdfast-storage/holdfast/pkg/certs"
	"github.com/holdfast-storage/holdfast/pkg/certs/certstest"
	"github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi"
	v1 "github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi/coordinatorv1"
)

// silent is a member whose watches tell nothing.
type silent struct {
	v1.UnimplementedCoordinatorServer
}

func (silent) WatchPlans(_ *v1.WatchPlansRequest, s v1.Coordinator_WatchPlansServer) error {
	if err := s.Send(&v1.Plan{}); err != nil {
		return err
	}
	<-s.Context().Done()
	return s.Context().Err()
}

// dead is a network on which everything is lost from some moment on, without a word.
type dead struct {
	net.Listener

	now *atomic.Bool
}

func (d dead) Accept() (net.Conn, error) {
	c, err := d.Listener.Accept()
	return lost{c, d.now}, err
}

type lost struct {
	net.Conn

	now *atomic.Bool
}

func (l lost) Write(p []byte) (int, error) {
	if l.now.Load() {
		return len(p), nil
	}
	return l.Conn.Write(p)
}

// TestAWatchOfAMemberThatDiedEnds waits half a minute for the pings.
func TestAWatchOfAMemberThatDiedEnds(t *testing.T) {
	t.Parallel()
	ca := certstest.CA(t)
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var died atomic.Bool
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(certstest.Store(t, ca, certs.Identity{Role: certs.Coordinator, Name: "c1"}).Server(map[certs.Protocol][]certs.Role{certs.GRPC: {certs.Agent}}))))
	v1.RegisterCoordinatorServer(server, silent{})
	done := make(chan error)
	go func() { done <- server.Serve(dead{l, &died}) }()
	t.Cleanup(func() { server.Stop(); <-done })
	client := coordinatorapi.New(certstest.Store(t, ca, certs.Identity{Role: certs.Agent, Name: "n1"}), []string{l.Addr().String()})
	t.Cleanup(client.Close)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	api, err := client.At(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	stream, err := api.WatchPlans(ctx, &v1.WatchPlansRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	died.Store(true)
	if _, err := stream.Recv(); err == nil || ctx.Err() != nil {
		t.Errorf("it is waited for after its death: %v", err)
	}
}
