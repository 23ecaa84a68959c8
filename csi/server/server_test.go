package server_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/holdfast-storage/holdfast/csi/server"
	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// slow is a controller whose calls hang until their context ends, or fail.
type slow struct {
	csi.UnimplementedControllerServer
}

func (slow) CreateVolume(ctx context.Context, _ *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (slow) DeleteVolume(_ context.Context, r *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error) {
	return nil, fault.New(fault.Busy, "volume %s is in use", r.GetVolumeId())
}

// serve starts the services on a socket and returns a client, the log and the socket.
func serve(t *testing.T) (csi.ControllerClient, *strings.Builder, string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "hf")
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	ctx, stop := context.WithCancel(t.Context())
	metrics := server.NewMetrics("test", func() error { return nil })
	socket := filepath.Join(dir, "csi.sock")
	s, err := server.Listen(ctx, "unix://"+socket, slog.New(slog.NewTextHandler(&log, nil)), metrics, "driver")
	if err != nil {
		t.Fatal(err)
	}
	csi.RegisterControllerServer(s.Registrar(), slow{})
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := s.Serve(ctx); err != nil {
			t.Error(err)
		}
	})
	serving.Go(func() {
		if err := metrics.Serve(ctx, "unix://"+filepath.Join(dir, "m.sock")); err != nil {
			t.Error(err)
		}
	})
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		stop()
		serving.Wait()
		_ = os.RemoveAll(dir)
	})
	return csi.NewControllerClient(conn), &log, socket
}

func TestCallThatDoesNotEndIsUnavailableBeforeItsDeadline(t *testing.T) {
	client, _, _ := serve(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err := client.CreateVolume(ctx, &csi.CreateVolumeRequest{Name: "v"})
	if status.Code(err) != codes.Unavailable || ctx.Err() != nil {
		t.Fatalf("got %v, the deadline is %v", err, ctx.Err())
	}
}

func TestErrorsCarryTheirCodeAndAreLoggedWithTheVolumeButWithoutSecrets(t *testing.T) {
	client, log, _ := serve(t)
	_, err := client.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: "이름", Secrets: map[string]string{"userKey": "very-secret"}})
	if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "이름 is in use") {
		t.Fatalf("got %v", err)
	}
	text := log.String()
	if !strings.Contains(text, "volume=이름") || !strings.Contains(text, "request=") || !strings.Contains(text, "FailedPrecondition") {
		t.Errorf("log: %s", text)
	}
	if strings.Contains(text, "very-secret") {
		t.Errorf("the log holds a secret: %s", text)
	}
}

func TestSocketIsPrivateAndNotTakenFromALivingServer(t *testing.T) {
	_, _, socket := serve(t)
	info, err := os.Stat(socket)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}
	if _, err := server.ListenUnix(t.Context(), socket); !errors.Is(err, fault.Busy) {
		t.Errorf("a second server: %v", err)
	}
	plain := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := server.ListenUnix(t.Context(), plain); !errors.Is(err, fault.Precondition) {
		t.Errorf("in place of a file: %v", err)
	}
	if _, err := os.Stat(plain); errors.Is(err, fs.ErrNotExist) {
		t.Error("the file was removed")
	}
	if _, err := server.ListenUnix(t.Context(), "/"+strings.Repeat("x", 120)); !errors.Is(err, fault.Invalid) {
		t.Errorf("a path that is too long: %v", err)
	}
}

func TestMetricsCountCallsByCode(t *testing.T) {
	client, _, socket := serve(t)
	_, _ = client.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: "v"})
	text := get(t, filepath.Join(filepath.Dir(socket), "m.sock"), "/metrics")
	if !strings.Contains(text, `holdfast_csi_calls_total{code="FailedPrecondition",driver="driver",method="DeleteVolume"} 1`) {
		t.Errorf("metrics: %s", text)
	}
	if ok := get(t, filepath.Join(filepath.Dir(socket), "m.sock"), "/healthz"); ok != "ok\n" {
		t.Errorf("healthz: %q", ok)
	}
}

func get(t *testing.T, socket, path string) string {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: dialUnix(socket)}}
	response, err := client.Get("http://holdfast" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}
