package daemon

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/storage"
)

const (
	keyTypeAES = 1  // CEPH_CRYPTO_AES, include/ceph_fs.h
	keyBytes   = 16 // AES-128
)

// NewKey makes a cephx key as ceph-authtool --gen-key does: base64 of CryptoKey::encode
// (auth/Crypto.cc): u16 type, utime_t created (u32 seconds, u32 nanoseconds), u16 length,
// the secret; all little-endian. random must be cryptographically strong.
func NewKey(random io.Reader, created time.Time) (storage.Secret, error) {
	raw := make([]byte, 12+keyBytes)
	binary.LittleEndian.PutUint16(raw[0:], keyTypeAES)
	binary.LittleEndian.PutUint32(raw[2:], uint32(created.Unix()))
	binary.LittleEndian.PutUint32(raw[6:], uint32(created.Nanosecond()))
	binary.LittleEndian.PutUint16(raw[10:], keyBytes)
	if _, err := io.ReadFull(random, raw[12:]); err != nil {
		return storage.Secret{}, fmt.Errorf("read random bytes of a key: %w", err)
	}
	return storage.NewSecret(base64.StdEncoding.EncodeToString(raw)), nil
}

// CheckKey says whether text is a cephx key, without repeating any of it.
func CheckKey(text string) error {
	raw, err := base64.StdEncoding.DecodeString(text)
	switch {
	case err != nil:
		return fmt.Errorf("the key is not base64")
	case len(raw) < 12 || binary.LittleEndian.Uint16(raw) != keyTypeAES,
		int(binary.LittleEndian.Uint16(raw[10:])) != len(raw)-12, len(raw)-12 != keyBytes:
		return fmt.Errorf("the key is not a cephx key of %d bytes", keyBytes)
	}
	return nil
}
