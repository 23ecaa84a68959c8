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
	"github.com/holdfast-storage/holdfast/pkg/rpc/volumeapi"
	"github.com/holdfast-storage/holdfast/pkg/storage"
	"github.com/holdfast-storage/holdfast/pkg/vdisk"
)

// volumeFromImage makes a raw block volume and fills it with the disk in an image. A volume of that name that holds something is
// somebody's, and is not written to, unless it is what the same command left when it was cut off.
type volumeFromImage struct {
	cmd     *cobra.Command
	client  *csiclient.Client
	image   *vdisk.Image
	request csiclient.Request
	filled  bool // the disk is in the volume
}

func createFromImage(cmd *cobra.Command, c *csiclient.Client, request csiclient.Request, path string, dryRun bool) (err error) {
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
	m := &volumeFromImage{cmd: cmd, client: c, image: image, request: request}
	v, there, err := m.find()
	if err != nil {
		return err
	}
	if dryRun {
		verb := "+"
		if there {
			verb = "go on with"
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "%s rbd volume %q of %s with the disk in %s (dry run: nothing was made)\n", verb, request.Name, request.Bytes, path)
		return nil
	}
	if !there {
		if err := m.bounded(func(ctx context.Context) (err error) { v, err = c.Create(ctx, request); return err }); err != nil {
			return err
		}
	}
	if err := m.fill(v); err != nil {
		return m.failed(v, there, err)
	}
	return emit(cmd, v, volumeTable([]csiclient.Volume{v}), nil)
}

// bounded gives a call as long as other verbs have; the copy itself has no limit.
func (m *volumeFromImage) bounded(fn func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(m.cmd.Context()), volumeTimeout)
	defer cancel()
	return fn(ctx)
}

// find looks for a volume of the name; there: it is empty, or what an earlier command left.
func (m *volumeFromImage) find() (v csiclient.Volume, there bool, err error) {
	err = m.bounded(func(ctx context.Context) (err error) {
		v, err = m.client.Find(ctx, m.request.Name, m.request.Driver)
		return err
	})
	if errors.Is(err, fault.NotFound) {
		return v, false, nil
	}
	if err != nil {
		return v, false, err
	}
	refused := fault.New(fault.Exists, "there is a volume %s already (%s), and it is not written over: take another name, or delete it", v.Name, v.ID)
	if m.encrypted() || len(v.Mounts) > 0 {
		return v, false, refused
	}
	look, err := m.images().Look(m.cmd.Context(), volumeapi.ImageName{Volume: v.ID})
	switch {
	case err != nil:
		return v, false, errors.Join(refused, err)
	case look.Empty && len(v.Nodes) == 0 && m.unused(v): // made a moment ago, or by a claim
		return v, true, nil
	case look.Import == nil || look.Import.Complete:
		return v, false, refused
	}
	source, err := sourceOf(m.image)
	if err == nil && look.Import.Source != source {
		err = fault.New(fault.Exists, "there is a volume %s that is filled with another disk, and not all of it (%s; this is %s): go on with that one, or delete the volume", v.Name, look.Import.Source, source)
	}
	return v, true, err
}

// unused reports whether an empty volume is one that can be filled as it is.
func (m *volumeFromImage) unused(v csiclient.Volume) bool {
	fits := false
	_ = m.bounded(func(ctx context.Context) error { // else it is refused
		records, err := recordsByID(ctx, m.client)
		r, known := records[v.ID]
		fits = known && r.Block && r.Encryption == "" && v.Bytes >= storage.Bytes(m.image.Size())
		return err
	})
	return fits
}

func (m *volumeFromImage) images() *volumeapi.Client {
	dir, _ := dataDir(m.cmd)
	return volumeapi.NewImagesClient(volumeapi.Socket(dir))
}

// encrypted volumes are filled through their device, where what is written is encrypted.
func (m *volumeFromImage) encrypted() bool { return m.request.Parameters["encrypted"] == "true" }

// fill writes the disk while this machine has the volume, so that no node uses it.
func (m *volumeFromImage) fill(v csiclient.Volume) error {
	if m.encrypted() {
		return m.fillDevice(v)
	}
	source, err := sourceOf(m.image)
	if err != nil {
		return err
	}
	if err := m.bounded(func(ctx context.Context) error { return m.client.Hold(ctx, v) }); err != nil {
		return err
	}
	request := volumeapi.ImportRequest{Name: volumeapi.ImageName{Volume: v.ID}, Source: source, Disk: storage.Bytes(m.image.Size()), Bytes: v.Bytes}
	if _, _, err := fill(m.cmd.Context(), m.images(), m.image, request, m.cmd.ErrOrStderr()); err != nil {
		return err
	}
	m.filled = true
	return m.bounded(func(ctx context.Context) error { return m.client.Unmount(ctx, v, "") })
}

// keeps reports whether a volume that could not be filled stays: somebody else may be at it, or the same command goes on with it.
func (m *volumeFromImage) keeps(there bool, err error) bool {
	for _, class := range []error{fault.Exists, fault.Busy, fault.Unavailable} {
		if errors.Is(err, class) {
			return true
		}
	}
	return there || !m.encrypted() && m.cmd.Context().Err() != nil
}

// failed deletes what this command made and cannot fill.
func (m *volumeFromImage) failed(v csiclient.Volume, there bool, err error) error {
	switch {
	case m.filled:
		return fmt.Errorf("%w\nvolume %s holds the disk, all of it; this machine has it still: `%s volume umount %s` gives it back", err, v.Name, self(m.cmd), v.Name)
	case m.keeps(there, err) && m.encrypted():
		return fmt.Errorf("%w\nvolume %s is not complete, unless another command fills it: `%s volume umount %s`, and delete it", err, v.Name, self(m.cmd), v.Name)
	case m.keeps(there, err):
		return fmt.Errorf("%w\nvolume %s is not complete: give the same command again, and it goes on; or `%s volume umount %s` and delete it", err, v.Name, self(m.cmd), v.Name)
	}
	deleteErr := m.bounded(func(ctx context.Context) error {
		return errors.Join(m.client.Unmount(ctx, v, ""), m.client.Delete(ctx, v))
	})
	if deleteErr != nil {
		deleteErr = fmt.Errorf("delete volume %s, which is not complete: %w", v.Name, deleteErr)
	}
	return errors.Join(err, deleteErr)
}

// fillDevice maps the volume as a device of this machine for as long as it is written.
func (m *volumeFromImage) fillDevice(v csiclient.Volume) error {
	folder, err := os.MkdirTemp("", "holdfast-import-*")
	if err != nil {
		return err
	}
	device := filepath.Join(folder, "device")
	err = m.bounded(func(ctx context.Context) error {
		return m.client.Mount(ctx, v, csiclient.MountOptions{Target: device, Block: true})
	})
	if err == nil {
		progress := newBar(m.cmd.ErrOrStderr(), "written")
		err = vdisk.Fill(m.cmd.Context(), m.image, device, progress.show)
		m.filled = err == nil
		progress.close()
	}
	err = errors.Join(err, m.bounded(func(ctx context.Context) error { return m.client.Unmount(ctx, v, device) }))
	return errors.Join(err, os.RemoveAll(folder))
}
