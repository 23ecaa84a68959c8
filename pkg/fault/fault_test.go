package fault_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-storage/holdfast/pkg/fault"
)

func TestClassSurvivesWrappingAndBecomesItsCode(t *testing.T) {
	cause := errors.New("cause")
	for want, err := range map[codes.Code]error{
		codes.OK:                 nil,
		codes.NotFound:           fmt.Errorf("find x: %w", fault.New(fault.NotFound, "no x: %w", cause)),
		codes.FailedPrecondition: fault.As(fault.Busy, cause),
		codes.Internal:           cause,
		codes.DeadlineExceeded:   fmt.Errorf("wait: %w", context.DeadlineExceeded),
		codes.AlreadyExists:      status.Error(codes.AlreadyExists, "from elsewhere"),
		codes.Aborted:            errors.Join(fault.New(fault.Aborted, "lost"), context.Canceled),
	} {
		if got := fault.Code(err); got != want {
			t.Errorf("%v: got %v, want %v", err, got, want)
		}
	}
	err := fmt.Errorf("find x: %w", fault.New(fault.NotFound, "no x: %w", cause))
	if !errors.Is(err, fault.NotFound) || !errors.Is(err, cause) || err.Error() != "find x: no x: cause" {
		t.Errorf("the chain is broken: %v", err)
	}
	if fault.As(fault.Busy, nil) != nil || fault.Status(nil) != nil {
		t.Error("no error became one")
	}
}
