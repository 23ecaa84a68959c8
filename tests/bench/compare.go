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

// compare runs both sides in turns and prints a line for each call.
func (b *bench) compare(ctx context.Context, driver string, inFlight int, a, z side) error {
	through, bare, ratio := map[string][]float64{}, map[string][]float64{}, map[string][]float64{}
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
			through[name], bare[name], ratio[name] = append(through[name], x[name]), append(bare[name], y[name]), append(ratio[name], x[name]/y[name])
		}
	}
	for _, c := range a.calls {
		fmt.Printf("%-8s %-16s %9d %10.1f/s %10.1f/s %7.2f\n", driver, c.name, inFlight, median(through[c.name]), median(bare[c.name]), median(ratio[c.name]))
	}
	fmt.Printf("%-8s %-16s %9d %10.1f s  (background work after the last call)\n", driver, "settled", inFlight, median(settling))
	return nil
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

// life takes all volumes through one call, then all through the next, and returns the rates.
func (b *bench) life(ctx context.Context, s side, inFlight int, prefix string) (map[string]float64, error) {
	rates := map[string]float64{}
	for _, c := range s.calls {
		start := time.Now()
		if err := b.each(ctx, c, inFlight, prefix); err != nil {
			return nil, fmt.Errorf("%s: %w", c.name, err)
		}
		rates[c.name] = float64(b.volumes) / time.Since(start).Seconds()
	}
	return rates, nil
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
