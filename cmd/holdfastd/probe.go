package main

import (
	"context"
	"fmt"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// probeLimit is how long a service may take to say that it runs.
const probeLimit = 4 * time.Second

func probeCommand() *cobra.Command {
	var endpoint string
	cmd := &cobra.Command{
		Use:   "probe",
		Short: "Ask a CSI service whether it runs (for liveness probes)",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), probeLimit)
			defer cancel()
			conn, err := grpc.NewClient(endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				return fmt.Errorf("connect to %s: %w", endpoint, err)
			}
			defer conn.Close()
			if _, err := csi.NewIdentityClient(conn).Probe(ctx, &csi.ProbeRequest{}); err != nil {
				return fmt.Errorf("probe %s: %w", endpoint, err)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&endpoint, "endpoint", "unix:///csi/csi.sock", "socket of the service")
	return cmd
}
