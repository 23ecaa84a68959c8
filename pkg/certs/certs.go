// Package certs makes and checks the certificates by which Holdfast's processes know each other: one CA a cluster, one
// certificate a process, whose only name is its role and its own name in a URI (holdfast://agent/n1).
//
// Invariant: a private key is written with mode 0600 and never leaves the package but inside a tls.Certificate.
//
// Keys are ECDSA P-256. It must not import what uses it.
package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/url"
	"strings"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// Role is what a process may do.
type Role string

// The roles.
const (
	Coordinator Role = "coordinator"
	Agent       Role = "agent"
	Operator    Role = "operator" // the Kubernetes operator
	Admin       Role = "admin"    // a person
)

// Identity is who a certificate is for.
type Identity struct {
	Role Role
	Name string
}

// String is the identity as logs and histories have it: "agent/n1".
func (i Identity) String() string { return string(i.Role) + "/" + i.Name }

func (i Identity) url() *url.URL {
	return &url.URL{Scheme: "holdfast", Host: string(i.Role), Path: "/" + i.Name}
}

// check refuses identities that do not come out of a certificate as they went in.
func (i Identity) check() error {
	switch i.Role {
	case Coordinator, Agent, Operator, Admin:
	default:
		return fault.New(fault.Invalid, "there is no role %q", i.Role)
	}
	if i.Role == Agent && i.Name == string(Coordinator) { // it would be taken for the coordinators themselves
		return fault.New(fault.Invalid, "no node can have the name %q", i.Name)
	}
	if i.Name == "" || len(i.Name) > 253 || strings.ContainsAny(i.Name, "/?#%\x00\n") {
		return fault.New(fault.Invalid, "a certificate cannot be for the name %q", i.Name)
	}
	return nil
}

// IdentityOf reads who a certificate is for. fault.Denied: it is not one of these.
func IdentityOf(c *x509.Certificate) (Identity, error) {
	if len(c.URIs) != 1 || c.URIs[0].Scheme != "holdfast" {
		return Identity{}, fault.New(fault.Denied, "the certificate of %q names no identity of this cluster", c.Subject.CommonName)
	}
	i := Identity{Role(c.URIs[0].Host), strings.TrimPrefix(c.URIs[0].Path, "/")}
	if err := i.check(); err != nil {
		return Identity{}, fault.As(fault.Denied, err)
	}
	return i, nil
}

// The times that certificates live, and the tolerance for clocks that go wrong.
const (
	caLife  = 10 * 365 * 24 * time.Hour
	Life    = 90 * 24 * time.Hour // of a process's certificate
	backlog = time.Hour
	// Soon is how long before its end a certificate is to be renewed: it is a health check's matter from then on.
	Soon = 14 * 24 * time.Hour
)

// Pair is a certificate with its private key, both PEM.
type Pair struct {
	Cert []byte
	Key  []byte
}

// NewCA makes a cluster's CA.
func NewCA(cluster string, now time.Time) (Pair, error) {
	serial, err := newSerial()
	if err != nil {
		return Pair{}, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "Holdfast CA of " + cluster}, NotBefore: now.Add(-backlog), NotAfter: now.Add(caLife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	key, err := newKey()
	if err != nil {
		return Pair{}, err
	}
	return pair(template, template, key, key)
}

// Issue makes a certificate for one identity, for TLS as client and server alike.
func (ca Pair) Issue(id Identity, now time.Time) (Pair, error) {
	if err := id.check(); err != nil {
		return Pair{}, err
	}
	parent, signer, err := ca.parse()
	if err != nil {
		return Pair{}, err
	}
	template, err := templateOf(id, parent, now)
	if err != nil {
		return Pair{}, err
	}
	key, err := newKey()
	if err != nil {
		return Pair{}, err
	}
	return pair(template, parent, key, signer)
}

// SignRequest makes a certificate for an identity and the public key of a request (PKCS #10, DER). Nothing else of the request counts.
// fault.Denied: who asks has not the private key.
func (ca Pair) SignRequest(id Identity, request []byte, now time.Time) ([]byte, error) {
	if err := id.check(); err != nil {
		return nil, err
	}
	parent, signer, err := ca.parse()
	if err != nil {
		return nil, err
	}
	r, err := x509.ParseCertificateRequest(request)
	if err != nil {
		return nil, fault.New(fault.Invalid, "read request for a certificate: %w", err)
	}
	if err := r.CheckSignature(); err != nil {
		return nil, fault.New(fault.Denied, "request for a certificate: %w", err)
	}
	template, err := templateOf(id, parent, now)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, r.PublicKey, signer)
	if err != nil {
		return nil, fmt.Errorf("sign certificate of %s: %w", id, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

// templateOf is the certificate of an identity, for TLS as client and server alike.
func templateOf(id Identity, parent *x509.Certificate, now time.Time) (*x509.Certificate, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	return &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: id.String()}, URIs: []*url.URL{id.url()},
		NotBefore: now.Add(-backlog), NotAfter: earlier(now.Add(Life), parent.NotAfter),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}, nil
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func newKey() (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	return key, nil
}

func newSerial() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("make a serial number: %w", err)
	}
	return n, nil
}

// pair signs template, which is key's, by parent, which is signer's.
func pair(template, parent *x509.Certificate, key, signer *ecdsa.PrivateKey) (Pair, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		return Pair{}, fmt.Errorf("sign certificate of %s: %w", template.Subject.CommonName, err)
	}
	secret, err := encodeKey(key)
	return Pair{Cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), Key: secret}, err
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), nil
}

func decodeKey(text []byte) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fault.New(fault.Invalid, "the key is no PEM")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fault.New(fault.Invalid, "read key: %w", err)
	}
	private, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fault.New(fault.Invalid, "the key is no ECDSA key")
	}
	return private, nil
}

func (ca Pair) parse() (*x509.Certificate, *ecdsa.PrivateKey, error) {
	block, _ := pem.Decode(ca.Cert)
	if block == nil {
		return nil, nil, fault.New(fault.Invalid, "the CA's certificate is no PEM")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, nil, fault.New(fault.Invalid, "the CA's certificate: %w", err)
	}
	signer, err := decodeKey(ca.Key)
	if err != nil {
		return nil, nil, fmt.Errorf("the CA: %w", err)
	}
	return cert, signer, nil
}
