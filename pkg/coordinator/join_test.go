package coordinator

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/holdfast-storage/holdfast/pkg/certs"
	"github.com/holdfast-storage/holdfast/pkg/coordinator/fsm"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi"
	"github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi/coordinatorv1"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// counted counts what goes into raft's log.
type counted struct {
	*memory

	entries int
}

func (c *counted) Apply(ctx context.Context, command fsm.Command) (fsm.Answer, error) {
	c.entries++
	return c.memory.Apply(ctx, command)
}

func (c *counted) Current(ctx context.Context) error {
	c.entries++
	return c.memory.Current(ctx)
}

// door serves those who join, and makes a token for agent/n7.
func door(t *testing.T) (*Server, *counted, certs.Token) {
	t.Helper()
	log := &counted{memory: newMemory()}
	s := serverOn(t, log.memory, "c1")
	s.log = log
	ca, err := certs.NewCA("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	s.CA = &ca
	port, err := s.certs.Listen(t.Context(), "127.0.0.1:0", map[certs.Protocol][]certs.Role{certs.Join: nil})
	if err != nil {
		t.Fatal(err)
	}
	joining, done := s.Joining(), make(chan error)
	go func() { done <- joining.Serve(Plain(port.For(certs.Join))) }()
	t.Cleanup(func() {
		if err := errors.Join(joining.Close(), port.Close()); err != nil {
			t.Error(err)
		}
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	made, err := s.CreateToken(t.Context(), &coordinatorv1.CreateTokenRequest{Role: "agent", Name: "n7", Ttl: durationpb.New(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	token, err := certs.ParseToken(made.GetToken())
	if err != nil {
		t.Fatal(err)
	}
	token.Addresses = []string{port.Addr().String()}
	log.entries = 0
	return s, log, token
}

var n7 = certs.Identity{Role: certs.Agent, Name: "n7"}

func TestWhoJoinsMayBeInterruptedAndComeAgain(t *testing.T) {
	_, _, token := door(t)
	dir := filepath.Join(t.TempDir(), "certs")
	if err := coordinatorapi.Join(t.Context(), token, n7, dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "tls.crt")); err != nil { // as if the answer had been lost, and the process killed
		t.Fatal(err)
	}
	if err := coordinatorapi.Join(t.Context(), token, n7, dir); err != nil {
		t.Fatalf("again: %v", err)
	}
	store, err := certs.Open(dir)
	if err != nil || store.Identity() != n7 {
		t.Fatal(err)
	}
	if list, err := coordinatorapi.Endpoints(dir); err != nil || !slices.Equal(list, token.Addresses) {
		t.Errorf("the coordinators are not remembered: %v, %v", list, err)
	}
	if err := coordinatorapi.Join(t.Context(), token, n7, filepath.Join(t.TempDir(), "other")); !errors.Is(err, fault.Denied) {
		t.Errorf("somebody else comes with the token: %v", err)
	}
}

func TestASecretThatIsNoTokensLeavesNoTraceInTheLog(t *testing.T) {
	s, log, token := door(t)
	guess := token
	guess.Secret = storage.NewSecret("guess")
	if err := coordinatorapi.Join(t.Context(), guess, n7, filepath.Join(t.TempDir(), "certs")); !errors.Is(err, fault.Denied) || log.entries != 0 {
		t.Errorf("%v, and %d entries", err, log.entries)
	}
	log.lead(0)
	if _, err := s.join(t.Context(), coordinatorapi.JoinRequest{Role: "agent", Name: "n7", Secret: token.Secret.Reveal()}); !errors.Is(err, fault.Unavailable) || log.entries != 0 {
		t.Errorf("at one that does not lead: %v, and %d entries", err, log.entries)
	}
	log.lead(1)
	now := time.Now()
	s.now = func() time.Time { return now }
	for range callsAtOnce {
		_ = s.limits.allow("who joins", now)
	}
	if _, err := s.join(t.Context(), coordinatorapi.JoinRequest{Role: "agent", Name: "n7", Secret: token.Secret.Reveal()}); !errors.Is(err, fault.Exhausted) || log.entries != 0 {
		t.Errorf("too often: %v, and %d entries", err, log.entries)
	}
}
