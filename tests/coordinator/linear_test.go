package coordinator_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// An operation on one register: a policy whose spec is a number. 0 is no policy.
type input struct {
	register string
	write    bool
	value    int
}

// registers is the model: a read sees the last write.
var registers = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		parts := map[string][]porcupine.Operation{}
		var list [][]porcupine.Operation
		for _, o := range history {
			in, _ := o.Input.(input)
			parts[in.register] = append(parts[in.register], o)
		}
		for _, part := range parts {
			list = append(list, part)
		}
		return list
	},
	Init: func() any { return 0 },
	Step: func(state, in, out any) (bool, any) {
		i, _ := in.(input)
		if i.write {
			return true, i.value
		}
		return out == state, state
	},
	DescribeOperation: func(in, out any) string { return fmt.Sprint(in, " ", out) },
}

// history collects operations of many clients.
type history struct {
	mu    sync.Mutex
	start time.Time
	list  []porcupine.Operation
}

func (h *history) now() int64 { return int64(time.Since(h.start)) }

func (h *history) add(o porcupine.Operation) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.list = append(h.list, o)
}

// TestHistoriesUnderKillsAndPausesAreLinearizable lets clients write and read while members are killed and stopped. What was not
// answered may have been done or not.
func TestHistoriesUnderKillsAndPausesAreLinearizable(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	c := start(t, 3, nil)
	admin := c.client(c.open("admin"))
	c.leader(admin)
	h := &history{start: time.Now()}
	ctx, stop := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	for i := range 6 {
		one := c.client(c.issue("admin", fmt.Sprint("p", i)))
		clients.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(i)))
			for n := 1; ctx.Err() == nil; n++ {
				in := input{register: fmt.Sprint("r", r.IntN(3)), write: r.IntN(2) == 0, value: i*1_000_000 + n}
				h.operate(t, one, i, in)
			}
		})
	}
	r, faults := rand.New(rand.NewPCG(seed, 99)), map[string]int{}
	for range 6 {
		time.Sleep(time.Duration(1000+r.IntN(1500)) * time.Millisecond)
		victim := c.names[r.IntN(len(c.names))]
		if r.IntN(2) == 0 {
			victim = c.leader(admin)
		}
		if r.IntN(2) == 0 {
			faults["kill -9"]++
			c.end(victim, syscall.SIGKILL)
			time.Sleep(time.Duration(r.IntN(1500)) * time.Millisecond)
			c.run(victim)
		} else {
			faults["SIGSTOP"]++
			c.signal(victim, syscall.SIGSTOP)
			time.Sleep(time.Duration(1500+r.IntN(2500)) * time.Millisecond)
			c.signal(victim, syscall.SIGCONT)
		}
	}
	time.Sleep(2 * time.Second)
	stop()
	clients.Wait()
	t.Logf("%d operations, faults: %v", len(h.list), faults)
	if result := porcupine.CheckOperationsTimeout(registers, h.list, time.Minute); result != porcupine.Ok {
		t.Fatalf("the history is %s\n%s", result, c.logs())
	}
	if len(h.list) < 100 {
		t.Errorf("only %d operations were answered", len(h.list))
	}
}
