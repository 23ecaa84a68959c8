package content

import "bytes"

// zeros is what a block is compared with; bytes.Equal uses the processor's vector instructions.
var zeros [64 << 10]byte

// IsZero reports whether all of p is zero.
func IsZero(p []byte) bool {
	for len(p) > len(zeros) {
		if !bytes.Equal(p[:len(zeros)], zeros[:]) {
			return false
		}
		p = p[len(zeros):]
	}
	return bytes.Equal(p, zeros[:len(p)])
}
