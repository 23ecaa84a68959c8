package csiclient

import (
	"context"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/rpc/volumeapi"
)

// Reclaim gives back what the volume does not use: through its file system where it is mounted
// here, from the image where no node has it.
func (c *Client) Reclaim(ctx context.Context, v Volume) (volumeapi.Reclaimed, error) {
	if len(v.Mounts) == 0 {
		return c.Admin().Sparsify(ctx, v.ID)
	}
	if len(v.Nodes) == 0 {
		return volumeapi.Reclaimed{}, fault.New(fault.Precondition, "volume %s is mounted at %v, and the controller has it on no node: unmount it", v.Name, v.Mounts)
	}
	return c.Admin().Trim(ctx, v.ID)
}
