// Package command runs the operating system's programs: the one place that does.
// Arguments are slices, never a shell line; the locale is C, so that output can be
// parsed; a failure is an *ExitError with exit code and stderr. Secrets go by Stdin
// or by a file, never by an argument (arguments are visible to every user).
package command

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Cmd is a program with its arguments.
type Cmd struct {
	Name  string
	Args  []string
	Stdin io.Reader
	Env   []string // added to the process's own environment
	Dir   string
}

// String is for messages: the program and its arguments.
func (c Cmd) String() string { return strings.Join(append([]string{c.Name}, c.Args...), " ") }

// Result is what a program printed.
type Result struct {
	Stdout, Stderr []byte
	Took           time.Duration
}

// Runner runs programs. Run returns the result also beside an *ExitError.
type Runner interface {
	Run(ctx context.Context, cmd Cmd) (Result, error)
}

// ExitError says that a program ran and failed.
type ExitError struct {
	Cmd    string
	Code   int // -1 when a signal ended it
	Stderr string
}

func (e *ExitError) Error() string {
	text := strings.TrimSpace(e.Stderr)
	if text == "" {
		text = "it printed nothing"
	}
	return fmt.Sprintf("%s: exit status %d: %s", e.Cmd, e.Code, text)
}

// ExitCode returns the exit code in err's chain: 0 for nil, -1 for any other error.
func ExitCode(err error) int {
	if err == nil {
		return 0
	}
	var exit *ExitError
	if errors.As(err, &exit) {
		return exit.Code
	}
	return -1
}

// System runs programs for real.
type System struct{}

var _ Runner = System{}

// Run starts the program, waits for it and kills it when ctx ends.
func (System) Run(ctx context.Context, c Cmd) (Result, error) { return run(ctx, c, nil) }

// Steady runs programs that must not be cut off in the middle of what they change: they go on to their end when ctx
// ends, and a terminal's interrupt does not reach them. None is started after ctx has ended.
type Steady struct{}

var _ Runner = Steady{}

// Run starts the program and waits for it.
func (Steady) Run(ctx context.Context, c Cmd) (Result, error) {
	if err := ctx.Err(); err != nil {
		return Result{}, fmt.Errorf("%s: %w", c, err)
	}
	return run(context.WithoutCancel(ctx), c, &syscall.SysProcAttr{Setpgid: true})
}

func run(ctx context.Context, c Cmd, attributes *syscall.SysProcAttr) (Result, error) {
	cmd := exec.CommandContext(ctx, c.Name, c.Args...)
	cmd.Env = append(append(os.Environ(), "LC_ALL=C"), c.Env...)
	cmd.Dir, cmd.Stdin, cmd.SysProcAttr = c.Dir, c.Stdin, attributes
	cmd.WaitDelay = 2 * time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	start := time.Now()
	err := cmd.Run()
	result := Result{Stdout: stdout.Bytes(), Stderr: stderr.Bytes(), Took: time.Since(start)}
	var exit *exec.ExitError
	switch {
	case err == nil:
		return result, nil
	case ctx.Err() != nil:
		return result, fmt.Errorf("%s: %w", c, ctx.Err())
	case errors.As(err, &exit):
		return result, &ExitError{Cmd: c.String(), Code: exit.ExitCode(), Stderr: stderr.String()}
	default:
		return result, fmt.Errorf("%s: %w", c, err)
	}
}
