package kms

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha512"
	"encoding/base64"
	"fmt"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// passphrase wraps keys by AES-256-GCM with a key derived from a passphrase. A wrapped key
// is base64 of: a byte of version, 16 bytes of salt, 12 of nonce, the ciphertext with its tag.
type passphrase struct{ value storage.Secret }

const (
	wrapVersion = 1
	saltSize    = 16
	// iterations of PBKDF2-HMAC-SHA512, as OWASP's Password Storage Cheat Sheet has it (2023).
	iterations = 210_000
)

// purpose is bound to each wrapped key, so that it opens as nothing else.
var purpose = []byte("holdfast volume key")

func (p passphrase) cipher(salt []byte) (cipher.AEAD, error) {
	key, err := pbkdf2.Key(sha512.New, p.value.Reveal(), salt, iterations, 32)
	if err != nil {
		return nil, fmt.Errorf("derive a key: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("make a cipher: %w", err)
	}
	return cipher.NewGCM(block)
}

// Wrap encrypts the key.
func (p passphrase) Wrap(_ context.Context, key storage.Secret) (string, error) {
	salt := make([]byte, saltSize)
	_, _ = rand.Read(salt) // crypto/rand never fails (it ends the program)
	aead, err := p.cipher(salt)
	if err != nil {
		return "", err
	}
	nonce := make([]byte, aead.NonceSize())
	_, _ = rand.Read(nonce)
	out := append(append([]byte{wrapVersion}, salt...), nonce...)
	return base64.StdEncoding.EncodeToString(aead.Seal(out, nonce, []byte(key.Reveal()), purpose)), nil
}

// Unwrap decrypts it.
func (p passphrase) Unwrap(_ context.Context, wrapped string) (storage.Secret, error) {
	data, err := base64.StdEncoding.DecodeString(wrapped)
	if err != nil || len(data) < 1+saltSize {
		return storage.Secret{}, fault.New(fault.Precondition, "the wrapped key is damaged")
	}
	if data[0] != wrapVersion {
		return storage.Secret{}, fault.New(fault.Precondition, "the wrapped key has version %d, this Holdfast knows %d", data[0], wrapVersion)
	}
	salt, rest := data[1:1+saltSize], data[1+saltSize:]
	aead, err := p.cipher(salt)
	if err != nil {
		return storage.Secret{}, err
	}
	if len(rest) < aead.NonceSize() {
		return storage.Secret{}, fault.New(fault.Precondition, "the wrapped key is damaged")
	}
	key, err := aead.Open(nil, rest[:aead.NonceSize()], rest[aead.NonceSize():], purpose)
	if err != nil {
		return storage.Secret{}, fault.New(fault.Denied, "the passphrase does not open it")
	}
	return storage.NewSecret(string(key)), nil
}
