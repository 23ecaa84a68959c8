// Package archive writes container images as docker-archive tar files, the form that
// `ctr images import`, `docker load` and `podman load` read. It needs no container engine.
//
// The same input gives the same bytes: entries are sorted, times are the epoch. It imports the
// standard library only.
//
// Format: the "combined image JSON + layer tars" of the image specification v1.2
// (github.com/moby/moby: image/spec/v1.2.md).
package archive

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"
)

// Image is what goes into one archive.
type Image struct {
	Name       string // reference with its tag, as manifests name it
	Layers     []Layer
	Entrypoint []string
	Cmd        []string
	Env        []string // NAME=value; PATH is set when it is not given
	Labels     map[string]string
}

type imageConfig struct {
	Architecture string          `json:"architecture"`
	OS           string          `json:"os"`
	Created      time.Time       `json:"created"`
	Config       containerConfig `json:"config"`
	RootFS       rootFS          `json:"rootfs"`
	History      []history       `json:"history"`
}

type containerConfig struct {
	Env        []string          `json:"Env"`
	Entrypoint []string          `json:"Entrypoint,omitempty"`
	Cmd        []string          `json:"Cmd,omitempty"`
	Labels     map[string]string `json:"Labels,omitempty"`
}

type rootFS struct {
	Type    string   `json:"type"`
	DiffIDs []string `json:"diff_ids"`
}

type history struct {
	Created   time.Time `json:"created"`
	CreatedBy string    `json:"created_by"`
}

type manifestEntry struct {
	Config   string   `json:"Config"`
	RepoTags []string `json:"RepoTags"`
	Layers   []string `json:"Layers"`
}

// WriteFile writes the image to path, replacing it only when the whole archive is written.
func WriteFile(path string, image Image) (err error) {
	out, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return fmt.Errorf("create image archive %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			os.Remove(out.Name())
		}
	}()
	if err := Write(out, image); err != nil {
		out.Close()
		return err
	}
	if err := out.Close(); err != nil {
		return fmt.Errorf("write image archive %s: %w", path, err)
	}
	if err := os.Rename(out.Name(), path); err != nil {
		return fmt.Errorf("put image archive in place: %w", err)
	}
	return nil
}

// Write writes the image's archive.
func Write(w io.Writer, image Image) error {
	config, err := json.Marshal(configOf(image))
	if err != nil {
		return fmt.Errorf("encode config of image %s: %w", image.Name, err)
	}
	sum := sha256.Sum256(config)
	configName := hex.EncodeToString(sum[:]) + ".json"
	manifest := manifestEntry{Config: configName, RepoTags: []string{image.Name}}
	for _, layer := range image.Layers {
		manifest.Layers = append(manifest.Layers, layer.Digest+".tar")
	}
	encoded, err := json.Marshal([]manifestEntry{manifest})
	if err != nil {
		return fmt.Errorf("encode manifest of image %s: %w", image.Name, err)
	}
	tw := tar.NewWriter(w)
	if err := writeBytes(tw, "manifest.json", encoded); err != nil {
		return err
	}
	if err := writeBytes(tw, configName, config); err != nil {
		return err
	}
	for i, layer := range image.Layers {
		if err := writeLayer(tw, manifest.Layers[i], layer); err != nil {
			return err
		}
	}
	if err := tw.Close(); err != nil {
		return fmt.Errorf("write archive of image %s: %w", image.Name, err)
	}
	return nil
}

func configOf(image Image) imageConfig {
	epoch := time.Unix(0, 0).UTC()
	config := imageConfig{
		Architecture: runtime.GOARCH, OS: "linux", Created: epoch,
		Config: containerConfig{
			Env:        append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, image.Env...),
			Entrypoint: image.Entrypoint, Cmd: image.Cmd, Labels: image.Labels,
		},
		RootFS: rootFS{Type: "layers"},
	}
	for _, layer := range image.Layers {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, "sha256:"+layer.Digest)
		config.History = append(config.History, history{Created: epoch, CreatedBy: layer.CreatedBy})
	}
	return config
}

func writeBytes(tw *tar.Writer, name string, data []byte) error {
	header := &tar.Header{Name: name, Mode: 0o644, Size: int64(len(data)), Typeflag: tar.TypeReg, ModTime: time.Unix(0, 0)}
	if err := tw.WriteHeader(header); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if _, err := tw.Write(data); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

func writeLayer(tw *tar.Writer, name string, layer Layer) error {
	in, err := os.Open(layer.Path)
	if err != nil {
		return fmt.Errorf("open layer: %w", err)
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return fmt.Errorf("size of layer: %w", err)
	}
	header := &tar.Header{Name: name, Mode: 0o644, Size: info.Size(), Typeflag: tar.TypeReg, ModTime: time.Unix(0, 0)}
	if err := tw.WriteHeader(header); err != nil {
		return fmt.Errorf("write layer %s: %w", name, err)
	}
	if _, err := io.Copy(tw, in); err != nil {
		return fmt.Errorf("write layer %s: %w", name, err)
	}
	return nil
}
