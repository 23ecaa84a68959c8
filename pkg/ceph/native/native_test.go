package native_test

import (
	"context"
	"errors"
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
