package vdisk

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/vdisk/content"
	"github.com/holdfast-storage/holdfast/pkg/vdisk/vdi"
	"github.com/holdfast-storage/holdfast/pkg/vdisk/vmdk"
)

// opener follows parents.
type opener struct {
	options Options
	seen    []os.FileInfo
}

// chain lays the image over its parents.
func (o *opener) chain(top *Image) error {
	child := top
	for child.wantsParent() {
		if err := o.note(child.Path); err != nil {
			return err
		}
		parent, err := o.find(child)
		if err != nil {
			return err
		}
		if err := o.fits(child, parent); err != nil {
			return errors.Join(err, parent.Close())
		}
		top.Parents = append(top.Parents, parent.Path)
		top.Disk = content.Over(top.Disk, parent.top)
		child = parent
	}
	return nil
}

func (i *Image) wantsParent() bool { return i.parent != nil }

// note refuses a chain that bites its tail, or is too long.
func (o *opener) note(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	for _, other := range o.seen {
		if os.SameFile(info, other) {
			return fault.New(fault.Invalid, "%s is among its own parents", path)
		}
	}
	if o.seen = append(o.seen, info); len(o.seen) > maxParents {
		return fault.New(fault.Invalid, "there are more than %d parents", maxParents)
	}
	return nil
}

// find opens the parent. A hint is the path on the machine that made the snapshot: only its last part counts, and the file
// must be beside the image or in a folder that the person named.
func (o *opener) find(child *Image) (*Image, error) {
	folders := append([]string{filepath.Dir(child.Path)}, o.options.ParentDirs...)
	if child.Format == VDI {
		return o.findVDI(child, folders)
	}
	hint := strings.ReplaceAll(child.parent.hint, `\`, "/")
	name := hint[strings.LastIndex(hint, "/")+1:]
	if name == "" || name == "." || name == ".." {
		return nil, fault.New(fault.Invalid, "%s is a snapshot and does not say of what (parentFileNameHint)", child.Path)
	}
	for _, folder := range folders {
		parent, err := openOne(filepath.Join(folder, name), Options{Format: VMDK})
		if !errors.Is(err, os.ErrNotExist) {
			return parent, err
		}
	}
	return nil, fault.New(fault.NotFound, "%s is a snapshot of %q, which is not in %s: say where it is with --parent-dir", child.Path, child.parent.hint, strings.Join(folders, ", "))
}

// findVDI looks for the image that has the parent's UUID and was not changed since: a differencing image names no file.
func (o *opener) findVDI(child *Image, folders []string) (*Image, error) {
	for _, folder := range folders {
		names, err := filepath.Glob(filepath.Join(escape(folder), "*.[vV][dD][iI]"))
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			id, modified, err := vdi.ID(name)
			if err != nil || id != child.parent.uuid || !child.parent.modified.IsZero() && modified != child.parent.modified {
				continue // others in the folder may be anything
			}
			return openOne(name, Options{Format: VDI})
		}
	}
	return nil, fault.New(fault.NotFound, "%s shows the image with the UUID %s as it was when it had the modification UUID %s, of which there is none in %s: say where it is with --parent-dir", child.Path, child.parent.uuid, child.parent.modified, strings.Join(folders, ", "))
}

func escape(folder string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(folder)
}

// fits refuses a parent that was changed after the snapshot was taken.
func (o *opener) fits(child, parent *Image) error {
	d, ok := parent.top.(*vmdk.Disk)
	if ok && child.parent.cid != d.CID {
		return fault.New(fault.Precondition, "%s was changed after the snapshot %s was taken (its CID is %08x, and the snapshot is of %08x): together they hold no disk that there ever was",
			parent.Path, child.Path, d.CID, child.parent.cid)
	}
	return nil
}
