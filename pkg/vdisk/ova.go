package vdisk

import (
	"archive/tar"
	"errors"
	"io"
	"os"
	"strings"

	"github.com/holdfast-storage/holdfast/pkg/fault"
)

func isTar(head []byte) bool { return len(head) >= 263 && string(head[257:262]) == "ustar" }

// member is a file in an archive: where its content begins, and its length, in bytes.
type member struct {
	name         string
	from, length int64
}

// openOVA opens a disk in an OVA file, which is a tar archive. Without a name there must be one only.
func (i *Image) openOVA(file *os.File, name string) error {
	disks, err := members(file)
	if err != nil {
		return err
	}
	if name == "" && len(disks) == 1 {
		name = disks[0].name
	}
	var names []string
	for _, m := range disks {
		if m.name == name {
			i.Format, i.Member, i.FileBytes = VMDK, name, m.length
			return i.openVMDK(&section{SectionReader: io.NewSectionReader(file, m.from, m.length), file: file}, m.length)
		}
		names = append(names, m.name)
	}
	if len(names) == 0 {
		return fault.New(fault.Invalid, "this is an archive, and there is no .vmdk in it")
	}
	return fault.New(fault.Invalid, "this is an archive of several disks: name one behind a colon: %s:%s", file.Name(), strings.Join(names, ", :"))
}

// members lists the disks of an archive.
func members(file *os.File) ([]member, error) {
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	var disks []member
	archive := tar.NewReader(file)
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return disks, nil
		}
		if err != nil {
			return nil, fault.New(fault.Invalid, "read the archive: %v", err)
		}
		// tar.Reader reads no further than the header, so that the content begins here.
		from, err := file.Seek(0, io.SeekCurrent)
		if err != nil {
			return nil, err
		}
		if h.Typeflag == tar.TypeGNUSparse || h.PAXRecords["GNU.sparse.major"] != "" || h.PAXRecords["GNU.sparse.map"] != "" || h.PAXRecords["GNU.sparse.size"] != "" {
			return nil, fault.New(fault.Unsupported, "%s is in the archive as a sparse file: unpack it with tar, and give the disk", h.Name)
		}
		if h.Typeflag == tar.TypeReg && strings.HasSuffix(strings.ToLower(h.Name), ".vmdk") {
			disks = append(disks, member{h.Name, from, h.Size})
		}
	}
}

// section is a member as a file.
type section struct {
	*io.SectionReader
	file *os.File
}

func (s *section) Close() error { return s.file.Close() }
