package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"
)

// call is one step in a volume's life. Steps of one volume share its name; each finds what
// the ones before made by it.
type call struct {
	name string
	run  func(ctx context.Context, volume string) error
}

// side is one way to take volumes through their life, the same steps in the same order.
// settle waits until nothing goes on in the background.
type side struct {
	calls  []call
	settle func(ctx context.Context) error
}

// figures are what one call took on one side, a volume.
type figures struct {
	rate float64 // volumes a second
	cpu  float64 // milliseconds of CPU time, of the cluster's processes and this one
}

// compare runs both sides in turns and prints a line for each call.
func (b *bench) compare(ctx context.Context, driver string, inFlight int, a, z side) error {
	through, bare := map[string][]figures{}, map[string][]figures{}
	var settling []float64
	for round := range b.rounds + 1 { // the first warms up
		x, err := b.life(ctx, a, inFlight, fmt.Sprintf("bench-%s-%d-%d", driver, inFlight, round))
		if err != nil {
			return err
		}
		start := time.Now()
		if err := a.settle(ctx); err != nil {
			return err
		}
		settled := time.Since(start).Seconds()
		y, err := b.life(ctx, z, inFlight, fmt.Sprintf("hf-bench-%s-%d-%d", driver, inFlight, round))
		if err != nil {
			return err
		}
		if round == 0 {
			continue
		}
		settling = append(settling, settled)
		for name := range x {
			through[name], bare[name] = append(through[name], x[name]), append(bare[name], y[name])
		}
	}
	for _, c := range a.calls {
		x, y := through[c.name], bare[c.name]
		fmt.Printf("%-8s %-16s %9d %10.1f/s %10.1f/s %7.2f %9.1f ms %9.1f ms %7.2f\n", driver, c.name, inFlight,
			middle(x, rate), middle(y, rate), ratio(x, y, rate), middle(x, cpu), middle(y, cpu), ratio(x, y, cpu))
	}
	fmt.Printf("%-8s %-16s %9d %10.1f s  (background work after the last call)\n", driver, "settled", inFlight, median(settling))
	return nil
}

func rate(f figures) float64 { return f.rate }
func cpu(f figures) float64  { return f.cpu }

// middle is the median of one figure.
func middle(all []figures, of func(figures) float64) float64 {
	values := make([]float64, len(all))
	for i, f := range all {
		values[i] = of(f)
	}
	return median(values)
}

// ratio is the median of the rounds' ratios.
func ratio(x, y []figures, of func(figures) float64) float64 {
	values := make([]float64, len(x))
	for i := range x {
		values[i] = of(x[i]) / of(y[i])
	}
	return median(values)
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

// life takes all volumes through one call, then all through the next.
func (b *bench) life(ctx context.Context, s side, inFlight int, prefix string) (map[string]figures, error) {
	all := map[string]figures{}
	for _, c := range s.calls {
		start, used := time.Now(), cpuTime(b.dir)
		if err := b.each(ctx, c, inFlight, prefix); err != nil {
			return nil, fmt.Errorf("%s: %w", c.name, err)
		}
		n := float64(b.volumes)
		all[c.name] = figures{n / time.Since(start).Seconds(), 1000 * (cpuTime(b.dir) - used) / n}
	}
	return all, nil
}

// each runs a call for all volumes with so many under way at once.
func (b *bench) each(ctx context.Context, c call, inFlight int, prefix string) error {
	var mu sync.Mutex
	var failed error
	names := make(chan string)
	var workers sync.WaitGroup
	for range inFlight {
		workers.Go(func() {
			for name := range names {
				if err := c.run(ctx, name); err != nil {
					mu.Lock()
					failed = errors.Join(failed, err)
					mu.Unlock()
				}
			}
		})
	}
	for i := range b.volumes {
		names <- prefix + "-" + strconv.Itoa(i)
	}
	close(names)
	workers.Wait()
	return failed
}
