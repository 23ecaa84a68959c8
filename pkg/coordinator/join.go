package coordinator

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"time"

	"golang.org/x/net/netutil"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/holdfast-storage/holdfast/pkg/certs"
	"github.com/holdfast-storage/holdfast/pkg/coordinator/fsm"
	"github.com/holdfast-storage/holdfast/pkg/coordinator/raftnode"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/obs"
	"github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi"
	"github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi/coordinatorv1"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// noCA says what a member without the CA's key cannot do.
func (s *Server) noCA() error {
	return fault.New(fault.Precondition, "coordinator %s has no key of the CA: start the coordinators with --ca, or make certificates by `holdfast coordinator certificate`", s.members.Name())
}

// CreateToken makes a token by which a process gets its certificate.
func (s *Server) CreateToken(ctx context.Context, r *coordinatorv1.CreateTokenRequest) (*coordinatorv1.Token, error) {
	if err := s.log.Current(ctx); err != nil { // it is the leader's key that counts
		return nil, err
	}
	if s.CA == nil {
		return nil, s.noCA()
	}
	id := certs.Identity{Role: certs.Role(r.GetRole()), Name: r.GetName()}
	if id.Role != certs.Agent && id.Role != certs.Coordinator {
		return nil, fault.New(fault.Invalid, "tokens are for agents and coordinators, not for %s", id)
	}
	members, err := s.members.Members()
	if err != nil {
		return nil, err
	}
	var addresses []string
	for _, m := range members {
		addresses = append(addresses, m.Address)
	}
	token, err := certs.NewToken(addresses, s.certs.CAs(), id)
	if err != nil {
		return nil, err
	}
	expires := s.now().Add(r.GetTtl().AsDuration()).UTC()
	if err := s.do(ctx, "", &fsm.Admit{Hash: token.Hash(), Token: fsm.Token{Role: string(id.Role), Name: id.Name, Expires: expires}}, nil); err != nil {
		return nil, err
	}
	text, err := token.Reveal()
	return &coordinatorv1.Token{Token: text, Expires: timestamppb.New(expires)}, err
}

// Bounds of what those may cost who have no certificate.
const (
	largestJoin  = 64 << 10        // bytes of a request
	joinPatience = 5 * time.Second // to send it, and to answer it
	mostJoining  = 64              // connections
)

// Joining serves those who have a token and no certificate, on connections of certs.Join, through Plain.
func (s *Server) Joining() *http.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+coordinatorapi.JoinPath, func(w http.ResponseWriter, r *http.Request) {
		var q coordinatorapi.JoinRequest
		err := json.NewDecoder(http.MaxBytesReader(w, r.Body, largestJoin)).Decode(&q)
		if err != nil {
			err = fault.New(fault.Invalid, "read request to join: %w", err)
		}
		var answer coordinatorapi.JoinAnswer
		if err == nil {
			ctx, cancel := context.WithTimeout(r.Context(), joinPatience)
			defer cancel()
			answer, err = s.join(ctx, q)
		}
		var not *raftnode.NotLeader
		code := http.StatusOK
		switch {
		case errors.As(err, &not):
			code, answer.Leader = http.StatusMisdirectedRequest, not.Leader.Address
		case errors.Is(err, fault.Unavailable), errors.Is(err, fault.Exhausted):
			code = http.StatusServiceUnavailable
		case err != nil:
			code = http.StatusForbidden
			s.logger.Warn("somebody may not join", "from", r.RemoteAddr, obs.KeyError, err)
		}
		if err != nil {
			answer.Error = err.Error()
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(answer) // its only error: who asks went away
	})
	return &http.Server{Handler: mux, ReadTimeout: joinPatience, WriteTimeout: 2 * joinPatience, IdleTimeout: time.Second, MaxHeaderBytes: largestJoin}
}

// Plain bounds the connections, and hides from net/http that they are of TLS: it serves no protocols but its own there.
func Plain(l net.Listener) net.Listener { return plain{netutil.LimitListener(l, mostJoining)} }

type plain struct{ net.Listener }

// Accept takes the next connection.
func (p plain) Accept() (net.Conn, error) {
	c, err := p.Listener.Accept()
	return struct{ net.Conn }{c}, err //nolint:wrapcheck // net/http looks at it
}

// join uses a token and signs. What does not come with the secret of a token leaves no trace in the log, which raft's barriers are in, too.
func (s *Server) join(ctx context.Context, q coordinatorapi.JoinRequest) (a coordinatorapi.JoinAnswer, err error) {
	hash, known := certs.HashOf(storage.NewSecret(q.Secret)), false
	s.log.View(func(state *fsm.State) { _, known = state.Tokens[hash] })
	_, leads := s.log.Leads()
	switch {
	case !leads:
		return a, &raftnode.NotLeader{Leader: s.members.Leader()}
	case !known:
		return a, fault.New(fault.Denied, "there is no such join token, or it has expired: make a new one")
	}
	if err := s.limits.allow("who joins", s.now()); err != nil {
		return a, err
	}
	if err := s.log.Current(ctx); err != nil {
		return a, err
	}
	if s.CA == nil {
		return a, s.noCA()
	}
	id := certs.Identity{Role: certs.Role(q.Role), Name: q.Name}
	cert, err := s.CA.SignRequest(id, q.Request, s.now())
	if err != nil {
		return a, err
	}
	key, err := certs.KeyHash(q.Request)
	if err != nil {
		return a, err
	}
	answer, err := s.log.Apply(ctx, fsm.NewCommand(id.String(), "", s.now(), &fsm.Join{Hash: hash, Role: q.Role, Name: q.Name, Key: key}))
	if err == nil {
		err = answer.Err()
	}
	if err != nil {
		return a, err
	}
	s.logger.Info("somebody has joined", "who", id.String())
	return coordinatorapi.JoinAnswer{Certificate: cert, CA: s.certs.CAs()}, nil
}
