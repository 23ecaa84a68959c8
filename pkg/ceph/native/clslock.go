package native

import (
	"encoding/binary"

	"github.com/holdfast-storage/holdfast/pkg/ceph"
)

// Arguments of the OSD class "lock", encoded as Ceph does (src/cls/lock/cls_lock_ops.h:
// cls_lock_lock_op, cls_lock_unlock_op, cls_lock_assert_op, each version 1): a version
// byte, a compat byte, a length, the fields; little-endian, strings with a u32 length.

const (
	lockExclusive = 1 // ClsLockType::EXCLUSIVE
	flagMustRenew = 2 // LOCK_FLAG_MUST_RENEW: ENOENT unless the holder still holds it
)

type encoder struct{ body []byte }

func (e *encoder) text(s string) {
	e.u32(uint32(len(s)))
	e.body = append(e.body, s...)
}
func (e *encoder) u8(v byte)    { e.body = append(e.body, v) }
func (e *encoder) u32(v uint32) { e.body = binary.LittleEndian.AppendUint32(e.body, v) }

// frame puts version 1, compat 1 and the length in front.
func (e *encoder) frame() []byte {
	head := binary.LittleEndian.AppendUint32([]byte{1, 1}, uint32(len(e.body)))
	return append(head, e.body...)
}

func encodeLock(l ceph.Lease, flags byte) []byte {
	var e encoder
	e.text(l.Name)
	e.u8(lockExclusive)
	e.text(l.Cookie)
	e.text("") // tag
	e.text(l.Description)
	sec, nsec := seconds(l.TTL)
	e.u32(sec)
	e.u32(nsec)
	e.u8(flags)
	return e.frame()
}

func encodeUnlock(l ceph.Lease) []byte {
	var e encoder
	e.text(l.Name)
	e.text(l.Cookie)
	return e.frame()
}

func encodeAssert(l ceph.Lease) []byte {
	var e encoder
	e.text(l.Name)
	e.u8(lockExclusive)
	e.text(l.Cookie)
	e.text("") // tag
	return e.frame()
}
