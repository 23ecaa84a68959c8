package md

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// The superblock of version 1.2 (linux/raid/md_p.h, struct mdp_superblock_1): 4 KiB from the device's start.
const (
	superblockAt    = 4096
	superblockMagic = 0xa92b4efc
	setUUIDAt       = 16
	eventsAt        = 200
)

// superblockUUID reads the array's UUID from a member.
func superblockUUID(device string) (string, error) {
	f, err := os.Open(device)
	if err != nil {
		return "", fmt.Errorf("read md superblock: %w", err)
	}
	defer f.Close()
	buf := make([]byte, 64)
	if _, err := f.ReadAt(buf, superblockAt); err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read md superblock of %s: %w", device, err)
	}
	return parseSuperblock(buf), nil
}

// superblockEvents reads a member's count of events, past the cache: md writes it past that, too.
func superblockEvents(device string) (uint64, error) {
	fd, err := unix.Open(device, unix.O_RDONLY|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("read md superblock of %s: %w", device, err)
	}
	defer unix.Close(fd)
	buf, err := unix.Mmap(-1, 0, superblockAt, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE) // aligned, as O_DIRECT wants it
	if err != nil {
		return 0, fmt.Errorf("read md superblock of %s: %w", device, err)
	}
	defer func() { _ = unix.Munmap(buf) }()
	if _, err := unix.Pread(fd, buf, superblockAt); err != nil {
		return 0, fmt.Errorf("read md superblock of %s: %w", device, err)
	}
	return parseEvents(buf), nil
}

// parseEvents returns the count of events, 0 where there is no superblock.
func parseEvents(buf []byte) uint64 {
	if len(buf) < eventsAt+8 || parseSuperblock(buf) == "" {
		return 0
	}
	return binary.LittleEndian.Uint64(buf[eventsAt:])
}

// parseSuperblock returns the UUID of an array, 8-4-4-4-12, or "" where there is no superblock.
func parseSuperblock(buf []byte) string {
	if len(buf) < setUUIDAt+16 || binary.LittleEndian.Uint32(buf) != superblockMagic {
		return ""
	}
	return dashed(hex.EncodeToString(buf[setUUIDAt : setUUIDAt+16]))
}

func dashed(t string) string {
	return t[:8] + "-" + t[8:12] + "-" + t[12:16] + "-" + t[16:20] + "-" + t[20:]
}
