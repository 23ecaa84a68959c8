package localapi

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/rpc/unixhttp"
)

// Socket returns the path of the API of the cluster in dir.
func Socket(dir string) string { return filepath.Join(dir, "run", "api.sock") }

// StateFile returns the path of the cluster's own record in dir.
func StateFile(dir string) string { return filepath.Join(dir, "cluster.json") }

// Identity is what cluster.json begins with: enough to know whose directory it is, also
// for a version of Holdfast that cannot read the rest.
type Identity struct {
	Kind    string `json:"kind"`
	Version int    `json:"version"`
	FSID    string `json:"fsid"`
	Listen  string `json:"listen"`
	CSI     bool   `json:"csi"`
}

// CoordinatorDir is the directory of the coordinators of the cluster in dir; AdminDir holds a person's certificate below it.
func CoordinatorDir(dir string) string { return filepath.Join(dir, "coordinator") }

// AdminDir is the name of the directory with a person's certificate.
const AdminDir = "admin"

// IdentityKind marks a cluster.json as Holdfast's.
const IdentityKind = "holdfast-standalone"

// ReadIdentity returns whose directory dir is: fault.NotFound when it holds no cluster,
// fault.Invalid when its cluster.json is not Holdfast's.
func ReadIdentity(dir string) (Identity, error) {
	var id Identity
	data, err := os.ReadFile(StateFile(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return id, fault.New(fault.NotFound, "there is no cluster in %s: `holdfast up --data-dir %s` makes one", dir, dir)
	}
	if err != nil {
		return id, fmt.Errorf("read the cluster's record: %w", err)
	}
	if err := json.Unmarshal(data, &id); err != nil || id.Kind != IdentityKind {
		return id, fault.New(fault.Invalid, "%s is not Holdfast's", StateFile(dir))
	}
	return id, nil
}

// OwnOSDs are the ids of the OSDs that the supervisor of the cluster in dir looks after; none where there is no supervisor.
func OwnOSDs(dir string) ([]int, error) {
	data, err := os.ReadFile(StateFile(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the cluster's record: %w", err)
	}
	var state struct {
		OSDs []struct {
			ID int `json:"id"`
		} `json:"osds"`
	}
	if err := json.Unmarshal(data, &state); err != nil {
		return nil, fault.New(fault.Invalid, "%s: %w", StateFile(dir), err)
	}
	var ids []int
	for _, o := range state.OSDs {
		ids = append(ids, o.ID)
	}
	return ids, nil
}

// Client talks to the supervisor of one cluster.
type Client struct {
	dir  string
	http *http.Client
}

// NewClient returns a client of the cluster in dir.
func NewClient(dir string) *Client {
	return &Client{dir: dir, http: unixhttp.NewClient(Socket(dir))}
}

// Status asks for the status. fault.Unavailable: no supervisor runs.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	response, err := c.do(ctx, http.MethodGet, "/v1/status", nil)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	var status Status
	if err := json.NewDecoder(response.Body).Decode(&status); err != nil {
		return nil, fmt.Errorf("decode the supervisor's status: %w", err)
	}
	return &status, nil
}

// Down asks the supervisor to stop everything, and passes on its progress until it
// ends. The last event was EventReady when the error is nil.
func (c *Client) Down(ctx context.Context, request DownRequest, progress func(Event)) error {
	body, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	response, err := c.do(ctx, http.MethodPost, "/v1/down", body)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if err := ReadEvents(response.Body, progress); err != nil {
		return err
	}
	return AwaitEnd(ctx, c.dir)
}

// AwaitEnd waits until the supervisor of dir, which has done its work, is gone: its lock
// on DIR/run/lock is free, or went away with the directory.
func AwaitEnd(ctx context.Context, dir string) error {
	lock, err := os.Open(filepath.Join(dir, "run", "lock"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open the directory's lock: %w", err)
	}
	defer lock.Close()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := syscall.Flock(int(lock.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
		if err == nil {
			return nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return fmt.Errorf("look at the directory's lock: %w", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// Follow passes on the progress of the bring-up under way until it ends.
func (c *Client) Follow(ctx context.Context, progress func(Event)) error {
	response, err := c.do(ctx, http.MethodGet, "/v1/up", nil)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	return ReadEvents(response.Body, progress)
}

func (c *Client) do(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, "http://holdfast"+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	response, err := c.http.Do(request)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED),
		errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE): // it ended meanwhile
		return nil, fault.New(fault.Unavailable, "no supervisor runs in %s", c.dir)
	case err != nil:
		return nil, fmt.Errorf("ask the supervisor of %s: %w", c.dir, err)
	case response.StatusCode != http.StatusOK:
		text, _ := io.ReadAll(io.LimitReader(response.Body, 4096))
		response.Body.Close()
		return nil, fmt.Errorf("ask the supervisor of %s: %s: %s", c.dir, response.Status, bytes.TrimSpace(text))
	}
	return response, nil
}

// ReadEvents reads progress, a JSON value a line, until EventReady (nil) or EventFail
// (its text as the error). An end before either is an error too.
func ReadEvents(r io.Reader, progress func(Event)) error {
	scanner := bufio.NewScanner(r)
	for scanner.Scan() {
		var event Event
		if err := json.Unmarshal(scanner.Bytes(), &event); err != nil {
			return fmt.Errorf("decode progress: %w", err)
		}
		progress(event)
		switch event.State {
		case EventReady:
			return nil
		case EventFail:
			return errors.New(event.Text)
		}
	}
	if err := scanner.Err(); err != nil {
		return fmt.Errorf("read progress: %w", err)
	}
	return fault.New(fault.Unavailable, "the supervisor ended without saying why")
}
