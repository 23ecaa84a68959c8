package volumeapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"syscall"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/rpc/unixhttp"
)

// classes are those that a Failure can carry.
var classes = []error{
	fault.Invalid, fault.NotFound, fault.Exists, fault.Busy, fault.Precondition, fault.Exhausted, fault.Range,
	fault.Unavailable, fault.Unsupported, fault.Denied, fault.Aborted, fault.Token,
}

// FailureOf returns what is sent of an error.
func FailureOf(err error) Failure {
	for _, class := range classes {
		if errors.Is(err, class) {
			return Failure{Class: class.Error(), Message: err.Error()}
		}
	}
	return Failure{Message: err.Error()}
}

// Err is the error that was sent.
func (f Failure) Err() error {
	for _, class := range classes {
		if class.Error() == f.Class {
			return fault.New(class, "%s", f.Message)
		}
	}
	return errors.New(f.Message)
}

// Client talks to the CSI controller process behind a socket.
type Client struct {
	socket string
	http   *http.Client
}

// NewClient returns a client of the API at socket.
func NewClient(socket string) *Client {
	return &Client{socket, unixhttp.NewClient(socket)}
}

// Records returns every record.
func (c *Client) Records(ctx context.Context) (Inventory, error) {
	return ask[Inventory](ctx, c, http.MethodGet, PathRecords, nil)
}

// Adoptable lists what ceph-csi made.
func (c *Client) Adoptable(ctx context.Context) (Adoptables, error) {
	return ask[Adoptables](ctx, c, http.MethodGet, PathAdoptable, nil)
}

// Orphans looks for orphans, which takes the longer the more images there are.
func (c *Client) Orphans(ctx context.Context) (Orphans, error) {
	return ask[Orphans](ctx, c, http.MethodGet, PathOrphans, nil)
}

// Summary tells what the last search found.
func (c *Client) Summary(ctx context.Context) (Summary, error) {
	return ask[Summary](ctx, c, http.MethodGet, PathSummary, nil)
}

// DeleteOrphans deletes those that are orphans still.
func (c *Client) DeleteOrphans(ctx context.Context, ids []string) ([]Deletion, error) {
	return ask[[]Deletion](ctx, c, http.MethodPost, PathDeleteOrphans, DeleteRequest{ids})
}

// Pending says why a volume is not there, for each that the name may mean.
func (c *Client) Pending(ctx context.Context, name string) ([]Pending, error) {
	return ask[[]Pending](ctx, c, http.MethodGet, PathPending+"?name="+url.QueryEscape(name), nil)
}

// Rewrap wraps a volume's key anew.
func (c *Client) Rewrap(ctx context.Context, request RewrapRequest) (Rewrapped, error) {
	return ask[Rewrapped](ctx, c, http.MethodPost, PathRewrap, request)
}

// Sparsify gives the zeros of a volume that no node has back to the pool.
func (c *Client) Sparsify(ctx context.Context, id string) (Reclaimed, error) {
	return ask[Reclaimed](ctx, c, http.MethodPost, PathSparsify, VolumeRequest{id})
}

// Trim gives back what the file system of a volume that is staged on this node does not use.
func (c *Client) Trim(ctx context.Context, id string) (Reclaimed, error) {
	return ask[Reclaimed](ctx, c, http.MethodPost, PathTrim, VolumeRequest{id})
}

func ask[A any](ctx context.Context, c *Client, method, path string, question any) (A, error) {
	var answer A
	body, err := json.Marshal(question)
	if err != nil {
		return answer, fmt.Errorf("encode request: %w", err)
	}
	response, err := c.send(ctx, method, path, body, "")
	if err != nil {
		return answer, err
	}
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return answer, fault.New(fault.Unavailable, "decode the answer of the CSI services: %w", err)
	}
	return answer, nil
}

// send returns an answer that is no failure; its body is the caller's to close. sum, unless "", is the body's.
func (c *Client) send(ctx context.Context, method, path string, body []byte, sum string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, "http://holdfast"+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	if sum != "" {
		request.Header.Set(HeaderSum, sum)
	}
	response, err := c.http.Do(request)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, fault.New(fault.Unavailable, "the CSI services do not answer on %s: `holdfast status` says what runs", c.socket)
	case err != nil && ctx.Err() == nil: // they died meanwhile
		return nil, fault.New(fault.Unavailable, "ask the CSI services: %w", err)
	case err != nil:
		return nil, fmt.Errorf("ask the CSI services: %w", err)
	case response.StatusCode == http.StatusOK:
		return response, nil
	}
	defer response.Body.Close()
	var f Failure
	if err := json.NewDecoder(response.Body).Decode(&f); err != nil {
		return nil, fmt.Errorf("ask the CSI services: %s", response.Status)
	}
	return nil, f.Err()
}
