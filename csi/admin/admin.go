// Package admin serves package volumeapi for the controllers and nodes of a process: what a
// person needs beside CSI. It decides nothing itself, and imports no other service. What
// goes over its socket is worth as much as the credentials of the process, so nobody but its
// own user can open it.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"

	"github.com/holdfast-storage/holdfast/csi/volumeid"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/obs"
	"github.com/holdfast-storage/holdfast/pkg/rpc/unixhttp"
	"github.com/holdfast-storage/holdfast/pkg/rpc/volumeapi"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Controller is what a driver's controller service can tell and do.
type Controller interface {
	Inventory(ctx context.Context) (volumeapi.Inventory, error)
	Adoptable(ctx context.Context) (volumeapi.Adoptables, error)
	Orphans(ctx context.Context) (volumeapi.Orphans, error)
	// Summary tells what the last search found.
	Summary() volumeapi.Summary
	// DeleteOrphans passes over ids that are not of its driver.
	DeleteOrphans(ctx context.Context, ids []string) ([]volumeapi.Deletion, error)
	Pending(ctx context.Context, name string) ([]volumeapi.Pending, error)
	Rewrap(ctx context.Context, id string, secrets map[string]string) (volumeapi.Rewrapped, error)
	Sparsify(ctx context.Context, id string) (volumeapi.Reclaimed, error)
	// Allocated returns the name of a volume and what it takes on the cluster, in bytes.
	Allocated(ctx context.Context, id string) (name string, bytes storage.Bytes, err error)
}

// Node is what a driver's node service can do.
type Node interface {
	// Trim returns what the volume's file system gave back, in bytes.
	Trim(ctx context.Context, volume string) (storage.Bytes, error)
}

// Server answers the API. Its services are added before it serves.
type Server struct {
	mu          sync.Mutex // services are added from several goroutines
	controllers map[storage.Driver]Controller
	nodes       map[storage.Driver]Node
	images      Images // nil: this process transfers none
	log         *slog.Logger
}

// New returns a Server without services.
func New(log *slog.Logger) *Server {
	return &Server{controllers: map[storage.Driver]Controller{}, nodes: map[storage.Driver]Node{}, log: log}
}

// AddController adds a driver's controller service.
func (s *Server) AddController(driver storage.Driver, c Controller) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.controllers[driver] = c
}

// AddNode adds a driver's node service.
func (s *Server) AddNode(driver storage.Driver, n Node) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nodes[driver] = n
}

// bodyLimit is what a request may weigh, in bytes.
const bodyLimit = 4 << 20

// Serve answers on listener until ctx ends.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	return unixhttp.Serve(ctx, listener, s.Handler())
}

// Handler routes the API's paths.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+volumeapi.PathRecords, handle(s, s.records))
	mux.HandleFunc("GET "+volumeapi.PathAdoptable, handle(s, s.adoptable))
	mux.HandleFunc("GET "+volumeapi.PathOrphans, handle(s, s.orphans))
	mux.HandleFunc("POST "+volumeapi.PathDeleteOrphans, handle(s, s.deleteOrphans))
	mux.HandleFunc("GET "+volumeapi.PathSummary, handle(s, s.summary))
	mux.HandleFunc("GET "+volumeapi.PathPending, handle(s, s.pending))
	mux.HandleFunc("POST "+volumeapi.PathRewrap, handle(s, s.rewrap))
	mux.HandleFunc("POST "+volumeapi.PathSparsify, handle(s, s.sparsify))
	mux.HandleFunc("POST "+volumeapi.PathTrim, handle(s, s.trim))
	if s.images != nil {
		s.routeImages(mux)
	}
	return mux
}

// handle answers with what fn returns. Requests are not logged: they carry secrets.
func handle[A any](s *Server, fn func(*http.Request) (A, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, bodyLimit)
		answer, err := fn(r)
		var body any = answer
		w.Header().Set("Content-Type", "application/json")
		if err != nil {
			s.log.Warn("admin call failed", "method", r.URL.Path, obs.KeyError, err)
			w.WriteHeader(statusOf(err))
			body = volumeapi.FailureOf(err)
		}
		if err := json.NewEncoder(w).Encode(body); err != nil {
			s.log.Debug("admin call was given up", "method", r.URL.Path, obs.KeyError, err)
		}
	}
}

func statusOf(err error) int {
	switch {
	case errors.Is(err, fault.Invalid):
		return http.StatusBadRequest
	case errors.Is(err, fault.NotFound):
		return http.StatusNotFound
	case errors.Is(err, fault.Denied):
		return http.StatusForbidden
	case errors.Is(err, fault.Busy), errors.Is(err, fault.Precondition), errors.Is(err, fault.Aborted):
		return http.StatusConflict
	case errors.Is(err, fault.Unavailable):
		return http.StatusServiceUnavailable
	default:
		return http.StatusInternalServerError
	}
}

func read[Q any](r *http.Request) (Q, error) {
	var question Q
	if err := json.NewDecoder(r.Body).Decode(&question); err != nil {
		return question, fault.New(fault.Invalid, "the request is no JSON of its kind")
	}
	return question, nil
}

// drivers are both, in the order in which they are listed.
var drivers = []storage.Driver{storage.CephFS, storage.RBD}

// all asks each controller.
func all(s *Server, ask func(Controller) error) error {
	asked := false
	for _, d := range drivers {
		if c := s.controllers[d]; c != nil {
			asked = true
			if err := ask(c); err != nil {
				return err
			}
		}
	}
	if !asked {
		return fault.New(fault.Unsupported, "this process serves no controller: ask the one that does")
	}
	return nil
}

