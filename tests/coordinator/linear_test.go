package coordinator_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi"
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

// faults hurt members, one after the other.
type faults struct {
	*cluster

	random *rand.Rand
	disks  map[string]*stallingDisk
	count  map[string]int
}

func (f *faults) some(least, most int) time.Duration {
	return time.Duration(least+f.random.IntN(most-least)) * time.Millisecond
}

// next hurts a member, the leader every other time, and heals it.
func (f *faults) next(admin *coordinatorapi.Client) {
	victim := f.names[f.random.IntN(len(f.names))]
	if f.random.IntN(2) == 0 {
		victim = f.leader(admin)
	}
	all := []func(string){f.kill, f.pause, f.cutOff, f.cutOneWay, f.stall}
	all[f.random.IntN(len(all))](victim)
}

func (f *faults) kill(victim string) {
	f.count["kill -9"]++
	f.end(victim, syscall.SIGKILL)
	time.Sleep(f.some(1, 1500))
	f.run(victim)
}

func (f *faults) pause(victim string) {
	f.count["SIGSTOP"]++
	f.signal(victim, syscall.SIGSTOP)
	time.Sleep(f.some(1500, 4000))
	f.signal(victim, syscall.SIGCONT)
}

// cutOff parts a member from the others in both directions, while clients reach it.
func (f *faults) cutOff(victim string) {
	f.count["partition"]++
	i := slices.Index(f.names, victim)
	for j := range f.names {
		if j != i {
			f.network.part(f.t, i, j)
			f.network.part(f.t, j, i)
		}
	}
	time.Sleep(f.some(2000, 5000))
	for j := range f.names {
		if j != i {
			f.network.join(f.t, i, j)
			f.network.join(f.t, j, i)
		}
	}
}

// cutOneWay drops what a member sends to one other.
func (f *faults) cutOneWay(victim string) {
	f.count["one-way partition"]++
	i := slices.Index(f.names, victim)
	j := (i + 1 + f.random.IntN(len(f.names)-1)) % len(f.names)
	f.network.part(f.t, i, j)
	time.Sleep(f.some(2000, 5000))
	f.network.join(f.t, i, j)
}

// stall lets a member's disk hang. A process that sees that ends itself, and is started again.
func (f *faults) stall(victim string) {
	f.count["disk stall"]++
	f.disks[victim].hang(f.t)
	time.Sleep(f.some(1000, 6000))
	f.disks[victim].goOn(f.t)
	ended := make(chan struct{})
	cmd := f.running[victim]
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	select {
	case <-ended:
		f.count["ended by itself"]++
	case <-time.After(time.Second):
		f.signal(victim, syscall.SIGKILL) // it noticed too late, or not at all
		<-ended
	}
	f.run(victim)
}

// rounds is how many faults there are.
func rounds() int {
	if n, err := strconv.Atoi(os.Getenv("HOLDFAST_FAULTS")); err == nil {
		return n
	}
	return 8
}

// TestHistoriesUnderFaultsAreLinearizable lets clients write and read while members are killed, stopped, cut off from each other, and
// their disks hang. What was not answered may have been done or not.
func TestHistoriesUnderFaultsAreLinearizable(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if n, err := strconv.ParseUint(os.Getenv("HOLDFAST_FAULT_SEED"), 10, 64); err == nil {
		seed = n
	}
	t.Logf("seed %d", seed)
	disks, data := map[string]*stallingDisk{}, map[string]string{}
	for i := range 3 {
		name := fmt.Sprint("c", i+1)
		disks[name] = newStallingDisk(t)
		data[name] = filepath.Join(disks[name].dir, name)
	}
	c := startIn(t, newNetwork(t, 3), 3, data)
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
	f := &faults{c, rand.New(rand.NewPCG(seed, 99)), disks, map[string]int{}}
	for range rounds() {
		time.Sleep(f.some(1000, 2500))
		f.next(admin)
	}
	time.Sleep(2 * time.Second)
	stop()
	clients.Wait()
	t.Logf("%d operations, faults: %v", len(h.list), f.count)
	if result := porcupine.CheckOperationsTimeout(registers, h.list, time.Minute); result != porcupine.Ok {
		t.Fatalf("the history is %s\n%s", result, c.logs())
	}
	if len(h.list) < 100 {
		t.Errorf("only %d operations were answered", len(h.list))
	}
}
