package cli

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/rpc/volumeapi"
	"github.com/holdfast-storage/holdfast/pkg/storage"
	"github.com/holdfast-storage/holdfast/pkg/vdisk"
)

// importReport is what scripts read of an import. Sizes are bytes.
type importReport struct {
	Source  imageReport `json:"source"`
	Image   string      `json:"image"`
	Size    int64       `json:"size_bytes"`
	From    int64       `json:"resumed_at_bytes"`  // of an import that was cut off; 0: from the beginning
	Digest  string      `json:"sha256,omitempty"`  // over the checksums of all chunks of 4 MiB that are not zeros, with their offsets
	Trashed string      `json:"trashed,omitempty"` // the image whose place it took
	DryRun  bool        `json:"dry_run"`
}

// rbdImport are the flags of `image import`.
type rbdImport struct {
	imageOptions
	size, dataPool             string
	overwrite, restart, dryRun bool
}

func imageImport() *cobra.Command {
	var o rbdImport
	cmd := &cobra.Command{
		Use: "import FILE rbd:POOL/IMAGE", Short: "Write the disk in a file to a new RBD image, through the cluster's services", Args: cobra.ExactArgs(2),
		Long: "Holes and zeros take no space in the image. It is filled as IMAGE.partial and gets its name when all of it was read back and compared. Cut off, " +
			"the same command goes on where it was.",
		Example: "  holdfast image import disk.vmdk rbd:rbd/vm1\n  holdfast image import appliance.ova rbd:rbd/vm2 --size 64GiB",
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.with(args[0], func(i *vdisk.Image) error { return o.run(cmd, i, args[1]) })
		},
	}
	o.add(cmd)
	f := cmd.Flags()
	f.StringVar(&o.size, "size", "", "size of the image, such as 64GiB: at least the disk's (default: the same)")
	f.StringVar(&o.dataPool, "data-pool", "", "pool of the image's data, if not that of the image")
	f.BoolVar(&o.overwrite, "overwrite", false, "take the place of an image that is there, which goes to the trash")
	f.BoolVar(&o.restart, "restart", false, "throw away what an import that was cut off left, and begin anew")
	f.BoolVar(&o.dryRun, "dry-run", false, "say what would be done, and write nothing")
	addOutputFlag(cmd)
	return cmd
}

func (o *rbdImport) run(cmd *cobra.Command, i *vdisk.Image, to string) error {
	request, err := o.request(i, to)
	if err != nil {
		return err
	}
	dir, err := dataDir(cmd)
	if err != nil {
		return err
	}
	client, err := imagesClient(dir)
	if err != nil {
		return err
	}
	source, err := reportImage(i)
	if err != nil {
		return err
	}
	look, err := client.Look(cmd.Context(), request.Name)
	if err != nil {
		return err
	}
	report := importReport{Source: source, Image: request.Name.String(), Size: int64(request.Bytes), DryRun: o.dryRun}
	if look.Partial != nil && !o.restart {
		report.From = look.Partial.Mark.UpTo
	}
	if err := refuseImport(look, request); err != nil {
		return err
	}
	if !o.dryRun {
		done, digest, err := fill(cmd.Context(), client, i, request, cmd.ErrOrStderr())
		if err != nil {
			return fmt.Errorf("import %s: %w", i.Path, err)
		}
		report.Digest, report.Trashed = digest, done.Trashed
		if look.Exists { // also where the answer that says so was lost
			report.Trashed = request.Name.Image
		}
	}
	return emit(cmd, report, nil, report.print)
}

func (o *rbdImport) request(i *vdisk.Image, to string) (volumeapi.ImportRequest, error) {
	name, err := parseRBD(to, false)
	if err != nil {
		return volumeapi.ImportRequest{}, err
	}
	size, err := parseSize(o.size)
	if err != nil {
		return volumeapi.ImportRequest{}, err
	}
	if size == 0 {
		size = i.Size()
	}
	if size < i.Size() {
		return volumeapi.ImportRequest{}, fault.New(fault.Range, "--size: the disk has %s, and %s are fewer", storage.Bytes(i.Size()), storage.Bytes(size))
	}
	source, err := sourceOf(i)
	return volumeapi.ImportRequest{
		Name: name, Source: source, Disk: storage.Bytes(i.Size()), Bytes: storage.Bytes(size), DataPool: o.dataPool, Overwrite: o.overwrite, Restart: o.restart,
	}, err
}

// refuseImport says before anything is written what the services would refuse.
func refuseImport(look volumeapi.ImageLook, r volumeapi.ImportRequest) error {
	switch {
	case look.Exists && !r.Overwrite:
		return fault.New(fault.Exists, "there is an image %s already: take another name, or --overwrite", r.Name)
	case look.Used:
		return fault.New(fault.Busy, "image %s is in use: it is not written over", r.Name)
	case look.Partial != nil && !r.Restart && (look.Partial.Source != r.Source || look.Partial.Size != int64(r.Disk)):
		return fault.New(fault.Precondition, "an import of another disk into %s was cut off (of %s; this is %s): go on with that one, or say --restart to throw away what it left", r.Name, look.Partial.Source, r.Source)
	}
	return nil
}

func (r importReport) print(out io.Writer) {
	verb := "imported"
	if r.DryRun {
		verb = "would import"
	}
	fmt.Fprintf(out, "%s %s: a disk of %s with %s of data", verb, r.Image, storage.Bytes(r.Size), storage.Bytes(r.Source.Allocated))
	if r.From > 0 {
		fmt.Fprintf(out, ", going on at %s", storage.Bytes(r.From))
	}
	if !r.DryRun {
		fmt.Fprint(out, "; all of it was read back and compared")
	}
	fmt.Fprintln(out)
	if r.Trashed != "" {
		fmt.Fprintf(out, "the image that was there is in the trash: `rbd trash ls` shows it\n")
	}
}
