package certs

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/durable"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/poll"
)

// The files of a process's directory. ca.crt may hold several CAs: an old one and its successor, while they change.
const (
	caFile   = "ca.crt"
	certFile = "tls.crt"
	keyFile  = "tls.key"
)

// Write puts a pair and the CAs that are trusted into a directory, as Store reads them. A reader meets either the old
// pair or the new one: the key goes first, and a pair that does not fit is not taken.
func Write(dir string, ca []byte, p Pair) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make directory of certificates: %w", err)
	}
	for _, f := range []struct {
		name string
		data []byte
	}{{caFile, ca}, {keyFile, p.Key}, {certFile, p.Cert}} {
		if err := WriteSecret(filepath.Join(dir, f.name), f.data); err != nil {
			return err
		}
	}
	return nil
}

// Request makes the request for a certificate, DER, by the private key in a directory. It makes the key where there is none: who asks again
// after a crash comes with the same one.
func Request(dir string) (key, request []byte, err error) {
	path := filepath.Join(dir, keyFile)
	var private *ecdsa.PrivateKey
	switch key, err = os.ReadFile(path); {
	case err == nil:
		private, err = decodeKey(key)
	case errors.Is(err, fs.ErrNotExist):
		private, key, err = storeKey(path)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("private key %s: %w", path, err)
	}
	request, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, private)
	if err != nil {
		return nil, nil, fmt.Errorf("make request for a certificate: %w", err)
	}
	return key, request, nil
}

func storeKey(path string) (*ecdsa.PrivateKey, []byte, error) {
	private, err := newKey()
	if err != nil {
		return nil, nil, err
	}
	key, err := encodeKey(private)
	if err != nil {
		return nil, nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, nil, err //nolint:wrapcheck // the caller says what for
	}
	return private, key, WriteSecret(path, key)
}

// KeyHash is the SHA-256 of the public key that a request is for, in hexadecimal digits.
func KeyHash(request []byte) (string, error) {
	r, err := x509.ParseCertificateRequest(request)
	if err != nil {
		return "", fault.New(fault.Invalid, "read request for a certificate: %w", err)
	}
	sum := sha256.Sum256(r.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:]), nil
}

// The files of a CA's directory.
const (
	caCertFile = "ca.crt"
	caKeyFile  = "ca.key"
)

// WriteCA puts a CA into a directory of its own.
func WriteCA(dir string, ca Pair) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make directory of the CA: %w", err)
	}
	return errors.Join(WriteSecret(filepath.Join(dir, caKeyFile), ca.Key), WriteSecret(filepath.Join(dir, caCertFile), ca.Cert))
}

// ReadCA reads what WriteCA wrote.
func ReadCA(dir string) (Pair, error) {
	cert, err := os.ReadFile(filepath.Join(dir, caCertFile))
	if err != nil {
		return Pair{}, fmt.Errorf("read CA: %w", err)
	}
	key, err := os.ReadFile(filepath.Join(dir, caKeyFile))
	if err != nil {
		return Pair{}, fmt.Errorf("read CA: %w", err)
	}
	return Pair{Cert: cert, Key: key}, nil
}

// WriteSecret writes a file that its owner alone may read, mode 0600, also where there was another.
func WriteSecret(path string, data []byte) error {
	return durable.WriteFile(path, data, 0o600)
}

