package standalone

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/daemon"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/rpc/localapi"
)

// handleDown refuses under mounted volumes; otherwise it makes Run stop everything and
// tells the client how that goes.
func (s *Supervisor) handleDown(w http.ResponseWriter, r *http.Request) {
	var request localapi.DownRequest
	if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
		http.Error(w, "the request is not JSON", http.StatusBadRequest)
		return
	}
	send := sender(w)
	if err := s.checkMounts(request); err != nil {
		_ = send(localapi.Event{State: localapi.EventFail, Text: err.Error()})
		return
	}
	s.mu.Lock()
	if s.phase != localapi.StateStopping {
		s.phase, s.events = localapi.StateStopping, newHub()
	}
	s.mu.Unlock()
	select {
	case s.stopping <- request:
	default: // asked for already
	}
	_ = s.Follow(r.Context(), send)
}

// Stop stops a cluster that has no supervisor: s was opened for that alone.
func (s *Supervisor) Stop(ctx context.Context, request localapi.DownRequest, report func(localapi.Event) error) error {
	if err := s.checkMounts(request); err != nil {
		return err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { _ = s.Follow(ctx, report) }) // ends with the last event
	return s.stopAll(ctx, request)
}

// stopAll ends the children: services first, then what they work on. OSDs end at the
// same time, and before the monitors, which hear of it.
func (s *Supervisor) stopAll(ctx context.Context, request localapi.DownRequest) (err error) {
	ctx = context.WithoutCancel(ctx) // half stopped is no state to leave
	defer func() {
		end := localapi.Event{State: localapi.EventReady}
		if err != nil {
			end = localapi.Event{State: localapi.EventFail, Text: err.Error()}
		}
		s.hub().publish(end)
	}()
	for _, group := range s.stopOrder() {
		for _, c := range group {
			s.tell(localapi.Event{Step: "stop " + c.name, State: localapi.EventStart})
		}
		errs := make([]error, len(group))
		var wg sync.WaitGroup
		started := time.Now()
		for i, c := range group {
			wg.Go(func() { errs[i] = c.stop(ctx) })
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			return fmt.Errorf("stop daemons: %w", err)
		}
		for _, c := range group {
			s.tell(localapi.Event{Step: "stop " + c.name, State: localapi.EventDone, Took: time.Since(started).Seconds()})
		}
		if group[0].name == childAttach {
			// while the cluster still answers: what is unmounted can be written back
			if err := s.release(ctx, request); err != nil {
				return fmt.Errorf("let go of volumes (Ceph itself goes on; `holdfast up` starts the CSI services again): %w", err)
			}
		}
	}
	if request.Wipe {
		return s.wipe()
	}
	return nil
}

func (s *Supervisor) stopOrder() [][]*child {
	get := func(name string, cmd command.Cmd) *child {
		s.mu.Lock()
		defer s.mu.Unlock()
		if c := s.children[name]; c != nil {
			return c
		}
		return newChild(s.paths, name, cmd, s.tools.Log)
	}
	order := [][]*child{
		{get(childAgent, s.agentCommand())}, // it starts OSDs
		s.coordinatorChildren(get),
		{get(childCSI, s.csiCommand())},
		{get(childAttach, s.attachCommand())},
	}
	byKind := map[daemon.Kind][]*child{}
	for _, r := range append(s.state.daemons(), s.agentOSDs()...) {
		byKind[r.Kind] = append(byKind[r.Kind], get(r.Name(), s.config.Command(r)))
	}
	for _, kind := range []daemon.Kind{daemon.MDS, daemon.OSD, daemon.Mgr, daemon.Mon} {
		order = append(order, byKind[kind])
	}
	return slices.DeleteFunc(order, func(g []*child) bool { return len(g) == 0 })
}

// listenError explains why --listen cannot be had.
func (s *Supervisor) listenError(err error) error {
	if errors.Is(err, unix.EADDRINUSE) {
		_, port, _ := net.SplitHostPort(s.state.Listen)
		n, _ := strconv.Atoi(port)
		return fault.New(fault.Busy, "--listen %s is taken%s: choose another with --listen 127.0.0.1:PORT", s.state.Listen, holder(n))
	}
	return fmt.Errorf("listen on %s: %w", s.state.Listen, err)
}
