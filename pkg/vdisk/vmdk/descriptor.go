package vmdk

import (
	"bufio"
	"bytes"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/text/encoding/htmlindex"

	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// maxDescriptor bounds the text, in bytes. Real ones have less than a thousand.
const maxDescriptor = 1 << 20

// noParent is parentCID of a disk without one.
const noParent = 0xffffffff

// Extent is a line of the descriptor: a stretch of the disk and the file that holds it.
type Extent struct {
	Access  string `json:"access"` // RW, RDONLY, NOACCESS
	Sectors int64  `json:"sectors"`
	Type    string `json:"type"`             // FLAT, SPARSE, ZERO, VMFS, VMFSSPARSE
	File    string `json:"file,omitempty"`   // name as it is on this machine
	Offset  int64  `json:"offset,omitempty"` // sectors into the file, of FLAT
}

// Descriptor is the text that describes a disk (VMware: Virtual Disk Format 5.0, "The Descriptor File").
type Descriptor struct {
	CID, ParentCID uint32
	CreateType     string
	ParentHint     string // where the parent was when the disk was made
	Extents        []Extent
	Settings       map[string]string // ddb.*

	text []byte
}

// HasParent reports whether the disk's holes show another disk.
func (d *Descriptor) HasParent() bool { return d.ParentCID != noParent }

// extentLine is: access, size in sectors, type, and of what has one a file in quotes and an offset. A name may
// hold blanks.
var extentLine = regexp.MustCompile(`^(RW|RDONLY|NOACCESS)\s+(\d+)\s+([A-Z0-9]+)(?:\s+"([^"]*)"(?:\s+(\d+))?)?(?:\s.*)?$`)

// parseDescriptor reads the text, which zeros may follow. Errors name the line.
func parseDescriptor(text []byte) (*Descriptor, error) {
	if end := bytes.IndexByte(text, 0); end >= 0 {
		text = text[:end]
	}
	if len(text) > maxDescriptor {
		return nil, fault.New(fault.Invalid, "the descriptor has %d bytes, and at most %d are known", len(text), maxDescriptor)
	}
	d := &Descriptor{ParentCID: noParent, Settings: map[string]string{}, text: bytes.Clone(text)}
	charset := ""
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, maxDescriptor)
	for number := 1; lines.Scan(); number++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if err := d.line(line, &charset); err != nil {
			return nil, fmt.Errorf("line %d of the descriptor: %w", number, err)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fault.New(fault.Invalid, "read the descriptor: %v", err)
	}
	if d.CreateType == "" || len(d.Extents) == 0 {
		return nil, fault.New(fault.Invalid, "the descriptor has no createType or no extent: it was cut off, or is none")
	}
	return d, d.decode(charset)
}

func (d *Descriptor) line(line string, charset *string) error {
	if match := extentLine.FindStringSubmatch(line); match != nil {
		return d.extent(match)
	}
	key, value, found := strings.Cut(line, "=")
	if !found {
		return fault.New(fault.Invalid, "%q is neither an extent nor a setting", line)
	}
	key, value = strings.TrimSpace(key), strings.Trim(strings.TrimSpace(value), `"`)
	var err error
	switch {
	case strings.EqualFold(key, "CID"):
		d.CID, err = parseCID(value)
	case strings.EqualFold(key, "parentCID"):
		d.ParentCID, err = parseCID(value)
	case strings.EqualFold(key, "createType"):
		d.CreateType = value
	case strings.EqualFold(key, "parentFileNameHint"):
		d.ParentHint = value
	case strings.EqualFold(key, "encoding"):
		*charset = value
	case strings.EqualFold(key, "version"):
		if value != "1" && value != "2" && value != "3" && value != "4" {
			err = fault.New(fault.Unsupported, "version %q is not known", value)
		}
	case strings.HasPrefix(strings.ToLower(key), "ddb."):
		d.Settings[key] = value
	}
	return err
}