// Trust adds a CA to those that a directory trusts, whichever they are; it returns all of them. A renewed certificate must not
// make a process forget a CA that others still have.
func Trust(dir string, ca []byte) ([]byte, error) {
	known, err := os.ReadFile(filepath.Join(dir, caFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read CAs: %w", err)
	}
	if bytes.Contains(known, bytes.TrimSpace(ca)) {
		return known, nil
	}
	return append(known, ca...), nil
}

// Store holds the certificate of this process, and follows its directory: a new certificate or CA is used by the next
// handshake, without a restart.
type Store struct {
	dir string

	mu    sync.RWMutex
	cert  tls.Certificate
	roots *x509.CertPool
	cas   []byte
	id    Identity
}

// Open reads the directory. fault.Invalid: the files do not fit each other.
func Open(dir string) (*Store, error) {
	s := &Store{dir: dir}
	return s, s.Reload()
}

// Identity is who this process is.
func (s *Store) Identity() Identity {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.id
}

// CAs are those that are trusted, PEM.
func (s *Store) CAs() []byte {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return bytes.Clone(s.cas)
}

// Expires is when the certificate in use ends.
func (s *Store) Expires() time.Time {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.cert.Leaf.NotAfter
}

// Reload reads the directory anew. On an error the old certificate stays in use.
func (s *Store) Reload() error {
	var files [3][]byte
	for i, name := range []string{caFile, certFile, keyFile} {
		data, err := os.ReadFile(filepath.Join(s.dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			return fault.New(fault.NotFound, "read certificates: %w", err)
		}
		if err != nil {
			return fmt.Errorf("read certificates: %w", err)
		}
		files[i] = data
	}
	cert, err := tls.X509KeyPair(files[1], files[2])
	if err != nil {
		return fault.New(fault.Invalid, "certificate in %s: %w", s.dir, err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(files[0]) {
		return fault.New(fault.Invalid, "%s in %s holds no certificate", caFile, s.dir)
	}
	id, err := IdentityOf(cert.Leaf)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cert, s.roots, s.cas, s.id = cert, roots, files[0], id
	return nil
}

// Follow reads the directory anew when a file of it has changed, until ctx ends. failed hears why one was not taken.
func (s *Store) Follow(ctx context.Context, every time.Duration, failed func(error)) {
	var seen []byte
	_ = poll.Until(ctx, every, func() (bool, error) { // ends with ctx alone
		var now []byte
		for _, name := range []string{caFile, certFile, keyFile} {
			data, _ := os.ReadFile(filepath.Join(s.dir, name))
			now = append(now, data...)
		}
		if !bytes.Equal(now, seen) {
			seen = now
			if err := s.Reload(); err != nil {
				failed(err)
			}
		}
		return false, nil
	})
}

// Server is the configuration of a listener for protocols, and who may speak each.
func (s *Store) Server(allowed map[Protocol][]Role) *tls.Config {
	protocols := make([]string, 0, len(allowed))
	for p := range allowed {
		protocols = append(protocols, string(p))
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: protocols,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			s.mu.RLock()
			defer s.mu.RUnlock()
			if _, open := allowed[Join]; open && slices.Equal(hello.SupportedProtos, []string{string(Join)}) {
				return &tls.Config{
					MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{s.cert}, SessionTicketsDisabled: true, NextProtos: []string{string(Join)},
				}, nil
			}
			return &tls.Config{
				MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{s.cert}, ClientCAs: s.roots,
				ClientAuth: tls.RequireAndVerifyClientCert, VerifyConnection: only(allowed),
				SessionTicketsDisabled: true, // every connection is checked by what is trusted now
				NextProtos:             protocols,
			}, nil
		},
	}
}

// Client of a token is the configuration for a connection to a coordinator of its CA, by who has no certificate yet.
func (t Token) Client() (*tls.Config, error) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(t.CA)) {
		return nil, fault.New(fault.Invalid, "the join token holds no CA")
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{string(Join)},
		InsecureSkipVerify: true, //nolint:gosec // only the check of host names: VerifyConnection does the rest
		VerifyConnection:   func(c tls.ConnectionState) error { return verify(c, roots, Coordinator, "") },
	}, nil
}

// verify checks that a server has a role, by a certificate of these CAs.
func verify(c tls.ConnectionState, roots *x509.CertPool, role Role, name string) error {
	if _, err := c.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err != nil {
		return fault.New(fault.Denied, "the server's certificate: %w", err)
	}
	id, err := IdentityOf(c.PeerCertificates[0])
	if err != nil {
		return err
	}
	if id.Role != role || name != "" && id.Name != name {
		return fault.New(fault.Denied, "the server is %s, not %s", id, Identity{role, name})
	}
	return nil
}

// Client is the configuration for a connection to a process of that role; name "" for any of them. Addresses do not
// count: members move, their names stay.
func (s *Store) Client(p Protocol, role Role, name string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{string(p)},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			s.mu.RLock()
			defer s.mu.RUnlock()
			cert := s.cert
			return &cert, nil
		},
		InsecureSkipVerify: true, //nolint:gosec // only the check of host names: VerifyConnection does the rest
		VerifyConnection: func(c tls.ConnectionState) error {
			s.mu.RLock()
			roots := s.roots
			s.mu.RUnlock()
			return verify(c, roots, role, name)
		},
	}
}

func only(allowed map[Protocol][]Role) func(tls.ConnectionState) error {
	return func(c tls.ConnectionState) error {
		id, err := IdentityOf(c.PeerCertificates[0])
		if err != nil {
			return err
		}
		if !slices.Contains(allowed[Protocol(c.NegotiatedProtocol)], id.Role) {
			return fault.New(fault.Denied, "%s may not speak %q here", id, c.NegotiatedProtocol)
		}
		return nil
	}
}
