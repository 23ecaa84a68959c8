// Package placementtest makes OSD maps as Ceph itself keeps them, for tests: osdmaptool
// writes an empty one, this package puts pools, OSDs and upmaps into its bytes, and
// osdmaptool says what follows from it. So what is compared with never went through the
// code under test.
package placementtest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/holdfast-storage/holdfast/pkg/crush"
	"github.com/holdfast-storage/holdfast/pkg/placement/osdmap"
)

// Image is what a binary OSD map says, as far as tests set it. See OSDMap::encode.
type Image struct {
	Pools    []Pool
	OSDs     []osdmap.OSD
	Crush    []byte // binary CRUSH map
	Temp     map[osdmap.PG][]crush.ItemID
	Primary  map[osdmap.PG]crush.ItemID
	Upmap    map[osdmap.PG][]crush.ItemID
	Items    map[osdmap.PG][]osdmap.Pair
	template []byte
}

// Pool is one of them.
type Pool struct {
	ID        int64
	Type      uint8 // crush.Replicated or crush.Erasure
	Size      uint8
	Rule      uint8
	PGs, PGPs uint32
}

// reader walks over the template.
type reader struct {
	data []byte
	at   int
}

func (r *reader) take(n int) []byte { r.at += n; return r.data[r.at-n : r.at] }
func (r *reader) u32() uint32       { return binary.LittleEndian.Uint32(r.take(4)) }
func (r *reader) blob() []byte      { return r.take(int(r.u32())) }

// section skips a versioned header and returns the number of bytes that follow.
func (r *reader) section() int { r.take(2); return int(r.u32()) }

func u32(b []byte, v uint32) []byte { return binary.LittleEndian.AppendUint32(b, v) }
func u64(b []byte, v uint64) []byte { return binary.LittleEndian.AppendUint64(b, v) }

// pgid is pg_t: version, pool, seed, and what once was "preferred".
func pgid(b []byte, pg osdmap.PG) []byte {
	b = append(b, 1)
	b = u64(b, uint64(pg.Pool))
	b = u32(b, pg.Seed)
	return u32(b, 0xffffffff)
}

// Encode writes the map: everything that Image does not know is the template's, which
// has one pool and no override.
func (im *Image) Encode() ([]byte, error) {
	r := &reader{data: im.template}
	r.section()
	clientAt := r.at
	clientLen := r.section()
	clientEnd := r.at + clientLen
	var out []byte
	out = append(out, im.template[:r.at]...)
	keep := func(n int) { out = append(out, r.take(n)...) }

	keep(16 + 4 + 8 + 8) // fsid, epoch, created, modified
	if n := r.u32(); n != 1 {
		return nil, fmt.Errorf("the template has %d pools, want 1", n)
	}
	r.take(8)
	start := r.at
	poolLen := r.section()
	r.take(poolLen)
	out = im.appendPools(out, im.template[start:r.at])
	r.u32() // names
	r.take(8)
	r.blob()
	r.take(4) // pool_max
	out = im.appendNames(out)
	keep(4) // flags
	r.take(4)
	n := len(im.OSDs)
	if states := int(r.u32()); states != n {
		return nil, fmt.Errorf("the template has %d OSDs, want %d", states, n)
	}
	r.take(4 * n)
	r.take(4 + 4*n)
	out = im.appendOSDs(out)
	addrs := r.at
	count := int(r.u32())
	for range count {
		skipAddrs(r)
	}
	out = append(out, r.data[addrs:r.at]...)
	if temps := r.u32(); temps != 0 {
		return nil, fmt.Errorf("the template has %d pg_temp", temps)
	}
	r.u32() // primary_temp
	r.take(4 * int(r.u32()))
	crushMap := r.blob()
	out = im.appendTemps(out)
	if im.Crush == nil {
		im.Crush = crushMap
	}
	out = append(u32(out, uint32(len(im.Crush))), im.Crush...)
	profiles := r.at
	for range r.u32() {
		r.blob()
		for range r.u32() {
			r.blob()
			r.blob()
		}
	}
	out = append(out, r.data[profiles:r.at]...)
	if upmaps := r.u32() + r.u32(); upmaps != 0 {
		return nil, fmt.Errorf("the template has %d upmaps", upmaps)
	}
	out = im.appendUpmaps(out)
	out = append(out, r.data[r.at:clientEnd]...)
	binary.LittleEndian.PutUint32(out[clientAt+2:], uint32(len(out)-clientAt-6))
	out = append(out, im.template[clientEnd:len(im.template)-4]...)
	binary.LittleEndian.PutUint32(out[2:], uint32(len(out)+4-6))
	return u32(out, ^crc32.Checksum(out, crc32.MakeTable(crc32.Castagnoli))), nil
}

