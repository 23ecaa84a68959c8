package keeper

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"

	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// Client talks to a keeper. The zero socket answers every call with fault.Unsupported.
type Client struct {
	socket string
	http   *http.Client
}

// NewClient returns a client of the keeper at the unix socket.
func NewClient(socket string) *Client {
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
		DisableKeepAlives: true,
	}
	return &Client{socket: socket, http: &http.Client{Transport: transport}}
}

// Start attaches (idempotent); see Spec.
func (c *Client) Start(ctx context.Context, s Spec) (Status, error) {
	var out Status
	err := c.call(ctx, "start", s, &out)
	return out, err
}

// Stop detaches (idempotent). fault.Busy while the mount is in use.
func (c *Client) Stop(ctx context.Context, id string) error {
	return c.call(ctx, "stop", idRequest{ID: id}, nil)
}

// Discard is Stop for an attachment whose mount is known to be dead: who still has it
// has nothing of it.
func (c *Client) Discard(ctx context.Context, id string) error {
	return c.call(ctx, "stop", idRequest{ID: id, Dead: true}, nil)
}

// Resize makes an exported image show size bytes; fault.Range if it is larger now.
func (c *Client) Resize(ctx context.Context, id string, size int64) (Status, error) {
	var out Status
	err := c.call(ctx, "resize", idRequest{ID: id, Size: size}, &out)
	return out, err
}

// Describe returns an attachment's state, fault.NotFound without one.
func (c *Client) Describe(ctx context.Context, id string) (Status, error) {
	var out Status
	err := c.call(ctx, "describe", idRequest{ID: id}, &out)
	return out, err
}

// List returns all attachments.
func (c *Client) List(ctx context.Context) ([]Status, error) {
	var out []Status
	err := c.call(ctx, "list", struct{}{}, &out)
	return out, err
}

// Ability says what the keeper's host can attach.
func (c *Client) Ability(ctx context.Context) (Ability, error) {
	var out Ability
	err := c.call(ctx, "ability", struct{}{}, &out)
	return out, err
}

func (c *Client) call(ctx context.Context, verb string, in, out any) error {
	if c == nil || c.socket == "" {
		return fault.New(fault.Unsupported, "no attach daemon is configured (--attach-socket)")
	}
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("encode %s: %w", verb, err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://attach/v1/"+verb, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("%s: %w", verb, err)
	}
	answer, err := c.http.Do(request)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fault.As(fault.Unavailable, fmt.Errorf("the attach daemon does not answer; is `holdfastd attach --socket %s` running? %w", c.socket, err))
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		var wire wireError
		if err := json.NewDecoder(answer.Body).Decode(&wire); err != nil {
			return fmt.Errorf("read error of attach daemon: %w", err)
		}
		return wire.err()
	}
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(answer.Body).Decode(out); err != nil {
		return fmt.Errorf("read answer of attach daemon: %w", err)
	}
	return nil
}
