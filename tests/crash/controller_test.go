package crash

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-storage/holdfast/tests/services"
)

const (
	deadAtOnce    = 4  // controllers started to be killed, side by side
	healingAtOnce = 16 // calls of the healthy controller, side by side
)

// variants are the kinds of volumes.
var variants = []struct{ title, driver, features string }{
	{"rbd", "rbd", ""},
	{"rbd with all features", "rbd", "layering,exclusive-lock,object-map,fast-diff,deep-flatten"},
	{"cephfs", "cephfs", ""},
}

// A controller is killed at each point of each RPC. The call is repeated in one run and
// the volume deleted in another: there is the same volume, or nothing at all. All are
// killed first and healed then, so that the leases of the dead run out side by side.
func TestControllerKilledAtEachPoint(t *testing.T) {
	b, shim := newBed(t), buildShim(t)
	started := time.Now()
	var runs []*run
	only, err := regexp.Compile(os.Getenv("HOLDFAST_CRASH_ONLY")) // of the names of the subtests
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range variants {
		if v.features != "" && !all() {
			continue
		}
		for _, e := range b.entries() {
			for _, k := range []kind{calls, messages} {
				r := &run{bed: b, t: t, shim: shim, entry: e, driver: v.driver, features: v.features, title: v.title, kind: k}
				if only.MatchString(r.name()) {
					runs = append(runs, r)
				}
			}
		}
	}
	phase := func(what string) { t.Logf("%v: %s", time.Since(started).Round(time.Second), what) }
	phase("count the points")
	together(runs, deadAtOnce, (*run).count)
	var attempts []*attempt
	for _, r := range runs {
		attempts = append(attempts, r.plan()...)
	}
	phase(fmt.Sprintf("set %d subjects up", len(attempts)))
	together(attempts, healingAtOnce, (*attempt).setUp)
	phase("kill")
	together(attempts, deadAtOnce, (*attempt).strike)
	phase("repeat or delete")
	together(attempts, healingAtOnce, (*attempt).heal)
	total := 0
	for _, r := range runs {
		t.Run(r.name(), func(t *testing.T) { total += r.report(t) })
	}
	t.Logf("controllers killed: %d (%v)", total, time.Since(started).Round(time.Second))
	b.nothingLeft()
}

// run is an RPC of one driver with all its points of one kind.
type run struct {
	*bed
	t        *testing.T
	shim     *shim
	entry    entry
	title    string // of the variant
	driver   string
	features string
	kind     kind
	points   int
	passed   []string // what the points are
	attempts []*attempt
}

// attempt is one kill and what comes after it.
type attempt struct {
	*run
	subject
	at    int
	retry bool // else delete
	point string
	dead  bool // the point was reached
	err   error
}

// together runs do on all items, so many at once.
func together[T any](items []T, atOnce int, do func(T)) {
	slots := make(chan struct{}, atOnce)
	var work sync.WaitGroup
	for _, item := range items {
		slots <- struct{}{}
		work.Go(func() {
			defer func() { <-slots }()
			do(item)
		})
	}
	work.Wait()
}

func (r *run) name() string { return fmt.Sprintf("%s/%s/%s", r.title, r.entry.rpc, r.kind) }

func (r *run) attempt(at int, retry bool) *attempt {
	a := &attempt{run: r, at: at, retry: retry}
	a.subject.driver, a.subject.features = r.driver, r.features
	a.subject.name = fmt.Sprintf("%s %s %s %d %v", r.title, r.entry.rpc, r.kind, at, retry)
	return a
}

// plan returns the run's attempts: each point twice.
func (r *run) plan() []*attempt {
	for _, at := range sample(r.points) {
		r.attempts = append(r.attempts, r.attempt(at, true), r.attempt(at, false))
	}
	return r.attempts
}

