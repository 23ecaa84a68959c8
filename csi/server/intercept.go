package server

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"path"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/obs"
)

// margin is how long before the caller's deadline the answer is given: a caller
// learns more from our UNAVAILABLE than from its own DEADLINE_EXCEEDED.
const margin = 300 * time.Millisecond

type interceptor struct {
	log     *slog.Logger
	metrics *Metrics
	driver  string
}

// identified is what most requests have: the log names their volume.
type identified interface{ GetVolumeId() string }
type named interface{ GetName() string }

func (i *interceptor) intercept(ctx context.Context, request any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (answer any, _ error) {
	method := path.Base(info.FullMethod)
	log := i.log.With(obs.KeyMethod, method, obs.KeyRequest, rand.Text()[:8])
	if r, ok := request.(identified); ok && r.GetVolumeId() != "" {
		log = log.With(obs.KeyVolume, r.GetVolumeId())
	}
	if r, ok := request.(named); ok && r.GetName() != "" {
		log = log.With(obs.KeyName, r.GetName())
	}
	err := i.watch(log, method, func() (err error) {
		answer, err = call(ctx, request, next)
		return err
	})
	return answer, fault.Status(err)
}

// interceptStream does for a call with a stream of answers what intercept does for others. The
// caller's deadline is the handler's: what was sent by then is of use.
func (i *interceptor) interceptStream(service any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	method := path.Base(info.FullMethod)
	log := i.log.With(obs.KeyMethod, method, obs.KeyRequest, rand.Text()[:8])
	return fault.Status(i.watch(log, method, func() error { return next(service, stream) }))
}

// watch counts, times and logs a call.
func (i *interceptor) watch(log *slog.Logger, method string, handle func() error) error {
	finish := i.metrics.start(i.driver, method)
	start := time.Now()
	err := handle()
	took := time.Since(start)
	code := fault.Code(err)
	finish(code, took)
	log = log.With(obs.KeyTook, took.Round(time.Microsecond))
	switch {
	case err == nil:
		log.Debug("call answered")
	case code == codes.Internal || code == codes.Unknown:
		log.Error("call failed", "code", code.String(), obs.KeyError, err)
	default:
		log.Warn("call refused", "code", code.String(), obs.KeyError, err)
	}
	return err
}

// call runs the handler with a deadline a little before the caller's own. Work that
// has not ended by then goes on where the handler detached it; the caller gets
// UNAVAILABLE and finds the result when it asks again.
func call(ctx context.Context, request any, next grpc.UnaryHandler) (any, error) {
	inner := ctx
	if deadline, ok := ctx.Deadline(); ok {
		early := deadline.Add(-min(margin, time.Until(deadline)/4))
		var cancel context.CancelFunc
		inner, cancel = context.WithDeadline(ctx, early)
		defer cancel()
	}
	response, err := next(inner, request)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		err = fault.New(fault.Unavailable, "not finished within the call's deadline: the cluster is slow or does not answer (look at `ceph status` and the network); ask again: %v", err)
	}
	return response, err
}
