package cli

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/rpc/volumeapi"
	"github.com/holdfast-storage/holdfast/pkg/storage"
	"github.com/holdfast-storage/holdfast/pkg/vdisk"
	"github.com/holdfast-storage/holdfast/pkg/vdisk/content"
	"github.com/holdfast-storage/holdfast/pkg/vdisk/transfer"
)

// exportReport is what scripts read of an export. Sizes are bytes.
type exportReport struct {
	Image     string `json:"image"`
	Target    string `json:"target"`
	Format    string `json:"format"`
	Subformat string `json:"subformat,omitempty"`
	Size      int64  `json:"size_bytes"`
	From      int64  `json:"resumed_at_bytes"`
	FileBytes int64  `json:"file_bytes,omitempty"`
	Digest    string `json:"sha256,omitempty"` // over the checksums of all chunks of 4 MiB that are not zeros, with their offsets
	DryRun    bool   `json:"dry_run"`
}

// rbdExport are the flags of `image export`.
type rbdExport struct {
	vdisk.Target
	format          string
	restart, dryRun bool
}

func imageExport() *cobra.Command {
	var o rbdExport
	cmd := &cobra.Command{
		Use: "export rbd:POOL/IMAGE FILE", Short: "Write an RBD image, or a snapshot of it, to a file, through the cluster's services", Args: cobra.ExactArgs(2),
		Long: "Of an image a snapshot is taken for as long as it is read, so that the file is the disk of one moment. It is collected in a hidden file beside FILE, compared, and " +
			"then gets its name, or is converted, for which there must be room for both. Cut off, the same command goes on where it was.",
		Example: "  holdfast image export rbd:rbd/vm1 vm1.vmdk\n  holdfast image export rbd:rbd/vm1@monday vm1.img",
		RunE:    func(cmd *cobra.Command, args []string) error { return o.run(cmd, args[0], args[1]) },
	}
	f := cmd.Flags()
	f.StringVar(&o.format, "format", "", "format of the file: vdi, vmdk or raw (default: what its name ends with)")
	f.StringVar(&o.Subformat, "subformat", "", "of a VMDK: monolithicSparse (default) or streamOptimized")
	f.BoolVar(&o.Overwrite, "overwrite", false, "take the place of a file that is there")
	f.BoolVar(&o.restart, "restart", false, "throw away what an export that was cut off left, and begin anew")
	f.BoolVar(&o.dryRun, "dry-run", false, "say what would be done, and write nothing")
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{"vdi", "vmdk", "raw"}, cobra.ShellCompDirectiveNoFileComp))
	addOutputFlag(cmd)
	return cmd
}

func (o *rbdExport) run(cmd *cobra.Command, from, to string) (err error) {
	name, err := parseRBD(from, true)
	if err != nil {
		return err
	}
	o.Path, o.Target.Format = to, vdisk.Format(o.format)
	if o.format == "" {
		if o.Target.Format, err = formatByName(to); err != nil {
			return err
		}
	}
	dir, err := dataDir(cmd)
	if err != nil {
		return err
	}
	client, err := imagesClient(dir)
	if err != nil {
		return err
	}
	look, err := client.Look(cmd.Context(), name)
	if err != nil {
		return err
	}
	if !look.Exists {
		return fault.New(fault.NotFound, "there is no image %s", name)
	}
	size := int64(look.Bytes)
	target := o.Target // a snapshot may have another size: what is made of it is settled when it is open
	err = target.Makeable(size)
	if err != nil && (!errors.Is(err, fault.Exists) || o.restart || !vdisk.WasMade(to, name.String())) {
		return err
	}
	report := exportReport{Image: name.String(), Target: to, Format: string(o.Target.Format), Subformat: o.Subformat, Size: size, DryRun: o.dryRun}
	if !o.dryRun {
		if err := o.export(cmd, client, name, &report); err != nil {
			return fmt.Errorf("export %s: %w", name, err)
		}
	}
	return emit(cmd, report, nil, report.print)
}

// export copies the image to a partial file, and makes the file of it.
func (o *rbdExport) export(cmd *cobra.Command, client *volumeapi.Client, name volumeapi.ImageName, report *exportReport) error {
	if o.restart {
		if err := restartExport(cmd.Context(), client, name, o.Path); err != nil {
			return err
		}
	}
	partial, err := vdisk.OpenPartial(o.Path, name.String(), volumeapi.SnapshotPrefix+strings.ToLower(rand.Text()[:12]))
	if err != nil {
		return err
	}
	defer func() { _ = partial.Close() }()
	report.From = partial.Mark().UpTo
	if report.From > 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "goes on at %s\n", storage.Bytes(report.From))
	}
	if err := o.copy(cmd, client, name, partial, report); err != nil {
		return err
	}
	_ = partial.Close() // it is whole
	if info, err := os.Stat(o.Path); err == nil {
		report.FileBytes = info.Size()
	}
	return vdisk.Discard(o.Path)
}

