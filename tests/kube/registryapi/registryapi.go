// Package registryapi pushes and pulls images by the registry's HTTP API (OCI distribution
// specification 1.1), just enough to show that a registry works. Standard library only.
package registryapi

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

const (
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	configType   = "application/vnd.oci.image.config.v1+json"
	layerType    = "application/vnd.oci.image.layer.v1.tar"
	maxAnswer    = 1 << 30
)

// Registry is one address of a registry.
type Registry struct {
	Client *http.Client
	Base   string // http://host:port
}

type descriptor struct {
	MediaType string `json:"mediaType"`
	Digest    string `json:"digest"`
	Size      int    `json:"size"`
}

type manifest struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Config        descriptor   `json:"config"`
	Layers        []descriptor `json:"layers"`
}

// Push uploads an image with the given layers and returns its digest.
func (r Registry) Push(ctx context.Context, repository, tag string, layers ...[]byte) (string, error) {
	m := manifest{SchemaVersion: 2, MediaType: manifestType}
	config := []byte(`{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[]}}`)
	m.Config = describe(configType, config)
	if err := r.pushBlob(ctx, repository, config); err != nil {
		return "", err
	}
	for _, layer := range layers {
		m.Layers = append(m.Layers, describe(layerType, layer))
		if err := r.pushBlob(ctx, repository, layer); err != nil {
			return "", err
		}
	}
	encoded, err := json.Marshal(m)
	if err != nil {
		return "", fmt.Errorf("encode manifest: %w", err)
	}
	_, _, err = r.do(ctx, http.MethodPut, r.Base+"/v2/"+repository+"/manifests/"+tag, manifestType, encoded, http.StatusCreated)
	if err != nil {
		return "", fmt.Errorf("push manifest of %s:%s: %w", repository, tag, err)
	}
	return describe(manifestType, encoded).Digest, nil
}

func (r Registry) pushBlob(ctx context.Context, repository string, blob []byte) error {
	header, _, err := r.do(ctx, http.MethodPost, r.Base+"/v2/"+repository+"/blobs/uploads/", "", nil, http.StatusAccepted)
	if err != nil {
		return fmt.Errorf("begin upload to %s: %w", repository, err)
	}
	location, err := url.Parse(header.Get("Location"))
	if err != nil {
		return fmt.Errorf("upload location: %w", err)
	}
	base, err := url.Parse(r.Base)
	if err != nil {
		return fmt.Errorf("registry address: %w", err)
	}
	location = base.ResolveReference(location)
	query := location.Query()
	query.Set("digest", describe("", blob).Digest)
	location.RawQuery = query.Encode()
	if _, _, err := r.do(ctx, http.MethodPut, location.String(), "application/octet-stream", blob, http.StatusCreated); err != nil {
		return fmt.Errorf("upload blob to %s: %w", repository, err)
	}
	return nil
}

// Pull downloads the image and returns its digest and layers, each checked against its digest.
func (r Registry) Pull(ctx context.Context, repository, tag string) (string, [][]byte, error) {
	_, encoded, err := r.do(ctx, http.MethodGet, r.Base+"/v2/"+repository+"/manifests/"+tag, "", nil, http.StatusOK)
	if err != nil {
		return "", nil, fmt.Errorf("pull manifest of %s:%s: %w", repository, tag, err)
	}
	var m manifest
	if err := json.Unmarshal(encoded, &m); err != nil {
		return "", nil, fmt.Errorf("decode manifest of %s:%s: %w", repository, tag, err)
	}
	var layers [][]byte
	for _, want := range append([]descriptor{m.Config}, m.Layers...) {
		_, blob, err := r.do(ctx, http.MethodGet, r.Base+"/v2/"+repository+"/blobs/"+want.Digest, "", nil, http.StatusOK)
		if err != nil {
			return "", nil, fmt.Errorf("pull blob of %s:%s: %w", repository, tag, err)
		}
		if got := describe("", blob).Digest; got != want.Digest {
			return "", nil, fmt.Errorf("pull blob of %s:%s: content has digest %s, want %s", repository, tag, got, want.Digest)
		}
		layers = append(layers, blob)
	}
	return describe(manifestType, encoded).Digest, layers[1:], nil
}

func (r Registry) do(ctx context.Context, method, address, contentType string, body []byte, want int) (http.Header, []byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	request.Header.Set("Accept", manifestType)
	if contentType != "" {
		request.Header.Set("Content-Type", contentType)
	}
	response, err := r.Client.Do(request)
	if err != nil {
		return nil, nil, err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return nil, nil, fmt.Errorf("read answer: %w", err)
	}
	if response.StatusCode != want {
		return nil, nil, fmt.Errorf("%s %s: status %s: %s", method, request.URL.Path, response.Status, strings.TrimSpace(string(data)))
	}
	return response.Header, data, nil
}

func describe(mediaType string, content []byte) descriptor {
	sum := sha256.Sum256(content)
	return descriptor{MediaType: mediaType, Digest: "sha256:" + hex.EncodeToString(sum[:]), Size: len(content)}
}
