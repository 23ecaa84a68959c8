package standalone

import (
	"context"
	"fmt"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

const listPage = 1000

// countVolumes asks a CSI controller for the number of its volumes, -1 with an error.
func countVolumes(ctx context.Context, socket string) (int, error) {
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return -1, fmt.Errorf("connect to %s: %w", socket, err)
	}
	defer conn.Close()
	client := csi.NewControllerClient(conn)
	count, token := 0, ""
	for {
		page, err := client.ListVolumes(ctx, &csi.ListVolumesRequest{MaxEntries: listPage, StartingToken: token})
		if err != nil {
			return -1, fmt.Errorf("list volumes of %s: %w", socket, err)
		}
		count += len(page.GetEntries())
		if token = page.GetNextToken(); token == "" {
			return count, nil
		}
	}
}
