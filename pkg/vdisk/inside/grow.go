package inside

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/partition/edit"
	"github.com/holdfast-storage/holdfast/pkg/vdisk/content"
)

// GrowPartition makes a partition (0: the last) end as late as it can, in an overlay of the disk. was is the disk's size before it
// got larger, in bytes: the one good copy of a GPT may be there.
func GrowPartition(disk *content.Overlay, was int64, number int) (*Layout, error) {
	if err := edit.Mend(disk, was); err != nil {
		return nil, err
	}
	if _, err := edit.Grow(disk, disk.Size(), number); err != nil {
		return nil, err
	}
	return Look(disk)
}

// Way is how a file system grows.
type Way string

// Ways.
const (
	InFile  Way = "in the file"     // by its own tools, without a mount
	Mounted Way = "on a loop"       // mounted, or by LVM's tools, if this machine can
	AtBoot  Way = "at next boot"    // by the command that is told
	Never   Way = "does not grow"   // swap, and what is not known
	Nothing Way = "nothing to grow" // there is no file system
)

// Here reports whether this machine is the one to try it.
func (w Way) Here() bool { return w == InFile || w == Mounted }

// WayOf says how what is in a partition grows, and the command to be run in the machine itself where this one cannot; device is
// the partition's name there.
func WayOf(kind, device string) (way Way, atBoot string) {
	switch kind {
	case "ext2", "ext3", "ext4":
		return InFile, "resize2fs " + device
	case "xfs":
		return Mounted, "xfs_growfs /the/mount/point of " + device
	case "btrfs":
		return Mounted, "btrfs filesystem resize max /the/mount/point of " + device
	case "lvm2":
		return Mounted, "pvresize " + device + " && lvextend --resizefs --extents +100%FREE VG/LV"
	case "":
		return Nothing, ""
	}
	return Never, ""
}

// Growth is what became of a file system. AtBoot is the command that is left to do in the machine, if any.
type Growth struct {
	Kind   string `json:"kind"`
	Way    Way    `json:"way"`
	Done   bool   `json:"done"`
	AtBoot string `json:"at_boot,omitempty"`
	Why    string `json:"why,omitempty"` // what kept it from being done here
}

// Tool grows file systems by their own tools.
type Tool struct {
	Run command.Runner
	// Volume is the logical volume that grows, VOLUME or GROUP/VOLUME; "": the only one with a file system that can.
	Volume string
}

// GrowFileSystem makes what is in a partition as large as that, in a raw file of the partition alone. What cannot be done
// on this machine is no error: Growth says what is left to do.
func (t Tool) GrowFileSystem(ctx context.Context, file string, p Part) (Growth, error) {
	way, atBoot := WayOf(p.Content, fmt.Sprintf("/dev/sdX%d", p.Number))
	g := Growth{Kind: p.Content, Way: way, AtBoot: atBoot}
	var err error
	switch {
	case p.Content == "lvm2":
		var kind, left string
		if kind, left, err = t.volume(ctx, file, t.Volume); kind != "" {
			g.Kind = kind + " in lvm2"
		}
		if left != "" {
			g.AtBoot = left
		}
	case way.Here():
		err = t.fileSystem(ctx, file, p.Content)
	case way == Never:
		return g, fault.New(fault.Unsupported, "partition %d holds %s, which does not grow", p.Number, p.Content)
	default:
		return g, nil
	}
	if errors.Is(err, errCannotMount) || errors.Is(err, errNoTool) || errors.Is(err, errLeft) {
		g.Why = err.Error()
		return g, nil
	}
	if err != nil {
		return g, fmt.Errorf("grow %s in partition %d: %w", p.Content, p.Number, err)
	}
	g.Done, g.AtBoot = true, ""
	return g, nil
}

// fileSystem grows what fills a raw file.
func (t Tool) fileSystem(ctx context.Context, file, kind string) error {
	if way, _ := WayOf(kind, ""); way == InFile {
		return t.ext(ctx, file)
	}
	return t.mounted(ctx, file, kind)
}

// ext grows ext2, ext3 and ext4. resize2fs wants a check first. It cuts a file off behind the file system, wherever in the
// file that begins (e2fsprogs 1.47, resize/main.c): so the file must be the partition's own.
func (t Tool) ext(ctx context.Context, file string) error {
	_, err := t.Run.Run(ctx, command.Cmd{Name: "e2fsck", Args: []string{"-f", "-p", file}})
	var exit *command.ExitError
	switch {
	case errors.As(err, &exit) && exit.Code == 1: // it mended something
		err = nil
	case err != nil && command.ExitCode(err) < 0 && ctx.Err() == nil:
		return fmt.Errorf("%w: %w", errNoTool, err)
	}
	if err != nil {
		return fault.New(fault.Precondition, "the file system is not sound: check it in its machine with e2fsck first: %w", err)
	}
	_, err = t.Run.Run(ctx, command.Cmd{Name: "resize2fs", Args: []string{file}})
	return err
}

var errNoTool = errors.New("its tools are not on this machine")

var errCannotMount = errors.New("this machine cannot mount it")

// mounted grows xfs and btrfs, which only grow while mounted: on a loop device.
func (t Tool) mounted(ctx context.Context, file, kind string) (err error) {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w without being root", errCannotMount)
	}
	return t.onLoop(ctx, file, func(device string) error {
		at, err := os.MkdirTemp("", "holdfast-image-*")
		if err != nil {
			return err
		}
		return errors.Join(t.whileMounted(ctx, device, at, kind), os.Remove(at))
	})
}

// onLoop makes a loop device of a file for as long as fn runs.
func (t Tool) onLoop(ctx context.Context, file string, fn func(device string) error) error {
	loop, err := t.Run.Run(ctx, command.Cmd{Name: "losetup", Args: []string{"--find", "--show", file}})
	if err != nil {
		return fmt.Errorf("%w: %w", errCannotMount, err)
	}
	device := strings.TrimSpace(string(loop.Stdout))
	err = fn(device)
	_, detachErr := t.Run.Run(context.WithoutCancel(ctx), command.Cmd{Name: "losetup", Args: []string{"--detach", device}})
	return errors.Join(err, detachErr)
}

// whileMounted mounts the device with nosuid, nodev and noexec: the image may come from anywhere.
func (t Tool) whileMounted(ctx context.Context, device, at, kind string) error {
	options := map[string]string{"xfs": "nouuid"}[kind]
	if err := unix.Mount(device, at, kind, unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, options); err != nil {
		return fmt.Errorf("%w: %w", errCannotMount, err)
	}
	grow := command.Cmd{Name: "xfs_growfs", Args: []string{"-d", at}}
	if kind == "btrfs" {
		grow = command.Cmd{Name: "btrfs", Args: []string{"filesystem", "resize", "max", at}}
	}
	_, err := t.Run.Run(ctx, grow)
	return errors.Join(err, unix.Unmount(at, 0))
}
