package command_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/command"
)

func TestFailureCarriesExitCodeAndStderr(t *testing.T) {
	result, err := command.System{}.Run(t.Context(), command.Cmd{Name: "sh", Args: []string{"-c", "echo out; echo why >&2; exit 3"}})
	var exit *command.ExitError
	if !errors.As(err, &exit) || exit.Code != 3 || !strings.Contains(err.Error(), "why") || string(result.Stdout) != "out\n" {
		t.Fatalf("got %v, %q", err, result.Stdout)
	}
	if command.ExitCode(err) != 3 || command.ExitCode(nil) != 0 || command.ExitCode(errors.New("x")) != -1 {
		t.Error("exit codes are not told apart")
	}
}

func TestLocaleIsC(t *testing.T) {
	result, err := command.System{}.Run(t.Context(), command.Cmd{Name: "sh", Args: []string{"-c", "printf %s \"$LC_ALL\""}})
	if err != nil || string(result.Stdout) != "C" {
		t.Fatalf("got %q, %v", result.Stdout, err)
	}
}

func TestProgramEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := command.System{}.Run(ctx, command.Cmd{Name: "sleep", Args: []string{"60"}})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
}

func TestASteadyProgramGoesOnToItsEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	made := filepath.Join(t.TempDir(), "made")
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, err := (command.Steady{}).Run(ctx, command.Cmd{Name: "bash", Args: []string{"-c", "sleep 0.3; touch " + made}}); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(made); err != nil {
		t.Error(err)
	}
	if _, err := (command.Steady{}).Run(ctx, command.Cmd{Name: "true"}); !errors.Is(err, context.Canceled) {
		t.Errorf("begun after the end: %v", err)
	}
}
