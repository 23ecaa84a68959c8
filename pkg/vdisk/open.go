// Package vdisk reads, converts, checks and grows virtual disks: VMware's VMDK, VirtualBox's VDI, raw files and block devices;
// QEMU's qcow2 is read. It opens no file but those that it is given, and those beside them that an image names.
package vdisk

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/vdisk/content"
	"github.com/holdfast-storage/holdfast/pkg/vdisk/qcow2"
	"github.com/holdfast-storage/holdfast/pkg/vdisk/raw"
	"github.com/holdfast-storage/holdfast/pkg/vdisk/vdi"
	"github.com/holdfast-storage/holdfast/pkg/vdisk/vmdk"
)

// Format is a form of disk images.
type Format string

// Formats.
const (
	VMDK  Format = "vmdk"
	VDI   Format = "vdi"
	Raw   Format = "raw"
	QCOW2 Format = "qcow2"
)

// Options say how an image is opened.
type Options struct {
	// Format is what the file is taken for; "" looks at it. A raw disk whose owner could write its first
	// bytes could pretend to be something else, and name other files.
	Format Format
	// ParentDirs are where the parents of snapshots are looked for besides the image's own folder.
	ParentDirs []string
}

// Image is an open disk with all its parents.
type Image struct {
	content.Disk
	Path      string
	Member    string // in an OVA
	Format    Format
	Subformat string   // as its makers call it: "monolithicSparse", "dynamic"
	Parents   []string // the nearest first
	Files     []string // all that hold the disk, but for parents
	FileBytes int64    // their length

	top    content.Disk // without parents
	parent *parentRef   // nil: none
}

// parentRef is how an image tells what its parent is.
type parentRef struct {
	hint string // name of the file; "" looks for it by id
	cid  uint32

	uuid, modified vdi.UUID // of a VDI's parent; modified may be zero: not known
}

// maxParents bounds a chain. VMware takes 32 snapshots.
const maxParents = 64

// Open opens an image and its parents. path may name a member of an OVA file behind its name: disk.ova:disk1.vmdk.
func Open(path string, options Options) (*Image, error) {
	top, err := openOne(path, options)
	if err != nil {
		return nil, err
	}
	o := opener{options: options}
	if err := o.chain(top); err != nil {
		_ = top.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return top, nil
}

// openOne opens an image without its parents.
func openOne(path string, options Options) (*Image, error) {
	file, member, err := openFile(path)
	if err != nil {
		return nil, err
	}
	i := &Image{Path: file.Name(), Format: options.Format}
	if err = shared(file); err == nil {
		err = i.open(file, member)
	}
	if err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	i.Disk = i.top
	return i, nil
}

// openFile opens a file, or an OVA of which the path names a member.
func openFile(path string) (*os.File, string, error) {
	file, err := os.Open(path)
	if !errors.Is(err, os.ErrNotExist) {
		return file, "", err
	}
	if n := strings.LastIndex(strings.ToLower(path), ".ova:"); n >= 0 {
		file, err = os.Open(path[:n+4])
		return file, path[n+5:], err
	}
	return nil, "", err
}

func (i *Image) open(file *os.File, member string) error {
	head := make([]byte, 512)
	n, err := file.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	head = head[:n]
	looked := i.Format == "" // else it is what the person says, whatever it looks like
	if looked {
		i.Format = formatOf(head)
	}
	length, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	i.Files, i.FileBytes = []string{file.Name()}, length
	switch {
	case member != "" || looked && i.Format == Raw && isTar(head):
		return i.openOVA(file, member)
	case i.Format == VDI:
		return i.openVDI(file, length)
	case i.Format == VMDK:
		return i.openVMDK(file, length)
	case i.Format == QCOW2:
		i.Subformat = "sparse"
		i.top, err = qcow2.Open(file)
	case i.Format == Raw:
		i.Subformat = "flat"
		i.top, err = raw.New(file)
	default:
		err = fault.New(fault.Invalid, "format %q is not known: vmdk, vdi, raw or qcow2", i.Format)
	}
	return err
}

func formatOf(head []byte) Format {
	switch {
	case vmdk.IsSparse(head), vmdk.IsDescriptor(head):
		return VMDK
	case vdi.Is(head):
		return VDI
	case qcow2.Is(head):
		return QCOW2
	}
	return Raw
}

func (i *Image) openVDI(file *os.File, length int64) error {
	d, err := vdi.Open(file, length)
	if err != nil {
		return err
	}
	i.top, i.Subformat = d, map[uint32]string{vdi.Dynamic: "dynamic", vdi.Fixed: "fixed", vdi.Differencing: "differencing"}[d.Type]
	if d.Type == vdi.Differencing {
		i.parent = &parentRef{uuid: d.Parent, modified: d.ParentModified}
	}
	return nil
}

func (i *Image) openVMDK(file vmdk.File, length int64) error {
	folder := filepath.Dir(i.Path)
	beside := func(name string) (*os.File, error) {
		if i.Member != "" {
			return nil, fault.New(fault.Unsupported, "a disk in an archive names the file %q beside it", name)
		}
		path, err := below(folder, name)
		if err != nil {
			return nil, err
		}
		extent, err := openBelow(folder, path)
		if err != nil {
			return nil, err
		}
		if info, err := extent.Stat(); err == nil {
			i.FileBytes += info.Size()
		}
		i.Files = append(i.Files, path)
		return extent, nil
	}
	d, err := vmdk.Open(file, length, beside)
	if err != nil {
		return err
	}
	i.top, i.Subformat = d, d.CreateType
	if d.HasParent() {
		i.parent = &parentRef{hint: d.ParentHint, cid: d.ParentCID}
	}
	return nil
}

// below is the path of a file that an image names: in the image's folder or one below it. An image from somewhere
// else could name any file of this machine, which would then be in what is made of it.
func below(folder, name string) (string, error) {
	clean := filepath.Clean(filepath.FromSlash(strings.ReplaceAll(name, `\`, "/")))
	if !filepath.IsLocal(clean) {
		return "", fault.New(fault.Precondition, "the image names the file %q, which is not in its folder %s: put it there and correct the descriptor, if you trust the image", name, folder)
	}
	return filepath.Join(folder, clean), nil
}

// openBelow opens a file of the folder, also through links if they do not lead out of it. What is no file is not waited for.
func openBelow(folder, path string) (*os.File, error) {
	root, err := os.OpenRoot(folder)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }()
	name, err := filepath.Rel(folder, path)
	if err != nil {
		return nil, err
	}
	file, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	return file, shared(file)
}

// shared keeps an image from being grown by another Holdfast while it is read. A device takes the lock, too.
func shared(file *os.File) error {
	if err := unix.Flock(int(file.Fd()), unix.LOCK_SH|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		return fault.New(fault.Busy, "%s is being changed by another process", file.Name())
	}
	return nil // a file system without locks has none to mind
}
