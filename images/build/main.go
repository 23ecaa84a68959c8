// Command build makes the container image of Holdfast, one image for both programs, without a
// container engine: a Debian base layer by debootstrap, the programs on top, written as a
// docker-archive tar.
//
//	go run ./images/build --bin bin --out image.tar
//
// The base layer is cached by the hash of its package list, so a second run needs no network.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/holdfast-storage/holdfast/images/archive"
	"github.com/holdfast-storage/holdfast/pkg/command"
)

type options struct {
	name, bin, out, cache, packages string
	refresh                         bool
}

func main() { os.Exit(program()) }

func program() int {
	cacheRoot, err := os.UserCacheDir()
	if err != nil {
		cacheRoot = os.TempDir()
	}
	var o options
	flag.StringVar(&o.name, "name", "docker.io/library/holdfast:dev", "name and tag of the image")
	flag.StringVar(&o.bin, "bin", "bin", "directory of holdfast and holdfastd")
	flag.StringVar(&o.out, "out", "holdfast-image.tar", "archive to write")
	flag.StringVar(&o.cache, "cache", filepath.Join(cacheRoot, "holdfast", "image"), "directory of cached base layers")
	flag.StringVar(&o.packages, "packages", "images/packages.txt", "list of Debian packages")
	flag.BoolVar(&o.refresh, "refresh", false, "make the base layer again, with the packages of today")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, slog.New(slog.NewTextHandler(os.Stderr, nil)), o); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		return 1
	}
	return 0
}

func run(ctx context.Context, log *slog.Logger, o options) error {
	packages, err := readPackages(o.packages)
	if err != nil {
		return err
	}
	suite, err := hostSuite("/etc/os-release")
	if err != nil {
		return err
	}
	builder := baseBuilder{runner: command.System{}, log: log, cache: o.cache, suite: suite, packages: packages}
	base, err := builder.layer(ctx, o.refresh)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(o.out), 0o755); err != nil {
		return fmt.Errorf("create directory of the image: %w", err)
	}
	programs, err := archive.LayerFromFiles(o.out+".programs", []archive.File{
		{Target: "/usr/local/bin/holdfast", Source: filepath.Join(o.bin, "holdfast"), Mode: 0o755},
		{Target: "/usr/local/bin/holdfastd", Source: filepath.Join(o.bin, "holdfastd"), Mode: 0o755},
	}, []archive.Link{{Target: "/usr/local/bin/kubectl-holdfast", To: "holdfast"}})
	if err != nil {
		return err
	}
	defer os.Remove(programs.Path)
	programs.CreatedBy = "holdfast and holdfastd"
	image := archive.Image{
		Name: o.name, Layers: []archive.Layer{base, programs}, Entrypoint: []string{"/usr/local/bin/holdfastd"},
		Labels: map[string]string{"org.opencontainers.image.title": "holdfast", "org.opencontainers.image.licenses": "Apache-2.0"},
	}
	if err := archive.WriteFile(o.out, image); err != nil {
		return err
	}
	log.Info("image written", "name", o.name, "path", o.out)
	return nil
}
