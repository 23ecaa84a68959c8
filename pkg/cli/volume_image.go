package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/holdfast-storage/holdfast/pkg/csiclient"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
	"github.com/holdfast-storage/holdfast/pkg/vdisk"
)

// createFromImage makes a raw block volume and fills it with the disk in an image. A volume of that name that is there is
// somebody's, and is not written to; one that could not be filled is deleted.
func createFromImage(ctx context.Context, cmd *cobra.Command, c *csiclient.Client, request csiclient.Request, path string, dryRun bool) (err error) {
	if request.Driver != storage.RBD {
		return fault.New(fault.Invalid, "--from-image makes an rbd volume: a disk is no shared file system")
	}
	image, err := vdisk.Open(path, vdisk.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, image.Close()) }()
	request.Block = true
	if !cmd.Flags().Changed("size") {
		request.Bytes = storage.Bytes(image.Size())
	}
	if request.Bytes < storage.Bytes(image.Size()) {
		return fault.New(fault.Range, "--size: the disk in %s has %s, and %s are fewer", path, storage.Bytes(image.Size()), request.Bytes)
	}
	if found, err := c.Find(ctx, request.Name, request.Driver); err == nil {
		return fault.New(fault.Exists, "there is a volume %s already (%s), and it is not written over: take another name, or delete it", found.Name, found.ID)
	} else if !errors.Is(err, fault.NotFound) {
		return err
	}
	if dryRun {
		fmt.Fprintf(cmd.ErrOrStderr(), "+ rbd volume %q of %s with the disk in %s (dry run: nothing was made)\n", request.Name, request.Bytes, path)
		return nil
	}
	v, err := c.Create(ctx, request)
	if err != nil {
		return err
	}
	if err := fillVolume(ctx, cmd, c, v, image); err != nil {
		deleteErr := c.Delete(context.WithoutCancel(ctx), v)
		if deleteErr != nil {
			deleteErr = fmt.Errorf("delete volume %s, which is not complete: %w", v.Name, deleteErr)
		}
		return errors.Join(err, deleteErr)
	}
	return emit(cmd, v, volumeTable([]csiclient.Volume{v}), nil)
}

// fillVolume maps the volume as a device of this machine for as long as it is written.
func fillVolume(ctx context.Context, cmd *cobra.Command, c *csiclient.Client, v csiclient.Volume, image *vdisk.Image) error {
	folder, err := os.MkdirTemp("", "holdfast-import-*")
	if err != nil {
		return err
	}
	device := filepath.Join(folder, "device")
	err = c.Mount(ctx, v, csiclient.MountOptions{Target: device, Block: true})
	if err == nil {
		progress := newBar(cmd.ErrOrStderr(), "written")
		err = vdisk.Fill(ctx, image, device, progress.show)
		progress.close()
	}
	err = errors.Join(err, c.Unmount(context.WithoutCancel(ctx), v, device))
	return errors.Join(err, os.RemoveAll(folder))
}
