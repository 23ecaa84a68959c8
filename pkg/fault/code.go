package fault

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Code returns the gRPC code of err: the first class found in the order below,
// codes.OK for nil and codes.Internal for an error without a class.
//
// Busy maps to FAILED_PRECONDITION (CSI: "volume in use"); two calls that meet on
// one name are not Busy, they wait for each other.
func Code(err error) codes.Code {
	if err == nil {
		return codes.OK
	}
	for _, m := range classCodes {
		if errors.Is(err, m.class) {
			return m.code
		}
	}
	if s, ok := status.FromError(err); ok {
		return s.Code()
	}
	return codes.Internal
}

var classCodes = []struct {
	class error
	code  codes.Code
}{
	{Invalid, codes.InvalidArgument},
	{NotFound, codes.NotFound},
	{Exists, codes.AlreadyExists},
	{Busy, codes.FailedPrecondition},
	{Precondition, codes.FailedPrecondition},
	{Exhausted, codes.ResourceExhausted},
	{Range, codes.OutOfRange},
	{Unsupported, codes.Unimplemented},
	{Denied, codes.PermissionDenied},
	{Aborted, codes.Aborted},
	{Token, codes.Aborted}, // CSI: an invalid starting_token is ABORTED
	{Unavailable, codes.Unavailable},
	{context.DeadlineExceeded, codes.DeadlineExceeded},
	{context.Canceled, codes.Canceled},
}

// Status turns err into the error that a gRPC handler returns.
func Status(err error) error {
	if err == nil {
		return nil
	}
	return status.Error(Code(err), err.Error())
}
