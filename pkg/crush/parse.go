package crush

import (
	"bytes"
	"encoding/binary"
)

// Forms says for people which forms of a map Parse reads.
const Forms = "a CRUSH map: binary (`ceph osd getcrushmap`), text (`crushtool -d`) or JSON (`ceph osd crush dump`, `crushtool --dump`)"

// Parse reads a map in any form: which one it is shows in the content.
func Parse(data []byte) (*Map, error) {
	if len(data) >= 4 && binary.LittleEndian.Uint32(data) == binaryMagic {
		return ParseBinary(data)
	}
	if trimmed := bytes.TrimSpace(data); len(trimmed) > 0 && trimmed[0] == '{' {
		return ParseJSON(data)
	}
	return ParseText(data)
}
