package native_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/ceph/cephtest"
	"github.com/holdfast-storage/holdfast/pkg/ceph/native"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
	"github.com/holdfast-storage/holdfast/tests/realceph"
)

func TestRealClusterConforms(t *testing.T) {
	cluster := realceph.Need(t)
	dial := func() ceph.Cluster {
		dialer := native.NewDialer()
		t.Cleanup(dialer.Close)
		c, err := dialer.Dial(t.Context(), cluster.Entry.Endpoint(), cluster.Credentials)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	cephtest.Conformance(t, cephtest.Clients{A: dial(), B: dial(), C: dial(), Outside: outside{cluster}})
}

func TestWrongKeyIsDenied(t *testing.T) {
	cluster := realceph.Need(t)
	dialer := native.NewDialer()
	defer dialer.Close()
	wrong := ceph.Credentials{User: cluster.Credentials.User, Key: storage.NewSecret("AQBvaBlZAAAAABAAQ2GYF5VJ6fT0vl1k8s9kSA==")}
	if _, err := dialer.Dial(t.Context(), cluster.Entry.Endpoint(), wrong); !errors.Is(err, fault.Denied) {
		t.Fatalf("got %v, want a denial", err)
	}
}

func TestDeadMonitorIsUnavailableWithinTheTimeout(t *testing.T) {
	dialer := native.NewDialerWith(native.Timeouts{Connect: time.Second})
	defer dialer.Close()
	nobody := ceph.Endpoint{ID: "none", Monitors: []string{"127.0.0.1:1"}}
	as := ceph.Credentials{User: "admin", Key: storage.NewSecret("AQBvaBlZAAAAABAAQ2GYF5VJ6fT0vl1k8s9kSA==")}
	if _, err := dialer.Dial(t.Context(), nobody, as); !errors.Is(err, fault.Unavailable) {
		t.Fatalf("got %v, want unavailable", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := dialer.Dial(ctx, nobody, as); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v, want the caller's own deadline", err)
	}
}

// A connection whose client was put on the blocklist is replaced, and nothing of it stays in the process.
func TestAConnectionThatWasCutOffIsReplacedAndEnds(t *testing.T) {
	cluster := realceph.Need(t)
	dialer := native.NewDialer()
	t.Cleanup(dialer.Close)
	dial := func() ceph.Cluster {
		c, err := dialer.Dial(t.Context(), cluster.Entry.Endpoint(), cluster.Credentials)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Images("rbd", "").List(t.Context()); err != nil {
			t.Fatal(err)
		}
		return c
	}
	threads := func() (n int) { // Ceph's, which have names of their own
		own, err := os.ReadFile("/proc/self/comm")
		if err != nil {
			t.Fatal(err)
		}
		list, err := filepath.Glob("/proc/self/task/*/comm")
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range list {
			if name, err := os.ReadFile(path); err == nil && string(name) != string(own) {
				n++
			}
		}
		return n
	}
	c := dial()
	before := threads()
	for range 5 {
		self, err := c.Self(t.Context())
		if err == nil {
			err = c.Fence(t.Context(), self, time.Minute)
		}
		if err == nil {
			err = c.Barrier(t.Context(), "rbd")
		}
		if !errors.Is(err, fault.Unavailable) { // it cannot see to the barrier itself any more
			t.Fatalf("a client that has cut itself off: %v", err)
		}
		for deadline := time.Now().Add(time.Minute); ; {
			if _, err = c.FSID(t.Context()); errors.Is(err, fault.Unavailable) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("the old connection is used still: %v", err)
			}
			_, _ = c.Images("rbd", "").List(t.Context())
		}
		next := dial()
		if next == c {
			t.Fatal("the old connection was given out again")
		}
		c = next
	}
	after := threads()
	for deadline := time.Now().Add(20 * time.Second); after > before && time.Now().Before(deadline); after = threads() {
		time.Sleep(100 * time.Millisecond)
	}
	if after > before {
		t.Errorf("%d threads, there were %d", after, before)
	}
}
