package native

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"strconv"

	"github.com/ceph/go-ceph/rados"
	"golang.org/x/sync/errgroup"

	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// barrierCalls bounds the questions under way.
const barrierCalls = 16

// Barrier asks the primary OSD of each placement group for an object that is not there, on the newest
// OSD map: an OSD answers no question before it has the map that the asker has.
func (c *cluster) Barrier(ctx context.Context, pool string) error {
	pools, err := c.Pools(ctx)
	if err != nil {
		return err
	}
	groups := 0
	for _, p := range pools {
		if p.Name == pool {
			groups = p.PGs
		}
	}
	if groups == 0 {
		return fault.New(fault.Precondition, "pool %q does not exist on this cluster", pool)
	}
	if err := do(ctx, c, "wait for the newest OSD map", c.conn.WaitForLatestOSDMap); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(barrierCalls)
	for _, name := range oneForEach(groups) {
		group.Go(func() error {
			return do(ctx, c, "ask the OSDs of pool "+pool+" for the newest map", func() error {
				return c.withPool(pool, "", func(ioctx *rados.IOContext) error {
					if _, err := ioctx.Stat(name); err != nil && !errors.Is(err, rados.ErrNotFound) {
						return fmt.Errorf("look for %s: %w", name, err)
					}
					return nil
				})
			})
		})
	}
	return group.Wait()
}

// oneForEach returns an object's name for each of a pool's placement groups.
func oneForEach(groups int) []string {
	names := make([]string, groups)
	for i, missing := 0, groups; missing > 0; i++ {
		name := "hf-barrier-" + strconv.Itoa(i)
		if at := stableMod(rjenkins(name), uint32(groups)); names[at] == "" {
			names[at] = name
			missing--
		}
	}
	return names
}

// stableMod maps a hash to one of n placement groups (ceph_stable_mod, src/include/ceph_fs.h).
func stableMod(hash, n uint32) uint32 {
	mask := uint32(1)<<bits.Len32(n-1) - 1
	if hash&mask < n {
		return hash & mask
	}
	return hash & (mask >> 1)
}

// rjenkins is the hash of an object's name (ceph_str_hash_rjenkins, src/common/ceph_hash.cc).
func rjenkins(text string) uint32 {
	const golden = 0x9e3779b9
	a, b, c := uint32(golden), uint32(golden), uint32(0)
	rest := []byte(text)
	for len(rest) >= 12 {
		a += binary.LittleEndian.Uint32(rest)
		b += binary.LittleEndian.Uint32(rest[4:])
		c += binary.LittleEndian.Uint32(rest[8:])
		a, b, c = mix(a, b, c)
		rest = rest[12:]
	}
	// What is left, in the same order; the first byte of c is the length's.
	var last [12]byte
	copy(last[:8], rest)
	if len(rest) > 8 {
		copy(last[9:], rest[8:])
	}
	a += binary.LittleEndian.Uint32(last[:])
	b += binary.LittleEndian.Uint32(last[4:])
	c += binary.LittleEndian.Uint32(last[8:]) + uint32(len(text))
	_, _, c = mix(a, b, c)
	return c
}

func mix(a, b, c uint32) (uint32, uint32, uint32) {
	for _, s := range [3][3]int{{13, 8, 13}, {12, 16, 5}, {3, 10, 15}} {
		a = (a - b - c) ^ (c >> s[0])
		b = (b - c - a) ^ (a << s[1])
		c = (c - a - b) ^ (b >> s[2])
	}
	return a, b, c
}
