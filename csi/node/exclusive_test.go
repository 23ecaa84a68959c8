package node

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/keylock"
)

func TestACallThatHangsInTheKernelIsAnsweredAndOthersWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{locks: keylock.New()}
		kernel := make(chan struct{})
		call := func(volume string, work func() error) error {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			return s.exclusive(ctx, volume, work)
		}
		for _, what := range []string{"ceph status", "another call"} { // the one that hangs, and the next
			err := call("v", func() error { <-kernel; return nil })
			if !errors.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), what) {
				t.Errorf("want Unavailable with %q, got %v", what, err)
			}
		}
		if err := call("other", func() error { return nil }); err != nil {
			t.Errorf("another volume: %v", err)
		}
		close(kernel)
		want := errors.New("its own")
		if err := call("v", func() error { return want }); !errors.Is(err, want) {
			t.Errorf("after the kernel answered: %v", err)
		}
		s.Wait()
	})
}
