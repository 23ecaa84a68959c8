// Package nodelabels reads labels of the Kubernetes Node that a node service runs on: one GET of
// one object, with the pod's service account. It imports no client library and watches nothing: what a
// node says of its topology holds for as long as it is registered.
package nodelabels

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// API is how the API server is reached.
type API struct {
	Host string // host:port
	Dir  string // holds token and ca.crt
}

// InCluster is the API server that Kubernetes tells each pod of.
func InCluster() (API, error) {
	host, port := os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT")
	if host == "" || port == "" {
		return API{}, fault.New(fault.Precondition, "not in a pod (no KUBERNETES_SERVICE_HOST): give the topology by --topology key=value")
	}
	return API{Host: net.JoinHostPort(host, port), Dir: "/var/run/secrets/kubernetes.io/serviceaccount"}, nil
}

// limit bounds the call, and what is read of its answer.
const (
	limit     = 10 * time.Second
	readLimit = 4 << 20
)

// Read returns the labels named by keys: fault.Precondition when the node lacks one, since all nodes
// must tell the same keys, and fault.Denied without the right to get nodes.
func (a API) Read(ctx context.Context, node string, keys []string) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	token, err := os.ReadFile(filepath.Join(a.Dir, "token"))
	if err != nil {
		return nil, fmt.Errorf("read the service account's token (automountServiceAccountToken must be true): %w", err)
	}
	authority, err := os.ReadFile(filepath.Join(a.Dir, "ca.crt"))
	if err != nil {
		return nil, fmt.Errorf("read the API server's certificate authority: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authority) {
		return nil, fault.New(fault.Invalid, "%s holds no certificate", filepath.Join(a.Dir, "ca.crt"))
	}
	address := url.URL{Scheme: "https", Host: a.Host, Path: "/api/v1/nodes/" + node}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("read node %s: %w", node, err)
	}
	request.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, DisableKeepAlives: true}}
	answer, err := client.Do(request)
	if err != nil {
		return nil, fault.As(fault.Unavailable, fmt.Errorf("read node %s: %w", node, err))
	}
	defer answer.Body.Close()
	switch answer.StatusCode {
	case http.StatusOK:
	case http.StatusUnauthorized, http.StatusForbidden:
		return nil, fault.New(fault.Denied, "read node %s: the service account may not get nodes (see deploy/README.md, Topology): %s", node, answer.Status)
	case http.StatusNotFound:
		return nil, fault.New(fault.NotFound, "node %s is not in Kubernetes: --node-id must be its name there", node)
	default:
		return nil, fault.New(fault.Unavailable, "read node %s: the API server says %s", node, answer.Status)
	}
	return pick(io.LimitReader(answer.Body, readLimit), node, keys)
}

func pick(body io.Reader, node string, keys []string) (map[string]string, error) {
	var object struct {
		Metadata struct {
			Labels map[string]string `json:"labels"`
		} `json:"metadata"`
	}
	if err := json.NewDecoder(body).Decode(&object); err != nil {
		return nil, fmt.Errorf("read node %s: %w", node, err)
	}
	labels := map[string]string{}
	for _, key := range keys {
		value, ok := object.Metadata.Labels[key]
		if !ok || value == "" {
			return nil, fault.New(fault.Precondition, "node %s has no label %q: `kubectl label node %s %s=...`, or leave it out of --topology-labels", node, key, node, key)
		}
		labels[key] = value
	}
	return labels, nil
}