func parseCID(value string) (uint32, error) {
	n, err := strconv.ParseUint(value, 16, 32)
	if err != nil {
		return 0, fault.New(fault.Invalid, "content id %q is not a hexadecimal number of 32 bits", value)
	}
	return uint32(n), nil
}

func (d *Descriptor) extent(match []string) error {
	e := Extent{Access: match[1], Type: match[3], File: match[4]}
	var err error
	if e.Sectors, err = sectors(match[2]); err != nil {
		return err
	}
	if e.Sectors == 0 {
		return fault.New(fault.Invalid, "the extent has no sectors")
	}
	if match[5] != "" {
		if e.Offset, err = sectors(match[5]); err != nil {
			return err
		}
	}
	if e.Type != "ZERO" && e.File == "" {
		return fault.New(fault.Invalid, "the extent of type %s names no file", e.Type)
	}
	if len(d.Extents) >= maxExtents {
		return fault.New(fault.Invalid, "there are more than %d extents", maxExtents)
	}
	d.Extents = append(d.Extents, e)
	return nil
}

// maxExtents bounds the files that are opened: 2 TiB by 2 GiB, twice.
const maxExtents = 2048

// maxSectors keeps all byte offsets in 63 bits, and sums of extents, too.
const maxSectors = 1 << 50

func sectors(text string) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n > maxSectors {
		return 0, fault.New(fault.Invalid, "%s sectors are more than %d", text, int64(maxSectors))
	}
	return n, nil
}

// decode brings file names to UTF-8: VMware writes them in the character set of the machine, which it names (of a
// Korean Windows "x-windows-949").
func (d *Descriptor) decode(charset string) error {
	if charset == "" || strings.EqualFold(charset, "utf-8") {
		return nil
	}
	known, err := htmlindex.Get(strings.TrimPrefix(strings.ToLower(charset), "x-"))
	if err != nil {
		return nil //nolint:nilerr // names of plain letters are the same in all of them
	}
	decoder := known.NewDecoder()
	for n := range d.Extents {
		if d.Extents[n].File, err = decoder.String(d.Extents[n].File); err != nil {
			return fault.New(fault.Invalid, "file name of extent %d is not in the encoding %s: %v", n+1, charset, err)
		}
	}
	if d.ParentHint, err = decoder.String(d.ParentHint); err != nil {
		return fault.New(fault.Invalid, "parentFileNameHint is not in the encoding %s: %v", charset, err)
	}
	return nil
}

// describe is the descriptor of a new disk of one extent. The geometry is the one that VMware gives to disks of more
// than a few GiB: 255 heads and 63 sectors.
func describe(createType, extentType, file string, size int64, cid uint32) []byte {
	var b bytes.Buffer
	total := size / SectorSize
	fmt.Fprintf(&b, "# Disk DescriptorFile\nversion=1\nencoding=\"UTF-8\"\nCID=%08x\nparentCID=ffffffff\ncreateType=%q\n\n", cid, createType)
	fmt.Fprintf(&b, "# Extent description\nRW %d %s \"%s\"\n\n", total, extentType, file)
	fmt.Fprintf(&b, "# The Disk Data Base\n#DDB\n\nddb.virtualHWVersion = \"4\"\nddb.geometry.cylinders = \"%d\"\nddb.geometry.heads = \"255\"\n"+
		"ddb.geometry.sectors = \"63\"\nddb.adapterType = \"lsilogic\"\n", min(max(total/(255*63), 1), 65535))
	return b.Bytes()
}

// Resized is the text with another size, in bytes, of its only extent.
func (d *Descriptor) Resized(size int64) []byte {
	lines := strings.Split(string(d.text), "\n")
	for n, line := range lines {
		if match := extentLine.FindStringSubmatchIndex(strings.TrimSpace(line)); match != nil {
			lead := strings.Index(line, strings.TrimSpace(line))
			lines[n] = line[:lead+match[4]] + strconv.FormatInt(size/SectorSize, 10) + line[lead+match[5]:]
		}
	}
	return []byte(strings.Join(lines, "\n"))
}
