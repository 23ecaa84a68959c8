package crash

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/csi/record"
	"github.com/holdfast-storage/holdfast/tests/services"
)

// pause is how long a controller stands still: longer than its lease (15 s).
const pause = 17 * time.Second

// fromEnv reads a number, for the length and the chance of a run.
func fromEnv(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// A controller is stopped for longer than its lease at a point of chance, another one
// does its work or the opposite, and the first goes on. HOLDFAST_CRASH_SEED repeats a
// run, HOLDFAST_CRASH_ROUNDS makes it longer.
func TestTwoControllersAliveOnTheSameNames(t *testing.T) {
	b, shim := newBed(t), buildShim(t)
	seed := fromEnv(t, "HOLDFAST_CRASH_SEED", int(time.Now().UnixNano()%1_000_000))
	rounds := 1
	if all() {
		rounds = 10
	}
	for round := range fromEnv(t, "HOLDFAST_CRASH_ROUNDS", rounds) {
		chance := rand.New(rand.NewPCG(uint64(seed), uint64(round)))
		var all []*rivals
		for i := range 24 {
			all = append(all, newRivals(b, shim, chance, fmt.Sprintf("rivals %d %d %d", seed, round, i)))
		}
		together(all, deadAtOnce, (*rivals).begin)
		began := time.Now()
		together(all, healingAtOnce, (*rivals).overtake)
		time.Sleep(time.Until(began.Add(pause)))
		together(all, len(all), (*rivals).goOn)
		together(all, healingAtOnce, (*rivals).settle)
		stopped := 0
		for _, r := range all {
			if r.stopped {
				stopped++
			}
			if r.err != nil {
				t.Errorf("seed %d, round %d:\n  %s\n  %v", seed, round, strings.Join(r.transcript, "\n  "), r.err)
			}
		}
		t.Logf("seed %d, round %d: %d of %d controllers stopped in mid-call", seed, round, stopped, len(all))
		b.nothingLeft()
		for _, r := range all {
			r.close()
		}
		if t.Failed() {
			return
		}
	}
}

// rivals are two controllers at work on one name.
type rivals struct {
	*bed
	subject
	entry      entry
	kind       kind
	at         int
	rival      string
	shim       *shim
	transcript []string
	page       *page
	first      *services.Services
	answered   chan error
	free       func()
	stopped    bool
	promised   int64 // bytes that the second controller answered with
	err        error
}

func newRivals(b *bed, shim *shim, chance *rand.Rand, name string) *rivals {
	entries, variant := b.entries()[:5], variants[chance.IntN(len(variants))]
	r := &rivals{
		bed: b, shim: shim, entry: entries[chance.IntN(3)], kind: kind(1 + chance.IntN(2)), answered: make(chan error, 1),
		rival: []string{"the same", "delete", "delete and create", "expand"}[chance.IntN(4)],
	}
	if chance.IntN(4) == 0 {
		r.entry = entries[3+chance.IntN(2)]
	}
	r.at = 1 + chance.IntN(map[kind]int{calls: 10, messages: 30}[r.kind])
	r.subject = subject{driver: variant.driver, features: variant.features, name: name}
	r.say("%s, %s", variant.title, r.entry.rpc)
	return r
}

func (r *rivals) say(format string, args ...any) {
	r.transcript = append(r.transcript, time.Now().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
}

// begin lets the first controller come to its point.
func (r *rivals) begin() {
	healthy := r.healthy.Controller(r.driver)
	if r.entry.setUp != nil {
		if r.err = r.persist("set up", func(ctx context.Context) error { return r.entry.setUp(ctx, healthy, &r.subject) }); r.err != nil {
			return
		}
	}
	var env []string
	r.page, env, r.free = r.shim.newPage(r.t)
	r.first = services.Start(r.t, r.cluster, services.Options{Services: "controller", Drivers: r.driver, Env: env, Quiet: true})
	c := r.first.Controller(r.driver)
	if _, r.err = c.GetCapacity(r.t.Context(), &csi.GetCapacityRequest{Parameters: r.params[r.driver]}); r.err != nil {
		return
	}
	r.page.arm(r.kind, r.at, unix.SIGSTOP)
	mine := r.subject
	go func() {
		ctx, cancel := context.WithTimeout(r.t.Context(), 3*time.Minute)
		defer cancel()
		r.answered <- r.entry.call(ctx, c, &mine)
	}()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if r.stopped = r.first.Stopped(); r.stopped || len(r.answered) > 0 {
			break
		}
	}
	r.say("the first controller stopped %v at %s", r.stopped, r.shim.name(r.page, r.kind, r.at))
}

// overtake lets the second controller work.
func (r *rivals) overtake() {
	if r.err != nil {
		return
	}
	c := r.healthy.Controller(r.driver)
	if there, err := r.adopt(r.t.Context(), &r.subject); err != nil || !there && r.rival != "the same" {
		r.say("there is nothing yet to %s (%v)", r.rival, err)
		r.err = err
		return
	}
	r.err = r.persist(r.rival, func(ctx context.Context) error {
		switch r.rival {
		case "the same":
			return r.entry.call(ctx, c, &r.subject)
		case "expand":
			if r.entry.rpc == "DeleteVolume" {
				r.made = false // what the first began to delete is deleted, and the name has a new volume
			}
			if err := r.create(ctx, c, &r.subject); err != nil { // it may have been begun only
				return err
			}
			return r.expand(ctx, c, &r.subject, 2*grown)
		}
		if err := r.away(ctx, c, &r.subject); err != nil || r.rival == "delete" {
			return err
		}
		r.made = false
		return r.create(ctx, c, &r.subject)
	})
	r.promised = r.size
	if r.rival == "delete" || r.entry.rpc == "DeleteVolume" && r.rival == "the same" {
		r.promised = 0
	}
	r.say("the second controller: %s: %d bytes, %v", r.rival, r.promised, r.err)
}

// goOn wakes the first controller and waits for its answer.
func (r *rivals) goOn() {
	if r.first == nil {
		return
	}
	_ = r.first.Process().Signal(unix.SIGCONT)
	select {
	case err := <-r.answered:
		r.say("the first controller goes on and answers: %v", err)
	case <-time.After(3 * time.Minute):
		r.err = errors.Join(r.err, errors.New("the first controller does not answer"))
	}
	r.page.disarm()
}

// close ends the first controller, which had time to clear up behind itself.
func (r *rivals) close() {
	if r.first != nil {
		r.first.Close()
		r.free()
	}
}

// settle looks for damage and takes all away.
func (r *rivals) settle() {
	if r.err != nil {
		return
	}
	r.err = r.undamaged()
	c := r.healthy.Controller(r.driver)
	r.err = errors.Join(r.err, r.persist("delete", func(ctx context.Context) error { return r.away(ctx, c, &r.subject) }))
}

// undamaged checks what there is against what was promised.
func (r *rivals) undamaged() error {
	have, err := r.record(r.t.Context(), &r.subject)
	if isNotFound(err) {
		if r.promised > 0 && r.entry.rpc != "DeleteVolume" {
			return errors.New("the volume that the second controller answered with is gone")
		}
		return nil
	}
	if err != nil {
		return err
	}
	c := r.healthy.Controller(r.driver)
	handle := have.Handle(r.cluster.Entry.ID).String()
	if r.promised > 0 && r.entry.rpc != "DeleteVolume" && handle != r.id {
		return fmt.Errorf("the second controller answered with volume %s, now it is %s", r.id, handle)
	}
	if r.promised > 0 {
		bytes, err := r.bytes(have.BackendName())
		if err != nil && r.entry.rpc != "DeleteVolume" || err == nil && bytes < r.promised {
			return fmt.Errorf("the second controller promised %d bytes, there are %d (%w)", r.promised, bytes, err)
		}
	}
	if string(have.State) == "deleting" { // what the first was asked for
		return nil
	}
	r.id, r.made, r.size = handle, have.State != record.Creating, int64(have.Size)
	if err := r.persist("create again", func(ctx context.Context) error { return r.create(ctx, c, &r.subject) }); err != nil {
		return err
	}
	return r.whole(r.t.Context(), &r.subject)
}

// bytes is how large the image or subvolume is in Ceph.
func (r *rivals) bytes(name string) (int64, error) {
	if r.driver == "rbd" {
		info, err := r.eyes.Images("rbd", "").Info(r.t.Context(), name)
		return int64(info.Size), err
	}
	info, err := r.eyes.Subvolumes("cephfs", "csi").Info(r.t.Context(), name)
	return int64(info.Quota), err
}
