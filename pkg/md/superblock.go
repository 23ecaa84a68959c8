package md

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
)

// The superblock of version 1.2 (linux/raid/md_p.h, struct mdp_superblock_1): 4 KiB from the device's start.
const (
	superblockAt    = 4096
	superblockMagic = 0xa92b4efc
	setUUIDAt       = 16
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
