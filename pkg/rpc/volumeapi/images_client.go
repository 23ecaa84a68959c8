package volumeapi

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/rpc/unixhttp"
)

// idleImages is how many connections a transfer keeps.
const idleImages = 16

// NewImagesClient returns a client that keeps its connections, for transfers. Close its sessions.
func NewImagesClient(socket string) *Client {
	transport := unixhttp.Transport(socket)
	transport.MaxIdleConnsPerHost, transport.WriteBufferSize, transport.ReadBufferSize = idleImages, 64<<10, 64<<10
	return &Client{socket, &http.Client{Transport: transport}}
}

// Look tells what there is under a name.
func (c *Client) Look(ctx context.Context, name ImageName) (ImageLook, error) {
	return ask[ImageLook](ctx, c, http.MethodPost, PathImageLook, name)
}

// Session is an image that the services have open for the caller.
type Session struct {
	client *Client
	id     string
	cancel context.CancelFunc
	body   io.Closer
}

// Import begins to fill an image. Close the session.
func (c *Client) Import(ctx context.Context, r ImportRequest) (*Session, ImageMark, error) {
	var answer ImportSession
	s, err := c.begin(ctx, PathImport, r, &answer)
	if err != nil {
		return nil, ImageMark{}, err
	}
	if answer.Failure != nil {
		return nil, ImageMark{}, errors.Join(answer.Failure.Err(), s.Close())
	}
	s.id = answer.Session
	return s, answer.Mark, nil
}

// Export begins to read an image; the answer says of how many bytes, and which. Close the session.
func (c *Client) Export(ctx context.Context, r ExportRequest) (*Session, ExportSession, error) {
	var answer ExportSession
	s, err := c.begin(ctx, PathExport, r, &answer)
	if err != nil {
		return nil, answer, err
	}
	if answer.Failure != nil {
		return nil, answer, errors.Join(answer.Failure.Err(), s.Close())
	}
	s.id = answer.Session
	return s, answer, nil
}

// begin reads the first line of a session, whose connection stays.
func (c *Client) begin(ctx context.Context, path string, question, answer any) (*Session, error) {
	body, err := json.Marshal(question)
	if err != nil {
		return nil, fmt.Errorf("encode request: %w", err)
	}
	held, cancel := context.WithCancel(ctx)
	response, err := c.send(held, http.MethodPost, path, body, "") //nolint:bodyclose // the session closes it
	if err != nil {
		cancel()
		return nil, err
	}
	s := &Session{client: c, cancel: cancel, body: response.Body}
	line, err := bufio.NewReader(response.Body).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, answer)
	}
	if err != nil {
		return nil, errors.Join(fault.New(fault.Unavailable, "the CSI services begin no session: %w", err), s.Close())
	}
	return s, nil
}

// Close ends the session: what is not finished stays as it is.
func (s *Session) Close() error {
	s.cancel()
	err := s.body.Close()
	s.client.http.CloseIdleConnections()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func (s *Session) data(offset int64, length int) string {
	return fmt.Sprintf("%s?session=%s&offset=%d&length=%d", PathImageData, s.id, offset, length)
}

// Write puts a chunk into the image; sum is its SHA-256.
func (s *Session) Write(ctx context.Context, offset int64, data []byte, sum [sha256.Size]byte) error {
	response, err := s.client.send(ctx, http.MethodPut, s.data(offset, len(data)), data, hex.EncodeToString(sum[:]))
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, response.Body) // so that the connection is of use again
	return errors.Join(err, response.Body.Close())
}

// Read fills p from the image. What comes with another checksum than it left with is fault.Aborted.
func (s *Session) Read(ctx context.Context, p []byte, offset int64) error {
	response, err := s.client.send(ctx, http.MethodGet, s.data(offset, len(p)), nil, "")
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if _, err := io.ReadFull(response.Body, p); err != nil {
		return fault.New(fault.Unavailable, "read the image: %w", err)
	}
	if sum := sha256.Sum256(p); hex.EncodeToString(sum[:]) != response.Header.Get(HeaderSum) {
		return fault.New(fault.Aborted, "what came over the socket from offset %d has another checksum than it should", offset)
	}
	return nil
}

// Extents lists what a stretch of the image holds, in order.
func (s *Session) Extents(ctx context.Context, offset, length int64) ([]ImageExtent, error) {
	return ask[[]ImageExtent](ctx, s.client, http.MethodGet, fmt.Sprintf("%s?session=%s&offset=%d&length=%d", PathExtents, s.id, offset, length), nil)
}

// Keep remembers how far the session is.
func (s *Session) Keep(ctx context.Context, m ImageMark) error {
	_, err := ask[struct{}](ctx, s.client, http.MethodPost, PathImageKeep, KeepRequest{s.id, m})
	return err
}

// Compare has a stretch of the image read back.
func (s *Session) Compare(ctx context.Context, from, to int64, chunks []ImageChunk) error {
	_, err := ask[struct{}](ctx, s.client, http.MethodPost, PathCompare, CompareRequest{s.id, from, to, chunks})
	return err
}

// Finish gives an image that is whole its name, and removes the snapshot that an export took.
func (s *Session) Finish(ctx context.Context) (ImageFinished, error) {
	return ask[ImageFinished](ctx, s.client, http.MethodPost, PathImageFinish, SessionRequest{s.id})
}
