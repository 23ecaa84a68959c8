package ceph

import (
	"context"
	"encoding/json"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// ClientAddress is one client of a cluster: IP address and nonce, as the blocklist names it,
// "10.0.0.1:0/123" or "[fd00::1]:0/123". ParseClient makes it, so that equal ones compare equal.
type ClientAddress string

// ParseClient reads the forms in which Ceph's programs, the kernel and librbd write a client's
// address: with or without the messenger's version ("v1:", "v2:", "any:"), with any port (a client
// listens on none). fault.Invalid for anything else, and for an address without a nonce: that
// would name every client of a machine.
func ParseClient(text string) (ClientAddress, error) {
	bad := func() (ClientAddress, error) {
		return "", fault.New(fault.Invalid, "client address %q: want IP:PORT/NONCE", text)
	}
	rest := text
	for _, version := range []string{"v1:", "v2:", "any:"} {
		if cut, ok := strings.CutPrefix(text, version); ok {
			rest = cut
		}
	}
	hostPort, nonce, ok := strings.Cut(rest, "/")
	if !ok {
		return bad()
	}
	number, err := strconv.ParseUint(nonce, 10, 32)
	if err != nil || number == 0 {
		return bad()
	}
	address, err := netip.ParseAddrPort(hostPort)
	if err != nil || address.Addr().IsUnspecified() || address.Addr().Zone() != "" {
		return bad()
	}
	host := netip.AddrPortFrom(address.Addr().Unmap(), 0)
	return ClientAddress(host.String() + "/" + strconv.FormatUint(number, 10)), nil
}

// Host returns the IP address.
func (c ClientAddress) Host() string {
	hostPort, _, _ := strings.Cut(string(c), "/")
	address, err := netip.ParseAddrPort(hostPort)
	if err != nil {
		return ""
	}
	return address.Addr().String()
}

// Fencer shuts single clients out of a cluster: from then on no OSD and no MDS takes anything from
// them, also not what is on its way. https://docs.ceph.com/en/pacific/rados/operations/control/
type Fencer interface {
	// Self returns the address of this very connection.
	Self(ctx context.Context) (ClientAddress, error)
	// Fence puts a client on the cluster's blocklist for so long, counted from now; again: anew.
	// When it returns the monitors have decided; an OSD serves the client until it has the newer
	// map, see Barrier.
	Fence(ctx context.Context, client ClientAddress, lasting time.Duration) error
	// Barrier returns when every OSD to which clients of the pool write knows all fences until
	// now, so that nothing of a fenced client arrives any more.
	Barrier(ctx context.Context, pool string) error
	// Unfence takes a client off the list; one that is not on it is no error.
	Unfence(ctx context.Context, client ClientAddress) error
}

// BlocklistCommand is the monitor command that adds a client or removes it; lasting counts for adding.
func BlocklistCommand(add bool, client ClientAddress, lasting time.Duration) map[string]any {
	if add {
		return map[string]any{"prefix": "osd blocklist", "blocklistop": "add", "addr": string(client), "expire": json.Number(strconv.FormatInt(int64(lasting/time.Second), 10) + ".0")} // a float: Ceph refuses 60
	}
	return map[string]any{"prefix": "osd blocklist", "blocklistop": "rm", "addr": string(client)}
}
