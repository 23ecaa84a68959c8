package cluster

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// identity is one certificate of the cluster. Kubernetes reads the user from the common name
// and the groups from the organizations.
type identity struct {
	file, user, group string
	names             []string
	addresses         []string
}

// identities of the control plane and the nodes.
var identities = []identity{
	{
		file: "apiserver", user: "kube-apiserver", addresses: []string{"127.0.0.1", addressA, serviceIP},
		names: []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"},
	},
	{file: "kubelet-client", user: "kube-apiserver-kubelet-client", group: "system:masters"},
	{file: "admin", user: "admin", group: "system:masters"},
	{file: "controller-manager", user: "system:kube-controller-manager"},
	{file: "scheduler", user: "system:kube-scheduler"},
	{file: "proxy", user: "system:kube-proxy"},
	{file: NodeA, user: "system:node:" + NodeA, group: "system:nodes", addresses: []string{addressA}, names: []string{NodeA}},
	{file: NodeB, user: "system:node:" + NodeB, group: "system:nodes", addresses: []string{addressB}, names: []string{NodeB}},
}

// writePKI makes a certificate authority, a certificate and a kubeconfig for each identity, and
// the key that signs service accounts. All live as long as the state directory.
func (c *Cluster) writePKI() error {
	if err := os.MkdirAll(c.pkiDir(), 0o700); err != nil {
		return fmt.Errorf("create certificate directory: %w", err)
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make key of the authority: %w", err)
	}
	ca := certificate(identity{user: "holdfast-test-authority"}, 1)
	ca.IsCA, ca.BasicConstraintsValid, ca.KeyUsage = true, true, x509.KeyUsageCertSign|x509.KeyUsageDigitalSignature
	if err := c.writeCertificate("ca", ca, ca, caKey, caKey); err != nil {
		return err
	}
	for i, id := range identities {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return fmt.Errorf("make key of %s: %w", id.file, err)
		}
		if err := c.writeCertificate(id.file, certificate(id, int64(i)+2), ca, key, caKey); err != nil {
			return err
		}
		if err := c.writeKubeconfig(id.file); err != nil {
			return err
		}
	}
	signer, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return fmt.Errorf("make service account key: %w", err)
	}
	if err := writePEM(c.pki("sa.key"), "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(signer), 0o600); err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(&signer.PublicKey)
	if err != nil {
		return fmt.Errorf("encode service account key: %w", err)
	}
	return writePEM(c.pki("sa.pub"), "PUBLIC KEY", public, 0o644)
}

func certificate(id identity, serial int64) *x509.Certificate {
	now := time.Now()
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(serial),
		Subject:      pkix.Name{CommonName: id.user},
		NotBefore:    now.Add(-time.Hour), NotAfter: now.AddDate(1, 0, 0),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		DNSNames:    id.names,
	}
	if id.group != "" {
		cert.Subject.Organization = []string{id.group}
	}
	for _, address := range id.addresses {
		cert.IPAddresses = append(cert.IPAddresses, net.ParseIP(address))
	}
	return cert
}

func (c *Cluster) writeCertificate(name string, cert, parent *x509.Certificate, key, parentKey *ecdsa.PrivateKey) error {
	der, err := x509.CreateCertificate(rand.Reader, cert, parent, &key.PublicKey, parentKey)
	if err != nil {
		return fmt.Errorf("sign certificate of %s: %w", name, err)
	}
	if err := writePEM(c.pki(name+".crt"), "CERTIFICATE", der, 0o644); err != nil {
		return err
	}
	encoded, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return fmt.Errorf("encode key of %s: %w", name, err)
	}
	return writePEM(c.pki(name+".key"), "EC PRIVATE KEY", encoded, 0o600)
}

func (c *Cluster) writeKubeconfig(name string) error {
	text := fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: holdfast-test
contexts: [{name: holdfast-test, context: {cluster: holdfast-test, user: %[2]s}}]
clusters: [{name: holdfast-test, cluster: {server: "https://%[3]s:%[4]d", certificate-authority: %[1]s/ca.crt}}]
users: [{name: %[2]s, user: {client-certificate: %[1]s/%[2]s.crt, client-key: %[1]s/%[2]s.key}}]
`, c.pkiDir(), name, addressA, apiPort)
	if err := os.WriteFile(c.pki(name+".kubeconfig"), []byte(text), 0o600); err != nil {
		return fmt.Errorf("write kubeconfig of %s: %w", name, err)
	}
	return nil
}

func (c *Cluster) pki(file string) string { return filepath.Join(c.pkiDir(), file) }

func writePEM(path, kind string, der []byte, mode os.FileMode) error {
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), mode); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
