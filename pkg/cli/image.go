package cli

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-storage/holdfast/pkg/storage"
	"github.com/holdfast-storage/holdfast/pkg/vdisk"
	"github.com/holdfast-storage/holdfast/pkg/vdisk/inside"
)

func imageCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "image", Short: "Look at, convert, check and grow virtual disks: VMDK, VDI, raw, qcow2",
		Long: "These commands work on files and need no cluster, but for import and export. Read are VMDK (monolithicSparse, streamOptimized, twoGbMaxExtent*, monolithicFlat, vmfs, " +
			"vmfsSparse; with snapshots' parents; in an OVA file: disk.ova, or disk.ova:NAME), VDI (dynamic, fixed, differencing), raw files and block devices, and qcow2. " +
			"Written are VDI, VMDK (monolithicSparse, streamOptimized) and raw.",
	}
	cmd.AddCommand(imageInfo(), imageMap(), imageCheck(), imageConvert(), imageGrow(), imageImport(), imageExport())
	return cmd
}

// imageOptions are the flags of all that open an image.
type imageOptions struct {
	from string
	vdisk.Options
}

func (o *imageOptions) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.from, "from", "", "format of the image: vmdk, vdi, raw or qcow2 (default: what its first bytes say)")
	cmd.Flags().StringSliceVar(&o.ParentDirs, "parent-dir", nil, "folders in which a snapshot's parents are looked for besides its own")
	_ = cmd.RegisterFlagCompletionFunc("from", cobra.FixedCompletions([]string{"vmdk", "vdi", "raw", "qcow2"}, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.MarkFlagDirname("parent-dir")
}

func (o *imageOptions) open(path string) (*vdisk.Image, error) {
	o.Format = vdisk.Format(o.from)
	return vdisk.Open(path, o.Options)
}

// with opens an image for fn.
func (o *imageOptions) with(path string, fn func(*vdisk.Image) error) (err error) {
	i, err := o.open(path)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := i.Close(); err == nil {
			err = closeErr
		}
	}()
	return fn(i)
}

// imageReport is what scripts read of an image. Sizes are bytes.
type imageReport struct {
	Path      string   `json:"path"`
	Member    string   `json:"member,omitempty"`
	Format    string   `json:"format"`
	Subformat string   `json:"subformat"`
	Size      int64    `json:"size_bytes"`
	Allocated int64    `json:"allocated_bytes"`
	FileBytes int64    `json:"file_bytes"`
	Files     []string `json:"files"`
	Parents   []string `json:"parents"`

	Inside  *inside.Layout `json:"inside,omitempty"`         // of `image info` alone
	Trouble string         `json:"inside_trouble,omitempty"` // why it could not be looked at
}

func reportImage(i *vdisk.Image) (imageReport, error) {
	allocated, err := i.Allocated()
	r := imageReport{
		Path: i.Path, Member: i.Member, Format: string(i.Format), Subformat: i.Subformat, Size: i.Size(),
		Allocated: allocated, FileBytes: i.FileBytes, Files: i.Files, Parents: i.Parents,
	}
	if r.Parents == nil {
		r.Parents = []string{}
	}
	return r, err
}

func (r imageReport) print(out io.Writer) {
	fmt.Fprintf(out, "%s: %s %s\n", r.Path, r.Format, r.Subformat)
	if r.Member != "" {
		fmt.Fprintf(out, "disk in it   %s\n", r.Member)
	}
	fmt.Fprintf(out, "disk         %s (%d bytes)\n", storage.Bytes(r.Size), r.Size)
	fmt.Fprintf(out, "data         %s\n", storage.Bytes(r.Allocated))
	fmt.Fprintf(out, "on disk      %s in %s\n", storage.Bytes(r.FileBytes), plural(len(r.Files), "file"))
	for _, parent := range r.Parents {
		fmt.Fprintf(out, "parent       %s\n", parent)
	}
	if r.Inside != nil {
		fmt.Fprint(out, r.Inside.Picture(r.Size))
	}
	if r.Trouble != "" {
		fmt.Fprintf(out, "inside       %s\n", r.Trouble)
	}
}

