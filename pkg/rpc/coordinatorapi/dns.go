package coordinatorapi

import (
	"context"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// DNSPrefix marks an address that is no host and port, but a name whose SRV records are the coordinators:
// "srv:_coordinator._tcp.holdfast.example.org".
const DNSPrefix = "srv:"

// Named is a coordinator as DNS knows it.
type Named struct {
	Name    string // the first label of the record's target, as in a StatefulSet
	Address string // host:port
}

// Lookup reads the SRV records of a name, by the coordinators' names. fault.Unavailable: DNS does not answer, or knows none.
func Lookup(ctx context.Context, resolver *net.Resolver, name string) ([]Named, error) {
	_, records, err := resolver.LookupSRV(ctx, "", "", name)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "look coordinators up: %w", err)
	}
	var list []Named
	for _, r := range records {
		host := strings.TrimSuffix(r.Target, ".")
		label, _, _ := strings.Cut(host, ".")
		list = append(list, Named{Name: label, Address: net.JoinHostPort(host, strconv.Itoa(int(r.Port)))})
	}
	slices.SortFunc(list, func(a, b Named) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}
