//go:build race

package placement_test

// racing makes the race detector's run, ten times as slow, a small sample.
const racing = true
