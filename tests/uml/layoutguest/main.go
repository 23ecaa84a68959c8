// Command layoutguest runs plans for stacks in a guest, under a load of writes, and says what it finds afterwards. It is given
// nothing but plans; what came before is in their journals.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/executor"
	"github.com/holdfast-storage/holdfast/pkg/executor/journal"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/stack"
	"github.com/holdfast-storage/holdfast/pkg/stack/live"
	"github.com/holdfast-storage/holdfast/pkg/storage"
	"github.com/holdfast-storage/holdfast/tests/uml/layoutdisks"
	"github.com/holdfast-storage/holdfast/tests/uml/layoutload"
	"github.com/holdfast-storage/holdfast/tests/uml/layoutrun"
)

func main() {
	dir := flag.String("dir", "", "directory of the host: plans, journals, acknowledgements, report")
	flag.Parse()
	if err := run(*dir); err != nil {
		fmt.Println("error:", err)
		if state, err := os.ReadFile("/proc/mdstat"); err == nil {
			fmt.Printf("%s", state)
		}
		if out, err := exec.Command("dmesg").Output(); err == nil {
			fmt.Printf("the kernel says:\n%s", out[max(0, len(out)-3000):])
		}
		os.Exit(1)
	}
}

// guest is one boot.
type guest struct {
	dir     string
	job     layoutrun.Job
	machine *live.Machine
	load    *layoutload.Background
	report  layoutrun.Report
	appends int
	disks   *layoutdisks.Disks
	pulled  bool
	broken  int
	rotten  plan.DiskID
}

func run(dir string) error {
	g := &guest{dir: dir}
	data, err := os.ReadFile(filepath.Join(dir, layoutrun.JobFile))
	if err == nil {
		err = json.Unmarshal(data, &g.job)
	}
	if err != nil {
		return err
	}
	ctx := context.Background()
	devices, err := g.fabric()
	if err != nil {
		return err
	}
	g.machine = live.New(devices, command.System{}, func() storage.Bytes { return g.job.Limit })
	g.machine.Events = filepath.Join(dir, "events")
	g.machine.Interval = 100 * time.Millisecond
	if err := g.activate(ctx); err != nil {
		return err
	}
	for i, name := range g.job.Plans {
		for _, f := range g.job.Faults[i] {
			if err := g.fault(ctx, f); err != nil {
				return errors.Join(err, g.stop())
			}
		}
		if err := g.plan(ctx, name); err != nil {
			return errors.Join(err, g.stop())
		}
	}
	if err := g.stop(); err != nil {
		return err
	}
	return g.finish(ctx)
}

// newest is the journal of the plan that was begun last; one without a plan if there is none.
func (g *guest) newest() (journal.Entry, error) {
	entries, err := journal.List(filepath.Join(g.dir, "journals"))
	for _, e := range slices.Backward(entries) {
		if len(e.Records) > 0 {
			return e, err
		}
	}
	return journal.Entry{}, err
}

// activate brings up what was there before the boot: what the last plan that was begun is about.
func (g *guest) activate(ctx context.Context) error {
	e, err := g.newest()
	if err != nil || len(e.Records) == 0 {
		return err
	}
	if err := g.machine.Activate(ctx, layoutrun.State(e.Plan)); err != nil {
		return fmt.Errorf("activate: %w", err)
	}
	g.begin(ctx, e.Plan)
	return nil
}

// plan runs one plan, or what is left of it.
func (g *guest) plan(ctx context.Context, name string) error {
	data, err := os.ReadFile(filepath.Join(g.dir, name))
	if err != nil {
		return err
	}
	p, err := plan.Parse(data)
	if err != nil {
		return err
	}
	journals := filepath.Join(g.dir, "journals")
	j, err := journal.Create(journals, p)
	if errors.Is(err, fault.Exists) {
		j, err = journal.Open(journals, p.ID)
	}
	if err != nil {
		return err
	}
	defer j.Close()
	start := time.Now()
	e := &executor.Executor{Registry: g.machine.Registry(), Now: time.Now, Watch: g.watch}
	err = e.Run(ctx, p, &counted{Journal: j, guest: g})
	if err != nil && g.pulled {
		g.report.Stopped = err.Error()
		if err = g.disks.PutBack(g.job.PullDisk); err == nil {
			err = e.Run(ctx, p, &counted{Journal: j, guest: g})
		}
	}
	g.report.Took = append(g.report.Took, time.Since(start).Seconds())
	fmt.Printf("%s: %s in %.1f s: %v\n", name, p.What, time.Since(start).Seconds(), err)
	if err == nil {
		g.begin(ctx, p)
	}
	return err
}

// begin starts the load once there is something to write to.
func (g *guest) begin(ctx context.Context, p plan.Plan) {
	s := layoutrun.State(p)
	there, err := os.ReadFile("/proc/mounts")
	if g.load != nil || g.job.Rate == 0 || err != nil || !layoutrun.Contains(string(there), s.Volume.MountPoint) {
		return
	}
	g.load = layoutload.Start(ctx, g.loader(s))
}

func (g *guest) loader(s stack.Stack) layoutload.Load {
	load := layoutload.Load{Dir: s.Volume.MountPoint, Acks: g.dir, Rate: g.job.Rate}
	if g.job.Fabric == "logged" {
		load.Acked = func(version uint64) error { return layoutdisks.Mark(fmt.Sprintf(layoutrun.MarkAck, version)) }
	}
	return load
}

func (g *guest) stop() error {
	if g.load == nil {
		return nil
	}
	written, err := g.load.Stop()
	g.load = nil
	g.report.Written += written
	if err != nil {
		return fmt.Errorf("load: %w", err)
	}
	return nil
}

// watch ends the guest in the middle of a step, if that is what the job asks for. The load and md go on until the host has seen it.
func (g *guest) watch(s executor.Status) {
	if reached(s, g.job.Pull) && !g.pulled {
		g.pulled = true
		if err := g.disks.Pull(g.job.PullDisk); err != nil {
			fmt.Println("pull:", err)
		}
	}
	if reached(s, g.job.Kill) {
		layoutrun.AskToDie(g.dir, fmt.Sprintf("step %d at %.3f", s.Step, float64(s.Progress.Done)/float64(s.Progress.Total)))
	}
}

// reached reports whether a step has come to the point.
func reached(s executor.Status, k layoutrun.Kill) bool {
	return k.Fraction > 0 && s.Step == k.Step && string(s.Plan) == k.Plan && s.Progress.Total > 0 && float64(s.Progress.Done) >= k.Fraction*float64(s.Progress.Total)
}

// counted is a journal that stops the world at one of its writes.
type counted struct {
	*journal.Journal
	guest *guest
}

// Append dies before or after the write that the job names.
func (c *counted) Append(r executor.Record) error {
	k, n := c.guest.job.Kill, c.guest.appends
	c.guest.appends++
	if k.Append == n+1 && k.Before {
		c.guest.die(n)
	}
	err := c.Journal.Append(r)
	if err == nil && c.guest.job.Fabric == "logged" {
		err = layoutdisks.Mark(fmt.Sprintf(layoutrun.MarkJournal, len(c.Records()), c.Plan().ID))
	}
	if k.Append == n+1 && !k.Before {
		c.guest.die(n)
	}
	return err
}

func (g *guest) die(n int) {
	layoutrun.AskToDie(g.dir, fmt.Sprintf("journal write %d", n+1))
	select {} // the host kills the machine
}