func imageInfo() *cobra.Command {
	var o imageOptions
	cmd := &cobra.Command{
		Use: "info FILE", Short: "Show what an image is, and the partitions in it", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.with(args[0], func(i *vdisk.Image) error {
				report, err := reportImage(i)
				if err != nil {
					return err
				}
				if report.Inside, err = inside.Look(i); err != nil {
					report.Trouble = err.Error()
				}
				return emit(cmd, report, nil, report.print)
			})
		},
	}
	o.add(cmd)
	addOutputFlag(cmd)
	return cmd
}

type imageSpan struct {
	Offset int64  `json:"offset"`
	Length int64  `json:"length"`
	Kind   string `json:"kind"`
}

func imageMap() *cobra.Command {
	var o imageOptions
	cmd := &cobra.Command{
		Use: "map FILE", Short: "List which stretches of a disk are data, zeros and holes", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.with(args[0], func(i *vdisk.Image) error {
				return listSpans(cmd, i)
			})
		},
	}
	o.add(cmd)
	addOutputFlag(cmd)
	return cmd
}

// imageFindings is what a check found.
type imageFindings struct {
	Path   string   `json:"path"`
	Damage []string `json:"damage"`
	Counts []string `json:"counts"`
}

// mostFindings bounds what a check lists of each kind.
const mostFindings = 100

func imageCheck() *cobra.Command {
	var o imageOptions
	cmd := &cobra.Command{
		Use: "check FILE", Short: "Look for damage in an image's structure; exit status 1 if there is some", Args: cobra.ExactArgs(1),
		Long: "Every table is read, and every compressed grain decompressed. Damage is what may cost content; a count that is wrong costs none. What a disk holds is not looked at: " +
			"that is for the tools of the file system in it.",
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.with(args[0], func(i *vdisk.Image) error {
				damage, counts, err := i.Check(mostFindings)
				if err != nil {
					return err
				}
				found := imageFindings{i.Path, append([]string{}, damage...), append([]string{}, counts...)}
				if err := emit(cmd, found, nil, found.print); err != nil || len(damage) == 0 {
					return err
				}
				return fmt.Errorf("%s is damaged: %s", i.Path, plural(len(damage), "finding"))
			})
		},
	}
	o.add(cmd)
	addOutputFlag(cmd)
	return cmd
}

func (f imageFindings) print(out io.Writer) {
	for _, text := range f.Damage {
		fmt.Fprintf(out, "damage: %s\n", text)
	}
	for _, text := range f.Counts {
		fmt.Fprintf(out, "count:  %s\n", text)
	}
	if len(f.Damage)+len(f.Counts) == 0 {
		fmt.Fprintf(out, "%s: nothing wrong\n", f.Path)
	}
}

// formatByName is the format that a file's name asks for.
func formatByName(path string) (vdisk.Format, error) {
	lower := strings.ToLower(path)
	for suffix, format := range map[string]vdisk.Format{".vdi": vdisk.VDI, ".vmdk": vdisk.VMDK, ".img": vdisk.Raw, ".raw": vdisk.Raw} {
		if strings.HasSuffix(lower, suffix) {
			return format, nil
		}
	}
	return "", fmt.Errorf("the name %s tells no format: give one with --format (vdi, vmdk, raw), or end the name with .vdi, .vmdk or .img", path)
}

// parseSize reads --size: an empty one is 0.
func parseSize(text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	size, err := storage.ParseBytes(text)
	if err != nil {
		return 0, fmt.Errorf("--size: %w", err)
	}
	return int64(size), nil
}

// sameFile reports whether two paths lead to one file.
func sameFile(a, b string) bool {
	first, err := os.Stat(a)
	if err != nil {
		return false
	}
	second, err := os.Stat(b)
	return err == nil && os.SameFile(first, second)
}
