package sanity

import (
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"

	"github.com/holdfast-storage/holdfast/tests/services"
)

// raw passes messages on without looking into them.
type raw struct{}

func (raw) Name() string { return "raw" }
func (raw) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}
func (raw) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

var _ encoding.CodecV2 = raw{}

// proxy stands before one driver's socket and restarts the services before each call.
type proxy struct {
	socket string
	calls  atomic.Int64
}

func startProxy(t *testing.T, behind *services.Services, driver string) *proxy {
	t.Helper()
	p := &proxy{socket: filepath.Join(behind.Dir, "proxy.sock")}
	listener, err := net.Listen("unix", p.socket)
	if err != nil {
		t.Fatal(err)
	}
	var turn sync.Mutex
	forward := func(_ any, in grpc.ServerStream) error {
		turn.Lock()
		defer turn.Unlock()
		method, _ := grpc.MethodFromServerStream(in)
		var request, response []byte
		if err := in.RecvMsg(&request); err != nil {
			return err
		}
		p.calls.Add(1)
		behind.Restart()
		conn, err := grpc.NewClient("unix://"+behind.Socket(driver), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return status.Error(codes.Internal, err.Error())
		}
		defer conn.Close()
		if err := conn.Invoke(in.Context(), method, &request, &response, grpc.ForceCodecV2(raw{})); err != nil {
			return err
		}
		return in.SendMsg(&response)
	}
	server := grpc.NewServer(grpc.ForceServerCodecV2(raw{}), grpc.UnknownServiceHandler(forward))
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) })
	t.Cleanup(func() {
		server.Stop()
		serving.Wait()
	})
	return p
}
