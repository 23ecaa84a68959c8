package cephtest

import (
	"maps"
	"slices"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
)

const (
	fakeBlock  = 4 << 10 // what the fake tells apart within an image, in bytes
	fakeObject = 4 << 20 // Ceph's default size of an image's objects
)

// blocks are the written blocks of an image, by number, each with the serial of the
// write that made it what it is.
type blocks map[uint64]int64

func (b blocks) truncate(size uint64) {
	maps.DeleteFunc(b, func(n uint64, _ int64) bool { return n*fakeBlock >= size })
}

// diff returns what differs between two states, from and to in bytes, neighbours joined.
func diff(before, after blocks, from, to uint64) []ceph.Extent {
	numbers := map[uint64]bool{}
	for n, serial := range after {
		if before[n] != serial {
			numbers[n] = false
		}
	}
	for n := range before {
		if _, still := after[n]; !still {
			numbers[n] = true
		}
	}
	var list []ceph.Extent
	for _, n := range slices.Sorted(maps.Keys(numbers)) {
		start, end := max(n*fakeBlock, from), min((n+1)*fakeBlock, to)
		if start >= end {
			continue
		}
		if last := len(list) - 1; last >= 0 && list[last].Zero == numbers[n] && list[last].Offset+list[last].Length == start {
			list[last].Length += end - start
			continue
		}
		list = append(list, ceph.Extent{Offset: start, Length: end - start, Zero: numbers[n]})
	}
	return list
}

// Write marks a part of an image as written, as a client's write would; Discard as zeroed.
// Both count whole blocks of 4 KiB.
func (f *Fake) Write(pool, namespace, name string, offset, length uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.serial++
	for n := offset / fakeBlock; n*fakeBlock < offset+length; n++ {
		f.images[path(pool, namespace, name)].blocks[n] = f.serial
	}
}

// Discard zeroes a part of an image.
func (f *Fake) Discard(pool, namespace, name string, offset, length uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for n := offset / fakeBlock; n*fakeBlock < offset+length; n++ {
		delete(f.images[path(pool, namespace, name)].blocks, n)
	}
}
