package native

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"github.com/ceph/go-ceph/rados"
	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
)

// LeaseOn asks the class "lock", which leaves out holders whose time has run out, and the
// object's time of change, which every operation of the class sets that changes something.
func (o *objects) LeaseOn(ctx context.Context, name, lease string) (ceph.LeaseState, error) {
	return call(ctx, o.cluster, "look at the lease on "+o.path(name), func() (state ceph.LeaseState, err error) {
		err = o.cluster.withPool(o.pool, o.namespace, func(ioctx *rados.IOContext) error {
			stat, err := ioctx.Stat(name)
			if err != nil {
				return err
			}
			op := rados.CreateReadOp()
			defer op.Release()
			op.AssertExists()
			var question encoder
			question.text(lease)
			step := op.Exec("lock", "get_info", question.frame())
			if err := op.Operate(ioctx, name, rados.OperationNoFlag); err != nil {
				return err
			}
			answer, err := step.Bytes()
			if err != nil {
				return err
			}
			state, err = decodeLockInfo(answer)
			state.Changed = stat.ModTime
			return err
		})
		return state, err
	})
}

// errCut is for an answer that ends too soon.
var errCut = errors.New("the answer of the class \"lock\" is cut off")

// decoder reads what Ceph encodes; after the first error everything is zero.
type decoder struct {
	rest []byte
	err  error
}

func (d *decoder) take(n uint32) []byte {
	if d.err != nil || uint64(n) > uint64(len(d.rest)) {
		d.err = errCut
		return make([]byte, min(n, 8))
	}
	out := d.rest[:n]
	d.rest = d.rest[n:]
	return out
}

func (d *decoder) u32() uint32  { return binary.LittleEndian.Uint32(d.take(4)) }
func (d *decoder) text() string { return string(d.take(d.u32())) }

// frame enters a versioned structure and returns it; what a newer Ceph has at its end is left.
func (d *decoder) frame() *decoder {
	d.take(2) // version and compat
	return &decoder{rest: d.take(d.u32()), err: d.err}
}

// address reads an entity_addr_t (src/msg/msg_types.h): with a leading 1 it is a versioned structure, with a
// leading 0 the old form of 136 bytes, of which nothing is read. It is "" where there is none.
func (d *decoder) address() ceph.ClientAddress {
	if marker := d.take(1); marker[0] != 1 {
		d.take(135)
		return ""
	}
	in := d.frame()
	in.take(4) // type
	nonce := in.u32()
	family, body := uint16(0), []byte(nil)
	if length := in.u32(); length >= 2 {
		family, body = binary.LittleEndian.Uint16(in.take(2)), in.take(length-2)
	}
	if in.err != nil {
		d.err = in.err
		return ""
	}
	var ip netip.Addr
	switch { // sockaddr_in and sockaddr_in6 behind their family: the port comes first
	case family == unix.AF_INET && len(body) >= 6:
		ip = netip.AddrFrom4([4]byte(body[2:6]))
	case family == unix.AF_INET6 && len(body) >= 22:
		ip = netip.AddrFrom16([16]byte(body[6:22]))
	default:
		return ""
	}
	client, err := ceph.ParseClient(netip.AddrPortFrom(ip, 0).String() + "/" + strconv.FormatUint(uint64(nonce), 10))
	if err != nil {
		return ""
	}
	return client
}

// decodeHolder reads the client out of a stored lock_info_t (cls_lock_types.h), which is laid out as the reply
// that decodeLockInfo reads.
func decodeHolder(data []byte) (ceph.ClientAddress, error) {
	all := decoder{rest: data}
	lock := all.frame()
	if lock.u32() == 0 {
		return "", lock.err
	}
	id := lock.frame()
	info := lock.frame()
	info.take(8) // its end
	holder := info.address()
	if err := errors.Join(lock.err, id.err, info.err); err != nil {
		return "", fmt.Errorf("decode the lock: %w", err)
	}
	return holder, nil
}

// decodeLockInfo reads a cls_lock_get_info_reply (src/cls/lock/cls_lock_ops.h), whose holders are
// a map from locker_id_t to locker_info_t (cls_lock_types.h). The lock is exclusive: one at most.
func decodeLockInfo(data []byte) (ceph.LeaseState, error) {
	all := decoder{rest: data}
	reply := all.frame()
	if reply.u32() == 0 {
		return ceph.LeaseState{}, reply.err
	}
	id := reply.frame()
	info := reply.frame()
	sec, nsec := info.u32(), info.u32()
	info.address()
	state := ceph.LeaseState{Held: true, Holder: info.text(), Until: time.Unix(int64(sec), int64(nsec))}
	if err := errors.Join(reply.err, id.err, info.err); err != nil {
		return ceph.LeaseState{}, fmt.Errorf("decode the lease: %w", err)
	}
	return state, nil
}
