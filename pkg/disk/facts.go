package disk

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// facts is all that is known of one device before anything is concluded from it.
type facts struct {
	storage.Disk
	driver     string // of the allow-list; "" for all others
	volume     string // the name of a device-mapper volume that counts as a disk; "" for all others
	why        string // why the driver is not on the list
	hidden     bool
	scsiType   string
	zoned      string
	heldBy     []string // holders of it or of a partition, with what they are
	swaps      []string
	busy       string   // who has it, as far as one can tell
	unanswered []string // questions without an answer
}

// allowed are the drivers of real disks, and what they name them.
var allowed = map[string]*regexp.Regexp{
	"sd":      regexp.MustCompile(`^sd[a-z]+$`),
	"virtblk": regexp.MustCompile(`^vd[a-z]+$`),
	"xvd":     regexp.MustCompile(`^xvd[a-z]+$`),
	"mmc":     regexp.MustCompile(`^mmcblk[0-9]+$`), // not its boot areas
	"blkext":  regexp.MustCompile(`^nvme[0-9]+n[0-9]+$`),
	"nvme":    regexp.MustCompile(`^nvme[0-9]+n[0-9]+$`),
}

// look asks the kernel about one device.
func (s *Scanner) look(k kernel, name string) facts {
	f := facts{Disk: storage.Disk{Name: name}}
	path := filepath.Join(s.cfg.Root, "sys/block", name)
	d, err := openDirectory(path)
	if err != nil {
		f.unanswered = append(f.unanswered, err.Error())
		return f
	}
	defer d.close()
	f.Device = f.must(d, "dev")
	f.classify(k, s.asked(name))
	if len(s.cfg.Volumes) > 0 {
		f.classifyVolume(s.cfg.Volumes, f.ask(d, "dm/name"))
	}
	f.Size = storage.Bytes(f.mustNumber(d, "size") * 512) // always of 512 bytes: Documentation/ABI/stable/sysfs-block
	f.LogicalSector, f.PhysicalSector = int(f.mustNumber(d, "queue/logical_block_size")), int(f.mustNumber(d, "queue/physical_block_size"))
	f.Rotational, f.ReadOnly, f.Removable = f.mustNumber(d, "queue/rotational") != 0, f.mustNumber(d, "ro") != 0, f.mustNumber(d, "removable") != 0
	f.hidden, f.zoned = f.ask(d, "hidden") == "1", f.ask(d, "queue/zoned")
	if place, err := os.Readlink(path); err == nil {
		f.Bus = busOf(place)
	}
	f.identify(d)
	f.use(s.cfg.Root, d, k)
	f.ByID = slices.Sorted(slices.Values(k.links[name]))
	return f
}

// classify decides whether the driver is one of real disks. asked is a device that was
// asked for by its exact path.
func (f *facts) classify(k kernel, asked bool) {
	var major, minor uint32
	if n, err := fmt.Sscanf(f.Device, "%d:%d", &major, &minor); n != 2 || err != nil {
		f.why = "its device number is unknown"
		return
	}
	driver := k.drivers[major]
	pattern := allowed[driver]
	switch {
	case pattern != nil && pattern.MatchString(f.Name):
		f.driver = driver
	case asked && (driver == "loop" || driver == "ubd"):
		f.driver = driver
	case driver == "":
		f.why = fmt.Sprintf("no driver is known for major number %d", major)
	default:
		f.why = fmt.Sprintf("a device of the driver %q is no disk of this machine", driver)
	}
}

// classifyVolume takes a device-mapper volume for a disk whose name is among those that count as such.
func (f *facts) classifyVolume(volumes []string, name string) {
	if name != "" && slices.Contains(volumes, name) {
		f.driver, f.volume, f.why = "device-mapper", name, ""
	}
}

func (f *facts) must(d *directory, name string) string {
	text, err := d.text(name)
	if err != nil {
		f.unanswered = append(f.unanswered, err.Error())
	}
	return text
}

func (f *facts) mustNumber(d *directory, name string) int64 {
	n, err := d.number(name)
	if err != nil {
		f.unanswered = append(f.unanswered, err.Error())
	}
	return n
}

// mustList lists a directory that every block device has.
func (f *facts) mustList(d *directory, name string) []string {
	names, err := d.list(name)
	if err != nil {
		f.unanswered = append(f.unanswered, err.Error())
	}
	slices.Sort(names)
	return names
}

// use finds who uses the device and its partitions.
func (f *facts) use(root string, d *directory, k kernel) {
	f.Slaves = f.mustList(d, "slaves")
	f.usedBy(root, f.mustList(d, "holders"))
	f.inUse(k, f.Name, f.Device)
	for _, entry := range f.mustList(d, ".") {
		if !strings.HasPrefix(entry, f.Name) {
			continue
		}
		if _, err := d.optional(entry + "/partition"); err != nil {
			f.unanswered = append(f.unanswered, err.Error())
		}
		f.Partitions = append(f.Partitions, storage.Partition{
			Name: entry, Start: storage.Bytes(f.mustNumber(d, entry+"/start") * 512), Size: storage.Bytes(f.mustNumber(d, entry+"/size") * 512),
		})
		f.usedBy(root, f.mustList(d, entry+"/holders"))
		f.inUse(k, entry, f.must(d, entry+"/dev"))
	}
}

func (f *facts) inUse(k kernel, name, device string) {
	for _, key := range []string{device, name} {
		for _, point := range k.mounts[key] {
			if !slices.Contains(f.Mounts, point) {
				f.Mounts = append(f.Mounts, point)
			}
		}
	}
	if k.swaps[name] {
		f.swaps = append(f.swaps, name)
	}
}

func (f *facts) usedBy(root string, holders []string) {
	for _, name := range holders {
		f.Holders = append(f.Holders, name)
		f.heldBy = append(f.heldBy, describeHolder(root, name))
	}
}

// describeHolder names a device-mapper or md device as its user knows it.
func describeHolder(root, name string) string {
	read := func(file string) string {
		data, _ := os.ReadFile(filepath.Join(root, "sys/block", name, file))
		return strings.TrimSpace(string(data))
	}
	if dm := read("dm/name"); dm != "" {
		kind, _, _ := strings.Cut(read("dm/uuid"), "-") // "LVM-...", "CRYPT-LUKS2-...", "mpath-..."
		return fmt.Sprintf("%s (%s)", name, strings.TrimSpace(kind+" "+dm))
	}
	if level := read("md/level"); level != "" {
		return fmt.Sprintf("%s (%s)", name, level)
	}
	return name
}
