// Package coordinatorapi is the way to the coordinators: a client that finds the leader among the addresses it knows.
// It is pure Go, so that the CLI can import it.
package coordinatorapi

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/holdfast-storage/holdfast/pkg/certs"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi/coordinatorv1"
)

// EndpointsFile is the name of the file that holds the coordinators' addresses, a line each, beside the certificate of who calls them.
const EndpointsFile = "endpoints"

// Endpoints reads the file in a directory.
func Endpoints(dir string) ([]string, error) {
	data, err := os.ReadFile(filepath.Join(dir, EndpointsFile))
	if err != nil {
		return nil, fmt.Errorf("read the coordinators' addresses: %w", err)
	}
	return strings.Fields(string(data)), nil
}

// LeaderTrailer is the trailer in which a member that does not lead tells the leader's address.
const LeaderTrailer = "holdfast-leader"

// Ping is how often a client whose call is under way makes sure that the member is there: a watcher would wait for a dead one for ever.
const Ping = 20 * time.Second

const pingPatience = 5 * time.Second

// CallOption is gRPC's, for the functions that Call is given.
type CallOption = grpc.CallOption

// Client talks to the coordinators.
type Client struct {
	certs *certs.Store

	// Resolver looks up names behind DNSPrefix; New sets the system's.
	Resolver *net.Resolver
	named    []string

	mu        sync.Mutex
	addresses []string // the last that answered first
	looked    time.Time
	unnamed   error // why DNS named none
	conns     map[string]*grpc.ClientConn
}

// New makes a client for members at addresses: host:port each, or DNSPrefix with a name.
func New(store *certs.Store, addresses []string) *Client {
	c := &Client{certs: store, Resolver: net.DefaultResolver, conns: map[string]*grpc.ClientConn{}}
	for _, a := range addresses {
		if name, ok := strings.CutPrefix(a, DNSPrefix); ok {
			c.named = append(c.named, name)
		} else {
			c.addresses = append(c.addresses, a)
		}
	}
	return c
}

// Close ends its connections.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.conns {
		_ = conn.Close() // it says no more than that it was closed before
	}
	clear(c.conns)
}

// At is the API of the member at one address, whether it leads or not.
func (c *Client) At(address string) (coordinatorv1.CoordinatorClient, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	conn, ok := c.conns[address]
	if !ok {
		var err error
		conn, err = grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(credentials.NewTLS(c.certs.Client(certs.GRPC, certs.Coordinator, ""))),
			grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: Ping, Timeout: pingPatience}), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20), grpc.MaxCallSendMsgSize(16<<20)))
		if err != nil {
			return nil, fault.New(fault.Invalid, "coordinator at %q: %w", address, err)
		}
		c.conns[address] = conn
	}
	return coordinatorv1.NewCoordinatorClient(conn), nil
}

// lookAgain is how long what DNS said holds.
const lookAgain = 30 * time.Second

// Addresses are those that are known, the last that answered first, with those that DNS names.
func (c *Client) Addresses(ctx context.Context) []string {
	c.mu.Lock()
	known, fresh := slices.Clone(c.addresses), len(c.addresses) > 0 && time.Since(c.looked) < lookAgain
	c.mu.Unlock()
	if len(c.named) == 0 || fresh {
		return known
	}
	ctx, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	var found []Named
	var failed error
	for _, name := range c.named {
		list, err := Lookup(ctx, c.Resolver, name)
		found, failed = append(found, list...), errors.Join(failed, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.looked, c.unnamed = time.Now(), failed
	for _, f := range found {
		if !slices.Contains(c.addresses, f.Address) {
			c.addresses = append(c.addresses, f.Address)
		}
	}
	return slices.Clone(c.addresses)
}

// missing is why there are no addresses; nil if there are.
func (c *Client) missing() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.addresses) > 0 {
		return nil
	}
	return c.unnamed
}

// first puts an address in front.
func (c *Client) first(address string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.addresses = slices.DeleteFunc(c.addresses, func(a string) bool { return a == address })
	c.addresses = slices.Insert(c.addresses, 0, address)
}

// between is the pause between two rounds over all members.
const between = 200 * time.Millisecond

// Call calls the leader, wherever it is: it goes over the members again until one answers or ctx ends. call may be done more
// than once: what must not be done twice needs a key.
func Call[T any](ctx context.Context, c *Client, call func(context.Context, coordinatorv1.CoordinatorClient, ...CallOption) (T, error)) (T, error) {
	var none T
	var last error
	for {
		for _, address := range c.Addresses(ctx) {
			answer, hint, err := try(ctx, c, address, call)
			if hint != "" && hint != address {
				answer, _, err = try(ctx, c, hint, call)
				address = hint
			}
			if err == nil || !again(err) {
				c.first(address)
				return answer, fault.FromStatus(err)
			}
			last = err
		}
		select {
		case <-ctx.Done():
			return none, fault.New(fault.Unavailable, "no coordinator answers as the leader (%s): %w", describe(cmp.Or(last, c.missing())), ctx.Err())
		case <-time.After(between):
		}
	}
}

// Once calls the leader once, with all of the caller's time: for what takes long, or must not be done twice.
func Once[T any](ctx context.Context, c *Client, call func(context.Context, coordinatorv1.CoordinatorClient, ...CallOption) (T, error)) (T, error) {
	var none T
	s, err := Call(ctx, c, func(ctx context.Context, api coordinatorv1.CoordinatorClient, o ...CallOption) (*coordinatorv1.Status, error) {
		s, err := api.GetStatus(ctx, &coordinatorv1.GetStatusRequest{}, o...)
		if err == nil && s.GetLeader().GetAddress() == "" {
			err = status.Error(codes.Unavailable, "nobody leads")
		}
		return s, err
	})
	if err != nil {
		return none, err
	}
	api, err := c.At(s.GetLeader().GetAddress())
	if err != nil {
		return none, err
	}
	answer, err := call(ctx, api)
	return answer, fault.FromStatus(err)
}

// attempt is how long one member may take, so that a dead one does not use up the caller's time.
const attempt = 3 * time.Second

func try[T any](ctx context.Context, c *Client, address string, call func(context.Context, coordinatorv1.CoordinatorClient, ...CallOption) (T, error)) (answer T, hint string, err error) {
	api, err := c.At(address)
	if err != nil {
		return answer, "", err
	}
	ctx, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	var trailer metadata.MD
	answer, err = call(ctx, api, grpc.Trailer(&trailer))
	if values := trailer.Get(LeaderTrailer); err != nil && len(values) == 1 {
		hint = values[0]
	}
	return answer, hint, err
}

// again reports whether another member, or a later moment, may give an answer.
func again(err error) bool {
	code := status.Code(err)
	return code == codes.Unavailable || code == codes.DeadlineExceeded
}

func describe(err error) string {
	if err == nil {
		return "none was asked"
	}
	return fmt.Sprint(status.Convert(err).Message())
}