// of returns the service for a volume's id.
func of[S any](services map[storage.Driver]S, id, what string) (S, error) {
	h, err := volumeid.Parse(id)
	if err != nil {
		var none S
		if _, notForeign := volumeid.ParseForeign(id); notForeign == nil {
			err = fault.New(fault.Unsupported, "%s was made by ceph-csi, and this is done for Holdfast's own volumes alone; fstrim in its pod, or `rbd sparsify` on its image, does the same", id)
		}
		return none, err
	}
	service, ok := services[h.Driver]
	if !ok {
		return service, fault.New(fault.Unsupported, "this process serves no %s of %s: ask the one that does", what, h.Driver)
	}
	return service, nil
}

func (s *Server) records(r *http.Request) (volumeapi.Inventory, error) {
	found := volumeapi.Inventory{Records: []volumeapi.Record{}}
	err := all(s, func(c Controller) error {
		more, err := c.Inventory(r.Context())
		found.Records = append(found.Records, more.Records...)
		found.Problems = append(found.Problems, more.Problems...)
		return err
	})
	return found, err
}

func (s *Server) adoptable(r *http.Request) (volumeapi.Adoptables, error) {
	found := volumeapi.Adoptables{Volumes: []volumeapi.Adoptable{}}
	err := all(s, func(c Controller) error {
		more, err := c.Adoptable(r.Context())
		found.Volumes = append(found.Volumes, more.Volumes...)
		found.Problems = append(found.Problems, more.Problems...)
		return err
	})
	return found, err
}

func (s *Server) orphans(r *http.Request) (volumeapi.Orphans, error) {
	found := volumeapi.Orphans{Orphans: []volumeapi.Orphan{}}
	err := all(s, func(c Controller) error {
		more, err := c.Orphans(r.Context())
		found.Orphans = append(found.Orphans, more.Orphans...)
		found.Problems = append(found.Problems, more.Problems...)
		return err
	})
	return found, err
}

// summary adds the drivers' up; it is as old as the older search.
func (s *Server) summary(*http.Request) (volumeapi.Summary, error) {
	sum := volumeapi.Summary{Orphans: map[string]int{}}
	err := all(s, func(c Controller) error {
		one := c.Summary()
		for kind, n := range one.Orphans {
			sum.Orphans[kind] += n
		}
		if sum.At.IsZero() || one.At.Before(sum.At) {
			sum.At = one.At
		}
		return nil
	})
	return sum, err
}

func (s *Server) deleteOrphans(r *http.Request) ([]volumeapi.Deletion, error) {
	request, err := read[volumeapi.DeleteRequest](r)
	if err != nil {
		return nil, err
	}
	done := []volumeapi.Deletion{}
	err = all(s, func(c Controller) error {
		more, err := c.DeleteOrphans(r.Context(), request.IDs)
		done = append(done, more...)
		return err
	})
	return done, err
}

func (s *Server) pending(r *http.Request) ([]volumeapi.Pending, error) {
	name := r.URL.Query().Get("name")
	if name == "" {
		return nil, fault.New(fault.Invalid, "name is missing")
	}
	found := []volumeapi.Pending{}
	err := all(s, func(c Controller) error {
		more, err := c.Pending(r.Context(), name)
		found = append(found, more...)
		return err
	})
	if err == nil && len(found) == 0 {
		found = append(found, volumeapi.Pending{Name: name, State: "unknown", Reasons: []volumeapi.Reason{{
			What: "there is no record of it, and since this process started nobody has asked for it",
			Next: "see whether the claim names a StorageClass of this driver, and what the provisioner says: kubectl describe pvc; without Kubernetes: `holdfast volume list`",
		}}})
	}
	return found, err
}

func (s *Server) rewrap(r *http.Request) (volumeapi.Rewrapped, error) {
	request, err := read[volumeapi.RewrapRequest](r)
	if err != nil {
		return volumeapi.Rewrapped{}, err
	}
	c, err := of(s.controllers, request.ID, "controller")
	if err != nil {
		return volumeapi.Rewrapped{}, err
	}
	return c.Rewrap(r.Context(), request.ID, request.Secrets)
}

func (s *Server) sparsify(r *http.Request) (volumeapi.Reclaimed, error) {
	request, err := read[volumeapi.VolumeRequest](r)
	if err != nil {
		return volumeapi.Reclaimed{}, err
	}
	c, err := of(s.controllers, request.ID, "controller")
	if err != nil {
		return volumeapi.Reclaimed{}, err
	}
	return c.Sparsify(r.Context(), request.ID)
}

func (s *Server) trim(r *http.Request) (volumeapi.Reclaimed, error) {
	request, err := read[volumeapi.VolumeRequest](r)
	if err != nil {
		return volumeapi.Reclaimed{}, err
	}
	n, err := of(s.nodes, request.ID, "node")
	if err != nil {
		return volumeapi.Reclaimed{}, err
	}
	done := volumeapi.Reclaimed{How: "trim"}
	c, withController := of(s.controllers, request.ID, "controller")
	if withController == nil {
		if done.Name, done.Before, err = c.Allocated(r.Context(), request.ID); err != nil {
			return done, err
		}
	}
	if done.Trimmed, err = n.Trim(r.Context(), request.ID); err != nil {
		return done, err
	}
	if withController == nil {
		_, done.After, err = c.Allocated(r.Context(), request.ID)
	}
	return done, err
}