// report fails on what went wrong, prints the points and returns how many controllers died.
func (r *run) report(t *testing.T) int {
	dead := 0
	for _, a := range r.attempts {
		if a.dead {
			dead++
		}
		if a.err != nil {
			t.Errorf("killed %v at %s, then retry %v: %v", a.dead, a.point, a.retry, a.err)
		}
	}
	t.Logf("%d points, %d tried, %d controllers killed", r.points, len(r.attempts)/2, dead)
	if len(r.passed) > 0 {
		t.Logf("calls: %s", strings.Join(r.passed, ", "))
	}
	if r.points == 0 || dead == 0 {
		t.Error("no point was reached")
	}
	return dead
}

// sample returns all points from 1 to count, or some of them, the first and last included.
func sample(count int) []int {
	step := 1
	if !all() {
		step = max(1, count/2)
	}
	var points []int
	for at := 1; at <= count; at += step {
		points = append(points, at)
	}
	return points
}

// count runs the RPC to its end and notes how many points it has.
func (r *run) count() {
	a := r.attempt(0, false)
	if a.setUp(); a.err != nil {
		r.t.Fatal(a.err)
	}
	r.under(func(c csi.ControllerClient, p *page) {
		p.arm(r.kind, 0, 0)
		ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
		defer cancel()
		if err := r.entry.call(ctx, c, &a.subject); err != nil && !comeBack(err) {
			r.t.Errorf("%s: %v", r.name(), err)
		}
		p.disarm()
		r.points = p.passed()
		for i := 0; r.kind == calls && i < r.points; i += 2 {
			r.passed = append(r.passed, r.shim.call(p, i+1))
		}
	})
	if a.heal(); a.err != nil {
		r.t.Fatal(a.err)
	}
}

// under starts a controller with points that has its connection to the cluster already.
func (r *run) under(do func(csi.ControllerClient, *page)) {
	page, env, free := r.shim.newPage(r.t)
	defer free()
	s := services.Start(r.t, r.cluster, services.Options{Services: "controller", Drivers: r.driver, Env: env, Quiet: true})
	defer s.Close()
	c := s.Controller(r.driver)
	if _, err := c.GetCapacity(r.t.Context(), &csi.GetCapacityRequest{Parameters: r.params[r.driver]}); err != nil {
		r.t.Fatal(err)
	}
	do(c, page)
}

// comeBack reports an answer that asks for the same call again, as a copy under way does.
func comeBack(err error) bool {
	return status.Code(err) == codes.Aborted || status.Code(err) == codes.Unavailable
}

func (a *attempt) setUp() {
	if a.entry.setUp == nil {
		return
	}
	a.err = a.persist("set up", func(ctx context.Context) error {
		return a.entry.setUp(ctx, a.healthy.Controller(a.run.driver), &a.subject)
	})
}

// strike calls the RPC on a controller that dies at the attempt's point.
func (a *attempt) strike() {
	if a.err != nil {
		return
	}
	a.under(func(c csi.ControllerClient, p *page) {
		ctx, cancel := context.WithTimeout(a.t.Context(), time.Minute)
		defer cancel()
		p.arm(a.kind, a.at, unix.SIGKILL)
		before := a.subject
		a.err = a.entry.call(ctx, c, &a.subject)
		if a.dead = a.err != nil && p.passed() >= a.at; a.dead {
			a.subject, a.err = before, nil // nobody heard the answer
		}
		if comeBack(a.err) {
			a.err = nil
		}
		p.disarm()
		a.point = a.shim.name(p, a.kind, a.at)
	})
}

// heal repeats the call or deletes, on a healthy controller.
func (a *attempt) heal() {
	if a.err != nil {
		return
	}
	c, s := a.healthy.Controller(a.run.driver), &a.subject
	if a.retry {
		if _, a.err = a.adopt(a.t.Context(), s); a.err != nil {
			return
		}
		if a.err = a.persist("repeat the call", func(ctx context.Context) error { return a.entry.call(ctx, c, s) }); a.err != nil {
			return
		}
		if a.err = a.entry.check(a.t.Context(), s); a.err != nil {
			return
		}
	}
	a.err = a.persist("delete", func(ctx context.Context) error { return a.entry.undo(ctx, c, s) })
}
