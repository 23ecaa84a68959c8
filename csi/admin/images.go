package admin

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/obs"
	"github.com/holdfast-storage/holdfast/pkg/rpc/volumeapi"
)

// Images writes disks into RBD images and reads them out.
type Images interface {
	Look(ctx context.Context, name volumeapi.ImageName) (volumeapi.ImageLook, error)
	// Import and Export begin sessions, which End ends: what is not finished then stays as it is.
	Import(ctx context.Context, r volumeapi.ImportRequest) (volumeapi.ImportSession, error)
	Export(ctx context.Context, r volumeapi.ExportRequest) (volumeapi.ExportSession, error)
	End(session string) error
	// Write and Read move at most volumeapi.ImageChunkLimit bytes; sum is their SHA-256 in hex.
	Write(ctx context.Context, session string, offset int64, data []byte, sum string) error
	Read(ctx context.Context, session string, offset int64, length int) (data []byte, sum string, err error)
	Extents(ctx context.Context, session string, offset, length int64) ([]volumeapi.ImageExtent, error)
	Keep(ctx context.Context, r volumeapi.KeepRequest) error
	Compare(ctx context.Context, r volumeapi.CompareRequest) error
	Finish(ctx context.Context, session string) (volumeapi.ImageFinished, error)
}

// SetImages adds the transfer of disks.
func (s *Server) SetImages(images Images) { s.images = images }

func (s *Server) routeImages(mux *http.ServeMux) {
	mux.HandleFunc("POST "+volumeapi.PathImageLook, handle(s, asked(s.images.Look)))
	mux.HandleFunc("POST "+volumeapi.PathImport, s.session(func(ctx context.Context, r *http.Request) (any, string, error) {
		answer, err := asked(s.images.Import)(r.WithContext(ctx))
		return answer, answer.Session, err
	}, func(f *volumeapi.Failure) any { return volumeapi.ImportSession{Failure: f} }))
	mux.HandleFunc("POST "+volumeapi.PathExport, s.session(func(ctx context.Context, r *http.Request) (any, string, error) {
		answer, err := asked(s.images.Export)(r.WithContext(ctx))
		return answer, answer.Session, err
	}, func(f *volumeapi.Failure) any { return volumeapi.ExportSession{Failure: f} }))
	mux.HandleFunc("PUT "+volumeapi.PathImageData, handle(s, s.writeImage))
	mux.HandleFunc("GET "+volumeapi.PathImageData, s.readImage)
	mux.HandleFunc("GET "+volumeapi.PathExtents, handle(s, s.extents))
	mux.HandleFunc("POST "+volumeapi.PathImageKeep, handle(s, asked(func(ctx context.Context, r volumeapi.KeepRequest) (struct{}, error) {
		return struct{}{}, s.images.Keep(ctx, r)
	})))
	mux.HandleFunc("POST "+volumeapi.PathCompare, handle(s, asked(func(ctx context.Context, r volumeapi.CompareRequest) (struct{}, error) {
		return struct{}{}, s.images.Compare(ctx, r)
	})))
	mux.HandleFunc("POST "+volumeapi.PathImageFinish, handle(s, asked(func(ctx context.Context, r volumeapi.SessionRequest) (volumeapi.ImageFinished, error) {
		return s.images.Finish(ctx, r.Session)
	})))
}

// asked decodes a request's body for fn.
func asked[Q, A any](fn func(context.Context, Q) (A, error)) func(*http.Request) (A, error) {
	return func(r *http.Request) (A, error) {
		question, err := read[Q](r)
		if err != nil {
			var none A
			return none, err
		}
		return fn(r.Context(), question)
	}
}

// session answers with a line, and ends the session when the caller goes.
func (s *Server) session(begin func(context.Context, *http.Request) (answer any, id string, err error), failed func(*volumeapi.Failure) any) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		r.Body = http.MaxBytesReader(w, r.Body, bodyLimit)
		answer, id, err := begin(ctx, r)
		_, _ = io.Copy(io.Discard, r.Body) // only then the server sees the caller go
		if err != nil {
			s.log.Warn("admin call failed", "method", r.URL.Path, obs.KeyError, err)
			failure := volumeapi.FailureOf(err)
			answer = failed(&failure)
		} else {
			defer func() {
				if err := s.images.End(id); err != nil {
					s.log.Warn("image was not closed", obs.KeyError, err)
				}
			}()
		}
		w.Header().Set("Content-Type", "application/json")
		if json.NewEncoder(w).Encode(answer) != nil || http.NewResponseController(w).Flush() != nil || err != nil {
			return
		}
		<-ctx.Done()
	}
}

// numbers reads offset and length of a query.
func numbers(q url.Values) (offset, length int64, err error) {
	offset, err = strconv.ParseInt(q.Get("offset"), 10, 64)
	if err == nil && q.Has("length") {
		length, err = strconv.ParseInt(q.Get("length"), 10, 64)
	}
	if err != nil {
		err = fault.New(fault.Invalid, "offset or length: %w", err)
	}
	return offset, length, err
}

func (s *Server) writeImage(r *http.Request) (struct{}, error) {
	q := r.URL.Query()
	offset, _, err := numbers(q)
	if err != nil {
		return struct{}{}, err
	}
	if r.ContentLength < 0 || r.ContentLength > volumeapi.ImageChunkLimit {
		return struct{}{}, fault.New(fault.Invalid, "a chunk has at most %d bytes, and says how many", volumeapi.ImageChunkLimit)
	}
	data := make([]byte, r.ContentLength)
	if _, err := io.ReadFull(r.Body, data); err != nil {
		return struct{}{}, fault.New(fault.Aborted, "the chunk was cut off: %w", err)
	}
	return struct{}{}, s.images.Write(r.Context(), q.Get("session"), offset, data, r.Header.Get(volumeapi.HeaderSum))
}

func (s *Server) readImage(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	offset, length, err := numbers(q)
	if err == nil && length > volumeapi.ImageChunkLimit {
		err = fault.New(fault.Invalid, "at most %d bytes are read at once", volumeapi.ImageChunkLimit)
	}
	var data []byte
	var sum string
	if err == nil {
		data, sum, err = s.images.Read(r.Context(), q.Get("session"), offset, int(length))
	}
	if err != nil {
		handle(s, func(*http.Request) (struct{}, error) { return struct{}{}, err })(w, r)
		return
	}
	w.Header().Set(volumeapi.HeaderSum, sum)
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	w.Header().Set("Content-Type", "application/octet-stream")
	if _, err := w.Write(data); err != nil { //nolint:gosec // G705: bytes of a disk, for a program on a private socket
		s.log.Debug("admin call was given up", "method", r.URL.Path, obs.KeyError, err)
	}
}

func (s *Server) extents(r *http.Request) ([]volumeapi.ImageExtent, error) {
	offset, length, err := numbers(r.URL.Query())
	if err != nil {
		return nil, err
	}
	return s.images.Extents(r.Context(), r.URL.Query().Get("session"), offset, length)
}