func skipAddrs(r *reader) {
	// entity_addrvec_t: a marker byte 2 and the addresses, each a marker byte and a section.
	if marker := r.take(1)[0]; marker != 2 {
		r.at--
		skipAddr(r)
		return
	}
	for range r.u32() {
		skipAddr(r)
	}
}

func skipAddr(r *reader) {
	if r.take(1)[0] == 0 { // the oldest form: type, nonce, sockaddr_storage
		r.take(3 + 4 + 128)
		return
	}
	r.take(r.section())
}

func (im *Image) appendPools(out, template []byte) []byte {
	out = u32(out, uint32(len(im.Pools)))
	for _, p := range im.Pools {
		out = u64(out, uint64(p.ID))
		body := bytes.Clone(template)
		body[6], body[7], body[8] = p.Type, p.Size, p.Rule
		// pg_num_target, pgp_num_target and pg_num_pending stand side by side further on; a
		// pending number below pg_num would mean that PGs are to be merged.
		was := body[10:14]
		if at := 18 + bytes.Index(body[18:], bytes.Repeat(was, 3)); at > 18 {
			copy(body[at:], u32(u32(u32(nil, p.PGs), p.PGPs), p.PGs))
		}
		binary.LittleEndian.PutUint32(body[10:], p.PGs)
		binary.LittleEndian.PutUint32(body[14:], p.PGPs)
		out = append(out, body...)
	}
	return out
}

func (im *Image) appendNames(out []byte) []byte {
	out = u32(out, uint32(len(im.Pools)))
	var most int64
	for _, p := range im.Pools {
		name := fmt.Sprintf("pool%d", p.ID)
		out = append(u32(u64(out, uint64(p.ID)), uint32(len(name))), name...)
		most = max(most, p.ID)
	}
	return u32(out, uint32(most))
}

func (im *Image) appendOSDs(out []byte) []byte {
	n := uint32(len(im.OSDs))
	out = u32(u32(out, n), n)
	for _, o := range im.OSDs {
		var state uint32
		if o.Exists {
			state |= 1
		}
		if o.Up {
			state |= 2
		}
		out = u32(out, state)
	}
	out = u32(out, n)
	for _, o := range im.OSDs {
		out = u32(out, uint32(o.Weight))
	}
	return out
}

func (im *Image) appendTemps(out []byte) []byte {
	out = u32(out, uint32(len(im.Temp)))
	for _, pg := range sorted(im.Temp) {
		out = appendIDs(pgid(out, pg), im.Temp[pg])
	}
	out = u32(out, uint32(len(im.Primary)))
	for _, pg := range sorted(im.Primary) {
		out = u32(pgid(out, pg), uint32(im.Primary[pg]))
	}
	out = u32(out, uint32(len(im.OSDs)))
	for _, o := range im.OSDs {
		out = u32(out, o.Affinity)
	}
	return out
}

func (im *Image) appendUpmaps(out []byte) []byte {
	out = u32(out, uint32(len(im.Upmap)))
	for _, pg := range sorted(im.Upmap) {
		out = appendIDs(pgid(out, pg), im.Upmap[pg])
	}
	out = u32(out, uint32(len(im.Items)))
	for _, pg := range sorted(im.Items) {
		out = u32(pgid(out, pg), uint32(len(im.Items[pg])))
		for _, pair := range im.Items[pg] {
			out = u32(u32(out, uint32(pair.From)), uint32(pair.To))
		}
	}
	return out
}

func appendIDs(out []byte, ids []crush.ItemID) []byte {
	out = u32(out, uint32(len(ids)))
	for _, id := range ids {
		out = u32(out, uint32(id))
	}
	return out
}
