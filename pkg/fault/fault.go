// Package fault names the classes of errors that Holdfast tells apart, and maps
// them to gRPC codes in one place (see code.go). An error carries its class in its
// chain: wrap it with fmt.Errorf("...: %w", err) as usual and ask with errors.Is.
// Text is never matched. It imports nothing of this module.
package fault

import (
	"errors"
	"fmt"
)

// The classes. Each is a sentinel that errors.Is finds in a chain.
var (
	Invalid      = errors.New("invalid")       // the request can never succeed as it is
	NotFound     = errors.New("not found")     // the named thing is not there
	Exists       = errors.New("exists")        // there already, and different from what was asked
	Busy         = errors.New("busy")          // in use; succeeds once the user of it lets go
	Precondition = errors.New("precondition")  // the state of the world forbids it; a person or another call must change it
	Exhausted    = errors.New("exhausted")     // no space or no quota left
	Range        = errors.New("out of range")  // a size or an offset outside what is possible
	Unavailable  = errors.New("unavailable")   // the cluster does not answer (in time); try again
	Unsupported  = errors.New("unsupported")   // this cluster, kernel or driver cannot do it
	Denied       = errors.New("denied")        // credentials are missing, wrong or too weak
	Aborted      = errors.New("aborted")       // lost a race (a lease ran out, a newer writer came); try again
	Token        = errors.New("invalid token") // a pagination token that this service did not give out
)

// classed is an error of a class with a message of its own.
type classed struct {
	class error
	err   error
}

func (c *classed) Error() string   { return c.err.Error() }
func (c *classed) Unwrap() []error { return []error{c.class, c.err} }

// New returns an error of class with a formatted message; %w works as in fmt.Errorf.
func New(class error, format string, args ...any) error {
	return &classed{class: class, err: fmt.Errorf(format, args...)}
}

// As gives err the class, keeping its message and chain. As(class, nil) is nil.
func As(class, err error) error {
	if err == nil {
		return nil
	}
	return &classed{class: class, err: err}
}
