package coordinator

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"path"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/holdfast-storage/holdfast/pkg/certs"
	"github.com/holdfast-storage/holdfast/pkg/coordinator/raftnode"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/obs"
	"github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi"
	"github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi/coordinatorv1"
)

// Patience is how long a call without a deadline of its own may take.
const patience = 30 * time.Second

// largest is the largest message: a plan for a node full of disks, or a part of a backup.
const largest = 16 << 20

// rights says who may call what, beside persons and the operator, who may call all but what is for agents.
var rights = map[string][]certs.Role{
	"GetStatus":   {certs.Coordinator, certs.Agent, certs.Admin, certs.Operator},
	"ChangePlan":  {certs.Agent, certs.Admin, certs.Operator}, // agents: see there
	"ProposePlan": {certs.Agent, certs.Admin, certs.Operator},
	"GetPlan":     {certs.Agent, certs.Admin, certs.Operator},
	"ListPlans":   {certs.Agent, certs.Admin, certs.Operator},
	"WatchPlans":  {certs.Agent, certs.Admin, certs.Operator},
	"ReportNode":  {certs.Agent},
	"SetSubject":  {certs.Agent, certs.Admin, certs.Operator},
	"TakeWork":    {certs.Agent},
	"ReportStep":  {certs.Agent},
}

var persons = []certs.Role{certs.Admin, certs.Operator}

// GRPC makes the gRPC server for connections of a certs.Listener.
func (s *Server) GRPC() *grpc.Server {
	g := grpc.NewServer(
		grpc.Creds(admitted{}), grpc.MaxRecvMsgSize(largest), grpc.MaxSendMsgSize(largest),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: coordinatorapi.Ping / 2}),
		grpc.UnaryInterceptor(s.unary), grpc.StreamInterceptor(s.stream),
	)
	coordinatorv1.RegisterCoordinatorServer(g, s)
	return g
}

// admitted tells gRPC who is behind a connection whose handshake a certs.Listener has done.
type admitted struct{}

// ServerHandshake reads the identity; nothing goes over the wire.
func (admitted) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	t, ok := c.(*tls.Conn)
	if !ok {
		return nil, nil, fault.New(fault.Denied, "a connection without TLS")
	}
	return c, credentials.TLSInfo{State: t.ConnectionState(), CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}}, nil
}

// ClientHandshake is not for servers.
func (admitted) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, fault.New(fault.Unsupported, "these credentials are a server's")
}

// Info names the protocol.
func (admitted) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

// Clone returns the same.
func (a admitted) Clone() credentials.TransportCredentials { return a }

// OverrideServerName is not for servers.
func (admitted) OverrideServerName(string) error { return nil }

type callerKey struct{}

// caller is who called.
func caller(ctx context.Context) certs.Identity {
	id, _ := ctx.Value(callerKey{}).(certs.Identity)
	return id
}

// admit learns who calls, and whether they may, and so often.
func (s *Server) admit(ctx context.Context, method string) (context.Context, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil, fault.New(fault.Denied, "nobody calls")
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.PeerCertificates) == 0 {
		return nil, fault.New(fault.Denied, "a caller without a certificate")
	}
	id, err := certs.IdentityOf(info.State.PeerCertificates[0])
	if err != nil {
		return nil, err
	}
	allowed := rights[method]
	if allowed == nil {
		allowed = persons
	}
	if !slices.Contains(allowed, id.Role) {
		return nil, fault.New(fault.Denied, "%s may not call %s", id, method)
	}
	if err := s.limits.allow(id.String(), s.now()); err != nil {
		return nil, err
	}
	return context.WithValue(ctx, callerKey{}, id), nil
}

func (s *Server) unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	method := path.Base(info.FullMethod)
	ctx, err := s.admit(ctx, method)
	if err != nil {
		return nil, fault.Status(err)
	}
	if _, has := ctx.Deadline(); !has {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, patience)
		defer cancel()
	}
	start := s.now()
	answer, err := next(ctx, request)
	s.audit(ctx, method, start, err)
	return answer, s.answered(err, func(md metadata.MD) { _ = grpc.SetTrailer(ctx, md) })
}

// called is a stream whose context knows who called.
type called struct {
	grpc.ServerStream

	ctx context.Context //nolint:containedctx // grpc.ServerStream has it so
}

// Context is the call's.
func (c called) Context() context.Context { return c.ctx }

func (s *Server) stream(service any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	method := path.Base(info.FullMethod)
	ctx, err := s.admit(stream.Context(), method)
	if err != nil {
		return fault.Status(err)
	}
	start := s.now()
	err = next(service, called{stream, ctx})
	s.audit(ctx, method, start, err)
	return s.answered(err, stream.SetTrailer)
}

// answered gives an error its code, and tells where the leader is.
func (s *Server) answered(err error, trailer func(metadata.MD)) error {
	var not *raftnode.NotLeader
	if errors.As(err, &not) && not.Leader.Address != "" {
		trailer(metadata.Pairs(coordinatorapi.LeaderTrailer, not.Leader.Address))
	}
	return fault.Status(err)
}

// quiet are calls that change nothing, or too often to be told each time.
var quiet = []string{"GetStatus", "GetPlan", "ListPlans", "WatchPlans", "GetThrottle", "ListPolicies", "ListPools", "ExplainPool", "ListHistory", "ListNodes", "ReportNode", "ReportStep"}

// audit logs who did what.
func (s *Server) audit(ctx context.Context, method string, start time.Time, err error) {
	log := s.logger.With(obs.KeyMethod, method, "who", caller(ctx).String(), obs.KeyTook, s.now().Sub(start).Round(time.Millisecond))
	switch {
	case err != nil && errors.Is(err, fault.Unavailable):
		log.Debug("call not answered", obs.KeyError, err)
	case err != nil:
		log.Warn("call refused", obs.KeyError, err)
	case !slices.Contains(quiet, method):
		log.Info("call done")
	}
}
