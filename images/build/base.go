package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/holdfast-storage/holdfast/images/archive"
	"github.com/holdfast-storage/holdfast/pkg/command"
)

// left and emptied are what the base layer does without: package caches, texts for people, and
// what a running system fills. Directories in emptied stay, without their contents.
var (
	left = map[string]bool{
		"usr/share/doc": true, "usr/share/man": true, "usr/share/info": true, "usr/share/locale": true,
		"debootstrap": true,
	}
	emptied = map[string]bool{
		"proc": true, "sys": true, "dev": true, "run": true, "tmp": true,
		"var/cache/apt": true, "var/lib/apt/lists": true, "var/log": true,
	}
)

// without says whether the base layer leaves out a path.
func without(name string) bool { return left[name] || emptied[path.Dir(name)] }

// baseBuilder makes the Debian layer under the programs.
type baseBuilder struct {
	runner   command.Runner
	log      *slog.Logger
	cache    string
	suite    string
	packages []string
}

// layer returns the cached layer for the package list, made first where it is missing or
// refresh is set.
func (b baseBuilder) layer(ctx context.Context, refresh bool) (archive.Layer, error) {
	file := filepath.Join(b.cache, "base-"+b.key()+".tar")
	digestPath := strings.TrimSuffix(file, ".tar") + ".sha256"
	if !refresh {
		digest, err := os.ReadFile(digestPath)
		if err == nil && fileExists(file) {
			return archive.Layer{Path: file, Digest: strings.TrimSpace(string(digest)), CreatedBy: "debootstrap " + b.suite}, nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return archive.Layer{}, fmt.Errorf("read cached digest: %w", err)
		}
	}
	if err := os.MkdirAll(b.cache, 0o755); err != nil {
		return archive.Layer{}, fmt.Errorf("create image cache: %w", err)
	}
	root, err := os.MkdirTemp(b.cache, "root-")
	if err != nil {
		return archive.Layer{}, fmt.Errorf("create directory of the base system: %w", err)
	}
	defer os.RemoveAll(root)
	if err := b.bootstrap(ctx, root); err != nil {
		return archive.Layer{}, err
	}
	layer, err := archive.LayerFromDir(file+".new", root, without)
	if err != nil {
		return archive.Layer{}, err
	}
	// The digest goes last: its presence says that the layer is whole.
	if err := os.Rename(layer.Path, file); err != nil {
		return archive.Layer{}, fmt.Errorf("keep base layer: %w", err)
	}
	if err := os.WriteFile(digestPath, []byte(layer.Digest+"\n"), 0o644); err != nil {
		return archive.Layer{}, fmt.Errorf("keep digest of base layer: %w", err)
	}
	layer.Path, layer.CreatedBy = file, "debootstrap "+b.suite
	return layer, nil
}

// bootstrap installs the packages under root from the mirror that this machine's own apt uses.
func (b baseBuilder) bootstrap(ctx context.Context, root string) error {
	if os.Geteuid() != 0 {
		return errors.New("the base layer of the image is made by debootstrap, which needs root: run as root")
	}
	mirror, err := b.mirror(ctx)
	if err != nil {
		return err
	}
	b.log.Info("making the base layer", "suite", b.suite, "packages", len(b.packages))
	_, err = b.runner.Run(ctx, command.Cmd{Name: "debootstrap", Args: []string{
		"--variant=minbase", "--include=" + strings.Join(b.packages, ","), b.suite, root, mirror,
	}})
	if err != nil {
		return fmt.Errorf("make the base system (apt-get install debootstrap, if it is missing): %w", err)
	}
	return nil
}

// mirror returns the archive's address as apt is configured on this machine.
func (b baseBuilder) mirror(ctx context.Context) (string, error) {
	result, err := b.runner.Run(ctx, command.Cmd{Name: "apt-get", Args: []string{
		"indextargets", "--format", "$(RELEASE)|$(COMPONENT)|$(REPO_URI)", "Created-By: Packages",
	}})
	if err != nil {
		return "", fmt.Errorf("ask apt for its mirrors: %w", err)
	}
	for line := range strings.Lines(string(result.Stdout)) {
		fields := strings.SplitN(strings.TrimSpace(line), "|", 3)
		if len(fields) == 3 && fields[0] == b.suite && fields[1] == "main" {
			return fields[2], nil
		}
	}
	return "", fmt.Errorf("apt has no mirror for %s main on this machine: add one to its sources and run apt-get update", b.suite)
}

func (b baseBuilder) key() string {
	sum := sha256.Sum256([]byte(runtime.GOARCH + "\n" + b.suite + "\n" + strings.Join(b.packages, "\n")))
	return hex.EncodeToString(sum[:8])
}

// readPackages reads one package a line; "#" begins a comment.
func readPackages(path string) ([]string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read package list: %w", err)
	}
	var packages []string
	for line := range strings.Lines(string(data)) {
		line, _, _ = strings.Cut(line, "#")
		if name := strings.TrimSpace(line); name != "" {
			packages = append(packages, name)
		}
	}
	if len(packages) == 0 {
		return nil, fmt.Errorf("package list %s is empty", path)
	}
	return packages, nil
}

// hostSuite returns the Debian release of this machine. The image takes the same one, since
// holdfastd is linked against this machine's Ceph libraries.
func hostSuite(path string) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read the system's release: %w", err)
	}
	scanner := bufio.NewScanner(bytes.NewReader(data))
	for scanner.Scan() {
		if name, ok := strings.CutPrefix(scanner.Text(), "VERSION_CODENAME="); ok && name != "" {
			return strings.Trim(name, `"`), nil
		}
	}
	return "", fmt.Errorf("%s names no VERSION_CODENAME: the image is made on Debian", path)
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
