// Package registration makes a driver known to the kubelet of its node, as the
// node-driver-registrar sidecar does: a socket in kubelet's plugins_registry on which
// kubelet asks for the driver's name and socket
// (k8s.io/kubelet/pkg/apis/pluginregistration/v1).
package registration

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"

	"google.golang.org/grpc"
	registerapi "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"github.com/holdfast-storage/holdfast/csi/server"
	"github.com/holdfast-storage/holdfast/pkg/obs"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Config says what is registered where.
type Config struct {
	Registry string // kubelet's plugins_registry directory
	Driver   storage.Driver
	Endpoint string // path of the driver's socket as kubelet sees it
	Log      *slog.Logger
}

type registrar struct {
	registerapi.UnimplementedRegistrationServer
	Config
}

// GetInfo answers kubelet's question.
func (r *registrar) GetInfo(context.Context, *registerapi.InfoRequest) (*registerapi.PluginInfo, error) {
	return &registerapi.PluginInfo{
		Type: registerapi.CSIPlugin, Name: string(r.Driver), Endpoint: r.Endpoint, SupportedVersions: []string{"1.0.0"},
	}, nil
}

// NotifyRegistrationStatus hears how it went.
func (r *registrar) NotifyRegistrationStatus(_ context.Context, status *registerapi.RegistrationStatus) (*registerapi.RegistrationStatusResponse, error) {
	if status.GetPluginRegistered() {
		r.Log.Info("registered with kubelet", obs.KeyDriver, r.Driver)
	} else {
		r.Log.Error("kubelet refused the registration", obs.KeyDriver, r.Driver, obs.KeyError, status.GetError())
	}
	return &registerapi.RegistrationStatusResponse{}, nil
}

// Serve keeps the registration socket until ctx ends; kubelet drops a driver whose
// socket is gone.
func Serve(ctx context.Context, config Config) error {
	path := filepath.Join(config.Registry, string(config.Driver)+"-reg.sock")
	listener, err := server.ListenUnix(ctx, path)
	if err != nil {
		return fmt.Errorf("register with kubelet: %w", err)
	}
	s := grpc.NewServer()
	registerapi.RegisterRegistrationServer(s, &registrar{Config: config})
	return server.ServeGRPC(ctx, s, listener)
}
