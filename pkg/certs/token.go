package certs

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Token is what a process joins a cluster with: it says where, whom to trust, and for whom a certificate is asked. Its Secret
// is known to the cluster by its hash alone, and is good once and until it expires.
type Token struct {
	Addresses []string       `json:"addresses"`
	CA        string         `json:"ca"` // PEM
	For       Identity       `json:"for"`
	Secret    storage.Secret `json:"-"`
}

// tokenPrefix begins every token, so that one is known when it is found in the wrong place.
const tokenPrefix = "holdfast-join-1."

// NewToken makes a token for an identity.
func NewToken(addresses []string, ca []byte, id Identity) (Token, error) {
	if err := id.check(); err != nil {
		return Token{}, err
	}
	return Token{addresses, string(ca), id, storage.NewSecret(rand.Text() + rand.Text())}, nil
}

// Hash is what the cluster knows of the secret.
func (t Token) Hash() string { return HashOf(t.Secret) }

// HashOf is the SHA-256 of a token's secret, in hexadecimal digits.
func HashOf(secret storage.Secret) string {
	sum := sha256.Sum256([]byte(secret.Reveal()))
	return hex.EncodeToString(sum[:])
}

// wire is a token as it is written; the secret is in it.
type wire struct {
	Token

	Secret string `json:"secret"`
}

// Reveal writes the token, secret and all, for the one who joins.
func (t Token) Reveal() (string, error) {
	data, err := json.Marshal(wire{t, t.Secret.Reveal()}) //nolint:gosec // the one place that writes a token
	if err != nil {
		return "", fmt.Errorf("write join token: %w", err)
	}
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(data), nil
}

// IsToken reports whether a text is meant as a token: such a text must not be quoted.
func IsToken(text string) bool { return strings.HasPrefix(text, tokenPrefix) }

// ParseToken reads what Reveal wrote. Errors do not quote it.
func ParseToken(text string) (Token, error) {
	encoded, ok := strings.CutPrefix(strings.TrimSpace(text), tokenPrefix)
	if !ok {
		return Token{}, fault.New(fault.Invalid, "this is no join token: one begins with %q", tokenPrefix)
	}
	data, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil {
		return Token{}, fault.New(fault.Invalid, "the join token is cut off or damaged")
	}
	var w wire
	if err := json.Unmarshal(data, &w); err != nil {
		return Token{}, fault.New(fault.Invalid, "the join token is damaged")
	}
	if err := w.For.check(); err != nil || w.CA == "" || w.Secret == "" {
		return Token{}, fault.New(fault.Invalid, "the join token is not whole")
	}
	w.Token.Secret = storage.NewSecret(w.Secret)
	return w.Token, nil
}
