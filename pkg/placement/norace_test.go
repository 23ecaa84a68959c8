//go:build !race

package placement_test

const racing = false
