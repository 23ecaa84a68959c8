package vmdk

import (
	"encoding/binary"

	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// cowdEntries is how many grains a table of an ESX server's extent has (VMware: Virtual Disk Format 5.0, "ESX Server
// Sparse Extents").
const cowdEntries = 4096

// openCOWD reads header and directory of a vmfsSparse extent: snapshots on an ESX server.
func openCOWD(file File, length int64) (*sparse, error) {
	head, err := readAll(file, 0, min(length, SectorSize), "the header")
	if err != nil {
		return nil, err
	}
	if len(head) < SectorSize {
		return nil, fault.New(fault.Invalid, "the file has %d bytes: the header of a vmfsSparse extent has %d", len(head), SectorSize)
	}
	le := binary.LittleEndian
	version, capacity, grain := le.Uint32(head[4:]), int64(le.Uint32(head[12:])), int64(le.Uint32(head[16:]))
	directory, tablesGiven := int64(le.Uint32(head[20:])), int64(le.Uint32(head[24:]))
	if version != 1 {
		return nil, fault.New(fault.Unsupported, "version at byte 4 is %d: only 1 is known", version)
	}
	if grain < 1 || grain > 2048 || grain&(grain-1) != 0 {
		return nil, fault.New(fault.Invalid, "grain size at byte 16 is %d sectors: it must be a power of two up to 2048", grain)
	}
	covered := grain * cowdEntries
	needed := (capacity + covered - 1) / covered
	if capacity == 0 || tablesGiven < needed {
		return nil, fault.New(fault.Invalid, "capacity at byte 12 is %d sectors and tables at byte 24 are %d: %d would be needed", capacity, tablesGiven, needed)
	}
	s := &sparse{
		file: file, length: length, capacity: capacity * SectorSize, grain: grain * SectorSize,
		metadata: SectorSize, tables: tables{file: file, entries: cowdEntries},
	}
	if directory == 0 || directory > length/SectorSize {
		return nil, fault.New(fault.Invalid, "grain directory at byte 20 is sector %d, and the file has %d", directory, length/SectorSize)
	}
	s.directory, err = readTable(file, directory*SectorSize, int(needed), "the grain directory (its sector is at byte 20 of the header)")
	return s, err
}
