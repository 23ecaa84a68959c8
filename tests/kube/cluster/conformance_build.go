package cluster

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/holdfast-storage/holdfast/images/archive"
	"github.com/holdfast-storage/holdfast/pkg/command"
)

// The images that Kubernetes' storage specs name (k8s.io/kubernetes test/utils/image/manifest.go,
// release 1.36), made here of what is at hand: the specs use shells and small tools of theirs.
const (
	specBusyboxImage = "registry.k8s.io/e2e-test-images/busybox:1.37.0-1"
	specAgnhostImage = "registry.k8s.io/e2e-test-images/agnhost:2.63.0"
	specNginxImage   = "registry.k8s.io/e2e-test-images/nginx:1.15-4"
	specGlibcImage   = "registry.k8s.io/e2e-test-images/glibc-dns-testing:2.0.0"
)

// conformanceProgram returns the path of a program that Conformance needs.
func (c *Cluster) conformanceProgram(name string) string {
	return filepath.Join(c.conformanceDir(), name)
}

// conformanceDir is named by what the programs are built from, as programDir is.
func (c *Cluster) conformanceDir() string {
	data, err := os.ReadFile(filepath.Join(c.Repo, "tests/kube/build/go.sum"))
	if err != nil {
		data = []byte(err.Error())
	}
	digest := sha256.Sum256(data)
	return filepath.Join(c.Cache, "conformance-"+kubernetesVersion+"-"+hex.EncodeToString(digest[:6]))
}

// BuildConformance makes Kubernetes' end-to-end tests and what they need, once (five minutes on
// two cores when the Kubernetes programs are built already).
func (c *Cluster) BuildConformance(ctx context.Context) error {
	stamp := c.conformanceProgram("complete")
	if _, err := os.Stat(stamp); err == nil {
		return nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look at built conformance programs: %w", err)
	}
	if err := os.MkdirAll(c.conformanceDir(), 0o755); err != nil {
		return fmt.Errorf("create directory of conformance programs: %w", err)
	}
	c.Log.Info("building Kubernetes' end-to-end tests; the first time takes several minutes", "dir", c.conformanceDir())
	flags := kubernetesFlags()
	if err := c.goBuild(ctx, "tests/kube/build", "-ldflags", flags, "-o", c.conformanceDir()+"/",
		"github.com/onsi/ginkgo/v2/ginkgo", "k8s.io/kubernetes/test/images/agnhost"); err != nil {
		return err
	}
	if _, err := c.Runner.Run(ctx, command.Cmd{
		Name: "go", Args: []string{"test", "-c", "-vet=off", "-trimpath", "-ldflags", flags, "-o", c.conformanceProgram("e2e.test"), "k8s.io/kubernetes/test/e2e"},
		Dir: filepath.Join(c.Repo, "tests/kube/build"), Env: []string{"CGO_ENABLED=0", "GOFLAGS=-buildvcs=false"},
	}); err != nil {
		return fmt.Errorf("build Kubernetes' end-to-end tests: %w", err)
	}
	if err := c.makeConformanceImages(ctx); err != nil {
		return err
	}
	if err := os.WriteFile(stamp, nil, 0o644); err != nil {
		return fmt.Errorf("mark conformance programs as built: %w", err)
	}
	return nil
}

// conformanceImages are the archives that makeConformanceImages writes.
func (c *Cluster) conformanceImages() []string {
	return []string{c.conformanceProgram("busybox.tar"), c.conformanceProgram("glibc.tar"), c.conformanceProgram("nginx.tar"), c.conformanceProgram("agnhost.tar")}
}

func (c *Cluster) makeConformanceImages(ctx context.Context) error {
	base, links, err := c.conformanceBase(ctx)
	if err != nil {
		return err
	}
	agnhost := archive.File{Target: "/agnhost", Source: c.conformanceProgram("agnhost"), Mode: 0o755}
	for _, image := range []struct {
		file  string
		spec  archive.Image
		files []archive.File
	}{
		{"busybox", archive.Image{Name: specBusyboxImage, Cmd: []string{"sh"}}, base},
		{"glibc", archive.Image{Name: specGlibcImage, Cmd: []string{"sh"}}, base},
		// Specs that name nginx bring a command of their own, for its shell.
		{"nginx", archive.Image{Name: specNginxImage, Cmd: []string{"sh"}}, base},
		{"agnhost", archive.Image{Name: specAgnhostImage, Entrypoint: []string{"/agnhost"}, Cmd: []string{"pause"}}, append(base[:len(base):len(base)], agnhost)},
	} {
		if err := c.makeConformanceImage(image.file, image.spec, image.files, links); err != nil {
			return err
		}
	}
	return nil
}

// conformanceBase is what all images of the specs have: busybox, and beside it GNU's dd, since the
// specs use flags of it that Debian's busybox does not know, and a shell that does not run
// busybox's dd of itself.
func (c *Cluster) conformanceBase(ctx context.Context) ([]archive.File, []archive.Link, error) {
	files := []archive.File{
		{Target: "/bin/busybox", Source: "/bin/busybox", Mode: 0o755},
		{Target: "/bin/sh", Source: "/bin/bash", Mode: 0o755},
		{Target: "/bin/dd", Source: "/bin/dd", Mode: 0o755},
		// The specs know these users by name.
		{Target: "/etc/passwd", Data: []byte("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"), Mode: 0o644},
		{Target: "/etc/group", Data: []byte("root:x:0:\nnobody:x:65534:\n"), Mode: 0o644},
	}
	libraries, err := c.Runner.Run(ctx, command.Cmd{Name: "ldd", Args: []string{"/bin/bash", "/bin/dd"}})
	if err != nil {
		return nil, nil, fmt.Errorf("find libraries: %w", err)
	}
	for field := range strings.FieldsSeq(string(libraries.Stdout)) {
		if filepath.IsAbs(field) && !strings.HasSuffix(field, ":") {
			files = append(files, archive.File{Target: field, Source: field, Mode: 0o755})
		}
	}
	applets, err := c.Runner.Run(ctx, command.Cmd{Name: "/bin/busybox", Args: []string{"--list"}})
	if err != nil {
		return nil, nil, fmt.Errorf("list the applets of busybox: %w", err)
	}
	links := []archive.Link{{Target: "/tmp/.keep", To: "/dev/null"}, {Target: "/root/.keep", To: "/dev/null"}}
	for applet := range strings.FieldsSeq(string(applets.Stdout)) {
		if !slices.Contains([]string{"busybox", "sh", "dd"}, applet) {
			links = append(links, archive.Link{Target: "/bin/" + applet, To: "busybox"})
		}
	}
	return files, links, nil
}

func (c *Cluster) makeConformanceImage(file string, image archive.Image, files []archive.File, links []archive.Link) error {
	layerFile := c.conformanceProgram(file + ".layer")
	layer, err := archive.LayerFromFiles(layerFile, files, links)
	if err != nil {
		return fmt.Errorf("make image %s: %w", image.Name, err)
	}
	image.Layers = []archive.Layer{layer}
	if err := archive.WriteFile(c.conformanceProgram(file+".tar"), image); err != nil {
		return err
	}
	if err := os.Remove(layerFile); err != nil {
		return fmt.Errorf("remove layer: %w", err)
	}
	return nil
}

// importConformanceImages gives both nodes the images of the specs.
func (c *Cluster) importConformanceImages(ctx context.Context) error {
	for _, name := range []string{NodeA, NodeB} {
		for _, image := range c.conformanceImages() {
			if err := c.importImage(ctx, name, image); err != nil {
				return err
			}
		}
	}
	return nil
}
