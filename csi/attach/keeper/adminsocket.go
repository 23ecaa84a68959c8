package keeper

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"time"
)

// clientAddress asks ceph-fuse for its address in the cluster, through its admin socket:
// a command and a zero byte go in, the answer's length (4 bytes, big-endian) and the answer come
// out. https://docs.ceph.com/en/pacific/rados/operations/monitoring/#using-the-admin-socket
func clientAddress(ctx context.Context, socket string) (string, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", socket)
	if err != nil {
		return "", fmt.Errorf("reach ceph-fuse: %w", err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second)) // a unix socket takes deadlines
	if _, err := io.WriteString(conn, `{"prefix": "status", "format": "json"}`+"\x00"); err != nil {
		return "", fmt.Errorf("ask ceph-fuse: %w", err)
	}
	var size uint32
	if err := binary.Read(conn, binary.BigEndian, &size); err != nil {
		return "", fmt.Errorf("read answer of ceph-fuse: %w", err)
	}
	var status struct {
		Address string `json:"addr_str"`
	}
	if err := json.NewDecoder(io.LimitReader(conn, int64(min(size, 1<<20)))).Decode(&status); err != nil {
		return "", fmt.Errorf("read answer of ceph-fuse: %w", err)
	}
	return status.Address, nil
}
