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

// FromStatus is the other way: the error behind what a gRPC call returned, with its class. FAILED_PRECONDITION becomes
// Precondition, and ABORTED Aborted: the codes do not tell Busy and Token apart from these.
func FromStatus(err error) error {
	s, ok := status.FromError(err)
	if err == nil || !ok {
		return err
	}
	for _, m := range classCodes {
		if m.code == s.Code() && m.class != Busy && m.class != Token { //nolint:errorlint // classes, not errors in a chain
			return New(m.class, "%s", s.Message())
		}
	}
	return New(errInternal, "%s", s.Message())
}

// errInternal is the class of what has none.
var errInternal = errors.New("internal")
