package cluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/holdfast-storage/holdfast/images/archive"
	"github.com/holdfast-storage/holdfast/pkg/command"
)

const (
	pauseImage = "registry.k8s.io/pause:3.10.2"
	// BusyboxImage is the tests' own: busybox and a shell.
	BusyboxImage = "docker.io/library/busybox:1.36"
	// HoldfastImage is the name in deploy/.
	HoldfastImage = "docker.io/library/holdfast:dev"
)

// makeImages writes the archives that the nodes import: Holdfast's own, the sidecars under the
// names that the manifests use, the registry, pause and busybox.
func (c *Cluster) makeImages(ctx context.Context) error {
	busybox := []archive.Link{{Target: "/tmp/.keep", To: "/dev/null"}}
	for _, applet := range []string{
		"sh", "cat", "cp", "date", "dd", "df", "echo", "grep", "head", "ls", "md5sum", "mkdir", "mount", "mv", "od", "rm", "sha256sum",
		"sleep", "stat", "sync", "tail", "test", "touch", "true", "usleep", "wc", "wget",
	} {
		busybox = append(busybox, archive.Link{Target: "/bin/" + applet, To: "busybox"})
	}
	small := []struct {
		name, program, entry string
		links                []archive.Link
	}{
		{name: pauseImage, program: c.program("pause"), entry: "/pause"},
		{name: BusyboxImage, program: "/bin/busybox", entry: "/bin/busybox", links: busybox},
		{name: "registry.k8s.io/sig-storage/csi-provisioner:" + provisionerVersion, program: c.program("csi-provisioner"), entry: "/csi-provisioner"},
		{name: "registry.k8s.io/sig-storage/csi-attacher:" + attacherVersion, program: c.program("csi-attacher"), entry: "/csi-attacher"},
		{name: "registry.k8s.io/sig-storage/csi-resizer:" + resizerVersion, program: c.program("csi-resizer"), entry: "/csi-resizer"},
		{name: "registry.k8s.io/sig-storage/csi-snapshotter:" + snapshotterVersion, program: c.program("csi-snapshotter"), entry: "/csi-snapshotter"},
		{name: "registry.k8s.io/sig-storage/snapshot-controller:" + snapshotterVersion, program: c.program("snapshot-controller"), entry: "/snapshot-controller"},
		{name: "docker.io/library/registry:" + registryVersion, program: c.program("registry"), entry: "/bin/registry"},
	}
	for _, image := range small {
		layerFile := filepath.Join(c.imageDir(), filepath.Base(image.entry)+".layer")
		layer, err := archive.LayerFromFiles(layerFile, []archive.File{{Target: image.entry, Source: image.program, Mode: 0o755}}, image.links)
		if err != nil {
			return fmt.Errorf("make image %s: %w", image.name, err)
		}
		out := filepath.Join(c.imageDir(), filepath.Base(image.entry)+".tar")
		spec := archive.Image{Name: image.name, Layers: []archive.Layer{layer}, Entrypoint: []string{image.entry}}
		if image.links != nil {
			spec.Entrypoint = nil // so that a pod names its own applet
		}
		if err := archive.WriteFile(out, spec); err != nil {
			return err
		}
		if err := os.Remove(layerFile); err != nil {
			return fmt.Errorf("remove layer: %w", err)
		}
	}
	return c.makeOwnImage(ctx)
}

// makeOwnImage runs the project's own image build.
func (c *Cluster) makeOwnImage(ctx context.Context) error {
	_, err := c.Runner.Run(ctx, command.Cmd{Name: "go", Dir: c.Repo, Env: []string{"CGO_ENABLED=0"}, Args: []string{
		"run", "./images/build", "--name", HoldfastImage, "--bin", c.Bin,
		"--cache", filepath.Join(c.Cache, "image"), "--out", filepath.Join(c.imageDir(), "holdfast.tar"),
	}})
	if err != nil {
		return fmt.Errorf("make the image of Holdfast: %w", err)
	}
	c.Log.Info("images are made", "dir", c.imageDir())
	return nil
}
