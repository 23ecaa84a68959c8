package agentapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"syscall"

	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/rpc/unixhttp"
	"github.com/holdfast-storage/holdfast/pkg/rpc/volumeapi"
)

// Client talks to the agent behind a socket.
type Client struct {
	socket string
	http   *http.Client
}

// NewClient returns a client of the agent whose data lies in dir.
func NewClient(dir string) *Client {
	return &Client{Socket(dir), unixhttp.NewClient(Socket(dir))}
}

// Status asks what the agent does. fault.Unavailable: no agent runs.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return ask[Status](ctx, c, http.MethodGet, PathStatus, nil)
}

// Inventory asks for the node's disks.
func (c *Client) Inventory(ctx context.Context) (Inventory, error) {
	return ask[Inventory](ctx, c, http.MethodGet, PathInventory, nil)
}

// Plans lists all plans: those that were approved, the oldest first, then the proposals.
func (c *Client) Plans(ctx context.Context) ([]Plan, error) {
	return ask[[]Plan](ctx, c, http.MethodGet, PathPlans, nil)
}

// Propose hands a plan over for approval. fault.Precondition if it was made from another state than the one that there is.
func (c *Client) Propose(ctx context.Context, p plan.Plan) (Plan, error) {
	return ask[Plan](ctx, c, http.MethodPost, PathPlans, p)
}

// Do does one of the verbs to a plan. token names what is at stake where the verb asks for it.
func (c *Client) Do(ctx context.Context, id plan.ID, v Verb, token string) (Plan, error) {
	return ask[Plan](ctx, c, http.MethodPost, PathPlans+"/"+string(id)+"/"+string(v), Order{token})
}

// OSDs lists the OSDs on this node's disks.
func (c *Client) OSDs(ctx context.Context) ([]OSD, error) {
	return ask[[]OSD](ctx, c, http.MethodGet, PathOSDs, nil)
}

// PlanOSD plans something for an OSD, and keeps the plan for approval unless it is a dry run.
func (c *Client) PlanOSD(ctx context.Context, r OSDRequest) (Plan, error) {
	return ask[Plan](ctx, c, http.MethodPost, PathOSDPlan, r)
}

// Activate starts the OSDs that are not running, and returns them.
func (c *Client) Activate(ctx context.Context) ([]int, error) {
	return ask[[]int](ctx, c, http.MethodPost, PathActivate, nil)
}

// Watch passes on how far a plan is, until it goes on no more; the last status is returned. fault.Unavailable: the agent ended
// meanwhile.
func (c *Client) Watch(ctx context.Context, id plan.ID, tell func(executor.Status)) (executor.Status, error) {
	var last executor.Status
	response, err := c.send(ctx, http.MethodGet, PathPlans+"/"+string(id)+"/"+PathWatch, nil)
	if err != nil {
		return last, err
	}
	defer response.Body.Close()
	for decoder := json.NewDecoder(response.Body); ; tell(last) {
		err := decoder.Decode(&last)
		switch {
		case errors.Is(err, io.EOF) && !last.Phase.Moves():
			return last, nil
		case err != nil && ctx.Err() == nil:
			return last, fault.New(fault.Unavailable, "the agent ended: %w", err)
		case err != nil:
			return last, ctx.Err()
		}
	}
}

func ask[A any](ctx context.Context, c *Client, method, path string, question any) (A, error) {
	var answer A
	response, err := c.send(ctx, method, path, question)
	if err != nil {
		return answer, err
	}
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return answer, fmt.Errorf("decode the agent's answer: %w", err)
	}
	return answer, nil
}

func (c *Client) send(ctx context.Context, method, path string, question any) (*http.Response, error) {
	body, err := json.Marshal(question)
	if err != nil {
		return nil, fmt.Errorf("encode request: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://holdfast"+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	response, err := c.http.Do(request)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET):
		return nil, fault.New(fault.Unavailable, "no agent answers on %s", c.socket)
	case errors.Is(err, fs.ErrPermission):
		return nil, fault.New(fault.Denied, "only root may ask the agent: %w", err)
	case err != nil:
		return nil, fmt.Errorf("ask the agent: %w", err)
	case response.StatusCode == http.StatusOK:
		return response, nil
	}
	defer response.Body.Close()
	var f volumeapi.Failure
	if err := json.NewDecoder(response.Body).Decode(&f); err != nil {
		return nil, fmt.Errorf("ask the agent: %s", response.Status)
	}
	return nil, f.Err()
}
