package native

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
)

func (c *cluster) Self(ctx context.Context) (ceph.ClientAddress, error) {
	text, err := call(ctx, c, "get own address", c.conn.GetAddrs)
	if err != nil {
		return "", err
	}
	// One address, or "[v2:...,v1:...]", all with the same nonce.
	first, _, _ := strings.Cut(text, ",")
	if strings.HasPrefix(first, "[v") {
		first = strings.TrimSuffix(first[1:], "]")
	}
	return ceph.ParseClient(first)
}

func (c *cluster) Fence(ctx context.Context, client ceph.ClientAddress, lasting time.Duration) error {
	if _, err := c.Mon(ctx, ceph.BlocklistCommand(true, client, lasting), nil); err != nil {
		return fmt.Errorf("fence client %s: %w", client, err)
	}
	return nil
}

func (c *cluster) Unfence(ctx context.Context, client ceph.ClientAddress) error {
	if _, err := c.Mon(ctx, ceph.BlocklistCommand(false, client, 0), nil); err != nil {
		return fmt.Errorf("take client %s off the blocklist: %w", client, err)
	}
	return nil
}