func (o *rbdExport) copy(cmd *cobra.Command, client *volumeapi.Client, name volumeapi.ImageName, partial *vdisk.Partial, report *exportReport) error {
	bar := newBar(cmd.ErrOrStderr(), "exported")
	defer bar.close()
	moved := false
	source := &rbdDisk{}
	copier := &transfer.Copier{From: source, Again: partial, Progress: func(done, total int64) {
		moved = true
		bar.show(done, total)
	}}
	return persist(cmd.Context(), cmd.ErrOrStderr(), func() bool { was := moved; moved = false; return was }, func(ctx context.Context) (err error) {
		if partial.Made() {
			return dropSnapshot(ctx, client, name, partial)
		}
		session, opened, err := client.Export(ctx, volumeapi.ExportRequest{Name: name, Take: partial.Tag(), Taken: partial.Begun()})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, session.Close()) }()
		size := int64(opened.Bytes)
		if err := partial.Start(size, opened.Of); err != nil {
			return err
		}
		source.use(ctx, session, size)
		whole, err := copier.Run(ctx, partial, partial.Mark())
		if err != nil {
			return err
		}
		report.Digest, report.Size = whole.Digest, size
		if err := partial.Become(ctx, o.Target, nil); err != nil {
			return err
		}
		_, err = session.Finish(ctx)
		return err
	})
}

// restartExport removes what an export left: its snapshot first, whose name is in the note.
func restartExport(ctx context.Context, client *volumeapi.Client, name volumeapi.ImageName, path string) error {
	partial, err := vdisk.OpenPartial(path, name.String(), "")
	if errors.Is(err, fault.Busy) {
		return err
	}
	if err == nil {
		defer func() { _ = partial.Close() }()
		if err := dropSnapshot(ctx, client, name, partial); err != nil {
			return err
		}
	}
	return vdisk.Discard(path)
}

// dropSnapshot removes the snapshot that an export took, if it is there still.
func dropSnapshot(ctx context.Context, client *volumeapi.Client, name volumeapi.ImageName, partial *vdisk.Partial) error {
	if name.Snapshot != "" || partial.Tag() == "" {
		return nil
	}
	session, _, err := client.Export(ctx, volumeapi.ExportRequest{Name: name, Take: partial.Tag(), Taken: true})
	if errors.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = session.Finish(ctx)
	return errors.Join(err, session.Close())
}

func (r exportReport) print(out io.Writer) {
	verb := "exported"
	if r.DryRun {
		verb = "would export"
	}
	fmt.Fprintf(out, "%s %s to %s: %s, a disk of %s", verb, r.Image, r.Target, strings.TrimSpace(r.Format+" "+r.Subformat), storage.Bytes(r.Size))
	if r.FileBytes > 0 {
		fmt.Fprintf(out, ", %s long", storage.Bytes(r.FileBytes))
	}
	if !r.DryRun {
		fmt.Fprint(out, "; every chunk was read back and compared")
	}
	fmt.Fprintln(out)
}

// extentWindow is of how much of an image the services are asked at once what is in it, in bytes.
const extentWindow = 1 << 30

// rbdDisk is an image as a disk. A session takes the place of one that ended.
type rbdDisk struct {
	mu      sync.Mutex
	size    int64
	read    func(p []byte, off int64) error
	extents func(off, length int64) ([]volumeapi.ImageExtent, error)

	from, to int64 // of what the extents are known
	known    []volumeapi.ImageExtent
}

var _ content.Disk = (*rbdDisk)(nil)

func (d *rbdDisk) use(ctx context.Context, s *volumeapi.Session, size int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.size = size
	d.read = func(p []byte, off int64) error { return s.Read(ctx, p, off) }
	d.extents = func(off, length int64) ([]volumeapi.ImageExtent, error) { return s.Extents(ctx, off, length) }
}

func (d *rbdDisk) Size() int64 { return d.size }

func (*rbdDisk) Close() error { return nil }

// ReadAt implements content.Disk, for at most what goes over the socket at once.
func (d *rbdDisk) ReadAt(p []byte, off int64) (int, error) {
	if off >= d.size {
		return 0, io.EOF
	}
	short := p[:min(int64(len(p)), d.size-off)]
	if err := d.read(short, off); err != nil {
		return 0, err
	}
	if len(short) < len(p) {
		return len(short), io.EOF
	}
	return len(p), nil
}

// Span implements content.Disk.
func (d *rbdDisk) Span(off int64) (content.Span, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if off < d.from || off >= d.to {
		length := min(extentWindow, d.size-off)
		known, err := d.extents(off, length)
		if err != nil {
			return content.Span{}, err
		}
		d.from, d.to, d.known = off, off+length, known
	}
	s := content.Span{Offset: off, Length: d.to - off, Kind: content.Hole}
	at, _ := slices.BinarySearchFunc(d.known, off, func(e volumeapi.ImageExtent, off int64) int { return cmp.Compare(e.Offset+e.Length, off+1) })
	if at == len(d.known) { // none ends behind off
		return s, nil
	}
	e := d.known[at]
	if e.Offset > off {
		return content.Clip(s, e.Offset), nil
	}
	s.Kind = content.Data
	return content.Clip(s, e.Offset+e.Length), nil
}
