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
	"strings"

	"github.com/holdfast-storage/holdfast/pkg/command"
)

// Versions of what the cluster runs; the modules under tests/kube pin them.
const (
	kubernetesVersion  = "1.36.3"
	provisionerVersion = "v6.3.0"
	attacherVersion    = "v4.12.0"
	resizerVersion     = "v2.2.0"
	snapshotterVersion = "v8.6.0"
	registryVersion    = "3.0.0"
)

// program returns the path of a built program.
func (c *Cluster) program(name string) string { return filepath.Join(c.programDir(), name) }

// programDir is named by what the programs are built from, so that a change builds anew and an
// older tree still finds its own.
func (c *Cluster) programDir() string {
	digest := sha256.New()
	for _, source := range []string{"build/go.sum", "build/tools.go", "registry/go.sum"} {
		data, err := os.ReadFile(filepath.Join(c.Repo, "tests/kube", source))
		if err != nil {
			data = []byte(err.Error())
		}
		digest.Write(data)
	}
	return filepath.Join(c.Cache, "kube-"+kubernetesVersion+"-"+hex.EncodeToString(digest.Sum(nil)[:6]))
}

// build makes the Kubernetes programs once (ten minutes on two cores with a cold build cache) and
// this package's own helper every time.
func (c *Cluster) build(ctx context.Context) error {
	for _, dir := range []string{c.programDir(), c.Dir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("create program directory: %w", err)
		}
	}
	if err := c.linkPrograms(); err != nil {
		return err
	}
	if err := c.goBuild(ctx, "", "-o", c.program("hfkube"), "./tests/kube/hfkube"); err != nil {
		return err
	}
	stamp := c.program("complete")
	if _, err := os.Stat(stamp); err == nil {
		return nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look at built programs: %w", err)
	}
	c.Log.Info("building Kubernetes, etcd, the sidecars and the registry; the first time takes several minutes", "dir", c.programDir())
	if err := c.buildKubernetes(ctx); err != nil {
		return err
	}
	if err := os.WriteFile(stamp, nil, 0o644); err != nil {
		return fmt.Errorf("mark programs as built: %w", err)
	}
	return nil
}

// linkPrograms makes Dir/bin lead to the programs.
func (c *Cluster) linkPrograms() error {
	link := filepath.Join(c.Dir, "bin")
	if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("link to the programs: %w", err)
	}
	if err := os.Symlink(c.programDir(), link); err != nil {
		return fmt.Errorf("link to the programs: %w", err)
	}
	return nil
}

// Build makes the programs without starting anything; Dir/bin leads to them.
func (c *Cluster) Build(ctx context.Context) error { return c.build(ctx) }

// ProgramDir is where the built programs are, csi-sanity among them.
func (c *Cluster) ProgramDir() string { return c.programDir() }

// kubernetesFlags are what the linker puts into programs of Kubernetes: the version that they say they have.
func kubernetesFlags() string {
	const version = "k8s.io/component-base/version"
	major, rest, _ := strings.Cut(kubernetesVersion, ".")
	minor, _, _ := strings.Cut(rest, ".")
	return fmt.Sprintf("-s -w -X %[1]s.gitVersion=v%[2]s -X %[1]s.gitMajor=%[3]s -X %[1]s.gitMinor=%[4]s -X %[1]s.gitTreeState=clean", version, kubernetesVersion, major, minor)
}

func (c *Cluster) buildKubernetes(ctx context.Context) error {
	flags := kubernetesFlags()
	arguments := []string{"-ldflags", flags, "-o", c.programDir() + "/"}
	for _, name := range []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl"} {
		arguments = append(arguments, "k8s.io/kubernetes/cmd/"+name)
	}
	arguments = append(arguments,
		"github.com/kubernetes-csi/external-provisioner/v6/cmd/csi-provisioner",
		"github.com/kubernetes-csi/external-attacher/v4/cmd/csi-attacher",
		"github.com/kubernetes-csi/external-resizer/v2/cmd/csi-resizer",
		"github.com/kubernetes-csi/external-snapshotter/v8/cmd/csi-snapshotter",
		"github.com/kubernetes-csi/external-snapshotter/v8/cmd/snapshot-controller",
		"github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity",
		"./pause")
	if err := c.goBuild(ctx, "tests/kube/build", arguments...); err != nil {
		return err
	}
	if err := c.goBuild(ctx, "tests/kube/build", "-ldflags", flags, "-o", c.program("etcd"), "go.etcd.io/etcd/server/v3"); err != nil {
		return err
	}
	return c.goBuild(ctx, "tests/kube/registry", "-ldflags", "-s -w", "-o", c.program("registry"), "github.com/distribution/distribution/v3/cmd/registry")
}

func (c *Cluster) goBuild(ctx context.Context, dir string, arguments ...string) error {
	_, err := c.Runner.Run(ctx, command.Cmd{
		Name: "go", Args: append([]string{"build", "-trimpath"}, arguments...),
		Dir: filepath.Join(c.Repo, dir), Env: []string{"CGO_ENABLED=0", "GOFLAGS=-buildvcs=false"},
	})
	if err != nil {
		return fmt.Errorf("build the programs of the test cluster: %w", err)
	}
	return nil
}
