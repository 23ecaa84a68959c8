package executor

import (
	"math"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Forecast says how long what is left of a plan takes, by what its steps have taken so far.
type Forecast struct {
	// Left is what is still to be copied, and Rate what was on the average so far, a second; 0 if nothing was measured.
	Left storage.Bytes `json:"left_bytes"`
	Rate storage.Bytes `json:"rate_bytes_per_second"`
	// Low, Likely and High are seconds.
	Low    int64 `json:"low_seconds"`
	Likely int64 `json:"likely_seconds"`
	High   int64 `json:"high_seconds"`
}

// spread is the least that a forecast is uncertain by.
const spread = 0.1

// ForecastOf says how long what is left takes, from the plan and its journal alone. A step costs a time of its own and one for each byte,
// both fitted to the steps that are verified: many small steps are not as fast as few large ones. ok is false before a step with bytes
// is verified.
func ForecastOf(p plan.Plan, records []Record) (f Forecast, ok bool) {
	status := StatusOf(p, records)
	m := measured(p, records)
	for i := status.Step; i < len(p.Steps); i++ {
		f.Left += p.Steps[i].Sync
	}
	f.Left -= status.Progress.Done
	if m.bytes <= 0 || m.seconds <= 0 {
		return f, false
	}
	f.Rate = storage.Bytes(m.bytes / m.seconds)
	each, perByte := m.fit()
	var likely float64
	for i := status.Step; i < len(p.Steps); i++ {
		takes := each + perByte*float64(p.Steps[i].Sync)
		if i == status.Step && p.Steps[i].Sync > 0 {
			takes *= 1 - float64(min(status.Progress.Done, p.Steps[i].Sync))/float64(p.Steps[i].Sync)
		}
		likely += takes
	}
	off := max(spread, m.error(each, perByte))
	f.Low, f.Likely, f.High = int64(likely*max(0, 1-off)), int64(math.Ceil(likely)), int64(math.Ceil(likely*(1+off)))
	return f, true
}

// sums are those that a line is fitted with: over steps, seconds by bytes.
type sums struct {
	n, bytes, seconds, squares, products float64
	steps                                [][2]float64 // bytes, seconds
}

// between is the most that counts as a step's own of the time since the step before was verified: its check, an attempt that was cut
// off, the election of another leader. What is longer was a pause.
const between = time.Minute

// measured sums up the steps that are verified.
func measured(p plan.Plan, records []Record) (m sums) {
	begun := map[int]time.Time{}
	var free time.Time // when the next step might have begun
	for _, r := range records {
		switch {
		case r.Event == Paused || r.Event == Again:
			free = r.At
		case r.Event == StepBegun:
			begun[r.Step] = r.At
			if gap := r.At.Sub(free); !free.IsZero() && gap > 0 {
				begun[r.Step] = r.At.Add(-min(gap, between))
			}
		case r.Event == StepVerified && r.Step < len(p.Steps):
			free = r.At
			at, ok := begun[r.Step]
			if !ok {
				continue // it was done before
			}
			bytes, seconds := float64(p.Steps[r.Step].Sync), r.At.Sub(at).Seconds()
			m.n, m.bytes, m.seconds = m.n+1, m.bytes+bytes, m.seconds+seconds
			m.squares, m.products = m.squares+bytes*bytes, m.products+bytes*seconds
			m.steps = append(m.steps, [2]float64{bytes, seconds})
		}
	}
	return m
}

// fit is the least-squares line of seconds over bytes, neither of its parts below zero.
func (m sums) fit() (each, perByte float64) {
	determinant := m.n*m.squares - m.bytes*m.bytes
	if m.n < 2 || determinant <= 1e-9*m.n*m.squares {
		return 0, m.seconds / m.bytes
	}
	perByte = (m.n*m.products - m.bytes*m.seconds) / determinant
	each = (m.seconds - perByte*m.bytes) / m.n
	switch {
	case perByte < 0:
		return m.seconds / m.n, 0
	case each < 0:
		return 0, m.products / m.squares
	default:
		return each, perByte
	}
}

// error is how far steps were from the line, as a part of what they took.
func (m sums) error(each, perByte float64) float64 {
	var off float64
	for _, s := range m.steps {
		off += math.Abs(s[1] - each - perByte*s[0])
	}
	return off / m.seconds
}
