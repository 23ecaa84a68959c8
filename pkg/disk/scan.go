package disk

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/disk/signature"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// DefaultMinSize is what a disk must have to be worth an OSD.
const DefaultMinSize = 5 * storage.GiB

// Config says where and how to look.
type Config struct {
	Root    string        // of the machine: "/", or where a container has the host's
	MinSize storage.Bytes // smaller disks are not free; 0: DefaultMinSize
	FSID    string        // of the own Ceph cluster, "" if there is none
	Asked   []string      // exact paths of loop or ubd devices that count as disks; no other ever does
	Volumes []string      // names of device-mapper volumes that count as disks: those that carry an OSD, or are to
	Images  bool          // below Root/dev may lie files in place of devices: a simulated machine
	Now     func() time.Time
}

// Inventory is what a scan found.
type Inventory struct {
	Generation uint64         `json:"generation"` // grows with every change of Disks
	Scanned    time.Time      `json:"scanned"`    // when the last full scan ended
	Disks      []storage.Disk `json:"disks"`      // the free ones first, then by name
}

// Scanner looks at the block devices of a node. It serves one caller at a time.
type Scanner struct {
	cfg    Config
	prober signature.Prober // with buffers that all disks share
	reader directReader
}

// NewScanner fills in what cfg leaves out.
func NewScanner(cfg Config) *Scanner {
	if cfg.Root == "" {
		cfg.Root = "/"
	}
	if cfg.MinSize == 0 {
		cfg.MinSize = DefaultMinSize
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Scanner{cfg: cfg}
}

// Scan looks at every block device. What is wrong with one disk becomes its reason not to be
// free; the error is for what concerns all of them: then nothing is known to be free.
func (s *Scanner) Scan(ctx context.Context) (Inventory, error) {
	disks, err := s.scan(ctx)
	if err != nil {
		return Inventory{}, err
	}
	return Inventory{Generation: 1, Scanned: s.cfg.Now(), Disks: conclude(disks)}, nil
}

// scan looks at every device by itself.
func (s *Scanner) scan(ctx context.Context) ([]storage.Disk, error) {
	k, err := readKernel(s.cfg.Root)
	if err != nil {
		return nil, err
	}
	names, err := s.names()
	if err != nil {
		return nil, err
	}
	disks := make([]storage.Disk, 0, len(names))
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		disks = append(disks, s.probe(k, name))
	}
	return disks, nil
}

// askAnew has the kernel ask SCSI disks once more for their sizes (drivers/scsi/scsi_sysfs.c, store_rescan_field): it does so by itself only where
// the disk, or the machine that simulates it, says that it has grown. A disk that cannot be asked keeps the size that the kernel knows.
func (s *Scanner) askAnew() error {
	names, err := s.names()
	if err != nil {
		return err
	}
	for _, name := range names {
		if !allowed["sd"].MatchString(name) {
			continue
		}
		if file, err := os.OpenFile(filepath.Join(s.cfg.Root, "sys/block", name, "device/rescan"), os.O_WRONLY, 0); err == nil {
			_, _ = file.WriteString("1")
			_ = file.Close()
		}
	}
	return nil
}

func (s *Scanner) names() ([]string, error) {
	d, err := openDirectory(filepath.Join(s.cfg.Root, "sys/block"))
	if err != nil {
		return nil, fmt.Errorf("list block devices: %w", err)
	}
	defer d.close()
	return d.list(".")
}

// probe looks at one device, by itself.
func (s *Scanner) probe(k kernel, name string) storage.Disk {
	f := s.look(k, name)
	s.read(&f)
	f.Reasons = reasons(f, s.cfg.MinSize, s.cfg.FSID)
	if f.Free() {
		s.tryAlone(&f)
		f.Reasons = reasons(f, s.cfg.MinSize, s.cfg.FSID)
	}
	return f.Disk
}

// asked reports whether the device was asked for by its exact path.
func (s *Scanner) asked(name string) bool {
	for _, path := range s.cfg.Asked {
		if target, err := filepath.EvalSymlinks(filepath.Join(s.cfg.Root, path)); err == nil && target == s.path(name) {
			return true
		}
	}
	return false
}

// conclude adds what only the sight of all disks tells, and sorts: free disks first.
func conclude(disks []storage.Disk) []storage.Disk {
	disks = twins(disks)
	slices.SortFunc(disks, func(a, b storage.Disk) int {
		switch {
		case a.Free() != b.Free():
			if a.Free() {
				return -1
			}
			return 1
		default:
			return compareNames(a.Name, b.Name)
		}
	})
	return disks
}

// compareNames sorts as a person does: sdb before sdaa, nvme2n1 before nvme10n1.
func compareNames(a, b string) int {
	driver := func(name string) string { return name[:min(2, len(name))] }
	return cmp.Or(cmp.Compare(driver(a), driver(b)), cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
}

// twins marks disks that say the same of themselves: paths to one disk, or disks with a
// serial number that a careless vendor gave to many.
func twins(disks []storage.Disk) []storage.Disk {
	names := map[storage.DiskID][]string{}
	for _, d := range disks {
		if d.ID != "" {
			names[d.ID] = append(names[d.ID], d.Name)
		}
	}
	out := slices.Clone(disks)
	for i, d := range out {
		if same := names[d.ID]; len(same) > 1 {
			others := strings.Join(slices.DeleteFunc(slices.Clone(same), func(n string) bool { return n == d.Name }), ", ")
			out[i].Reasons = append(slices.Clone(d.Reasons), storage.Reason{
				Code:    storage.ReasonMultipath,
				Message: fmt.Sprintf("it has the identity of %s: they are paths to one disk, or cannot be told apart", others),
			})
		}
	}
	return out
}
