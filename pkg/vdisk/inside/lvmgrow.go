package inside

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/vdisk/content"
	"github.com/holdfast-storage/holdfast/pkg/vdisk/raw"
)

// volume grows a physical volume, a logical one in it, and its file system, in a raw file of the partition. LVM's tools change the
// metadata alone, and see only the loop device of the file: nothing is activated, so that a group of the same name of this machine's
// own is as it was. The file system is grown in a file of the volume alone, and what has changed is put back.
// left is the command for what is left to do in the machine once the volume itself is larger.
func (t Tool) volume(ctx context.Context, file, name string) (kind, left string, err error) {
	before, err := readGroupFile(file)
	if err != nil {
		return "", "", err
	}
	grows, err := before.Pick(name)
	if err != nil {
		return "", "", fmt.Errorf("%w: %w", errLeft, err)
	}
	kind = grows.Content
	if err := t.growVolume(ctx, file, before.Name+"/"+grows.Name); err != nil {
		return kind, "", err
	}
	_, left = WayOf(kind, "/dev/"+before.Name+"/"+grows.Name)
	after, err := readGroupFile(file)
	if err != nil {
		return kind, left, err
	}
	if grows, err = after.Pick(grows.Name); err != nil {
		return kind, left, err
	}
	work := file + ".volume"
	defer func() { _ = os.Remove(work) }()
	if err := extract(file, work, after, grows); err != nil {
		return kind, left, err
	}
	if err := t.fileSystem(ctx, work, kind); err != nil {
		return kind, left, err
	}
	return kind, left, putBack(file, work, grows)
}

var errLeft = errors.New("it is left to the machine")

func readGroupFile(path string) (*Group, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	disk, err := raw.New(file)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	g, err := ReadGroup(disk)
	return g, errors.Join(err, disk.Close())
}

// growVolume has LVM take what the partition has more.
func (t Tool) growVolume(ctx context.Context, file, volume string) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: LVM's tools want root", errCannotMount)
	}
	own, err := os.MkdirTemp("", "holdfast-lvm-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(own) }()
	return t.onLoop(ctx, file, func(device string) error {
		only := fmt.Sprintf(`["a|^%s$|","r|.*|"]`, device)
		config := fmt.Sprintf("devices{filter=%[1]s global_filter=%[1]s use_devicesfile=0 obtain_device_list_from_udev=0} global{locking_dir=%[2]q} "+
			"backup{backup=0 archive=0} activation{monitoring=0 udev_sync=0 udev_rules=0}", only, own)
		lvm := func(args ...string) error {
			_, err := t.Run.Run(ctx, command.Cmd{
				Name: "lvm", Args: append([]string{args[0], "--driverloaded", "n", "--config", config}, args[1:]...),
				Env: []string{"LVM_SYSTEM_DIR=" + own, "LVM_SUPPRESS_FD_WARNINGS=1"},
			})
			if err != nil && command.ExitCode(err) < 0 && ctx.Err() == nil {
				return fmt.Errorf("%w: %w", errNoTool, err)
			}
			return err
		}
		if err := lvm("pvresize", device); err != nil {
			return err
		}
		if g, err := readGroupFile(file); err != nil || g.Free == 0 {
			return err
		}
		return lvm("lvextend", "--extents", "+100%FREE", volume)
	})
}

// extract copies a volume to a file of its own, with holes.
func extract(file, work string, g *Group, v Logical) (err error) {
	in, err := os.Open(file)
	if err != nil {
		return err
	}
	disk, err := raw.New(in)
	if err != nil {
		return errors.Join(err, in.Close())
	}
	defer func() { err = errors.Join(err, disk.Close()) }()
	out, err := os.OpenFile(work, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if err := out.Truncate(v.Size); err != nil {
		return err
	}
	return eachData(g.Disk(disk, v), func(p []byte, off int64) error {
		for _, piece := range content.Pack(p, 4096, nil) {
			if _, err := out.WriteAt(piece.Data, off+int64(piece.At)); err != nil {
				return err
			}
		}
		return nil
	})
}

// putBack writes what differs into the partition's file.
func putBack(file, work string, v Logical) (err error) {
	in, err := os.Open(filepath.Clean(work))
	if err != nil {
		return err
	}
	grown, err := raw.New(in)
	if err != nil {
		return errors.Join(err, in.Close())
	}
	defer func() { err = errors.Join(err, grown.Close()) }()
	out, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	old := make([]byte, copyStep)
	for _, s := range v.segments {
		for at := int64(0); at < s.length; at += copyStep {
			was := old[:min(copyStep, s.length-at)]
			now := make([]byte, len(was))
			if n, err := grown.ReadAt(now, s.at+at); n < len(now) {
				return fmt.Errorf("read the grown volume: %w", err)
			}
			if n, err := out.ReadAt(was, s.from+at); n < len(was) {
				return fmt.Errorf("read the partition: %w", err)
			}
			if string(was) == string(now) {
				continue
			}
			if _, err := out.WriteAt(now, s.from+at); err != nil {
				return err
			}
		}
	}
	return out.Sync()
}

// copyStep is what is copied at a time, in bytes.
const copyStep = 1 << 20

// eachData reads what a disk says is data.
func eachData(d content.Disk, fn func(p []byte, off int64) error) error {
	buffer := make([]byte, copyStep)
	return content.Each(d, func(s content.Span) error {
		for off := s.Offset; s.Kind == content.Data && off < s.End(); off += copyStep {
			p := buffer[:min(copyStep, s.End()-off)]
			if n, err := d.ReadAt(p, off); n < len(p) {
				return fault.New(fault.Unavailable, "read what is at offset %d: %w", off, err)
			}
			if err := fn(p, off); err != nil {
				return err
			}
		}
		return nil
	})
}
