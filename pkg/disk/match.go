package disk

import (
	"cmp"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Match selects disks by what they are, never by a device name.
type Match struct {
	smallest, largest storage.Bytes
	patterns          map[string]string // by key, lower case, as path.Match has them
	rotational        *bool
	Count             int // how many are wanted; 0: all that match
}

// matchKeys are the properties that patterns are compared with.
var matchKeys = map[string]func(storage.Disk) []string{
	"model":  func(d storage.Disk) []string { return []string{d.Model} },
	"vendor": func(d storage.Disk) []string { return []string{d.Vendor} },
	"serial": func(d storage.Disk) []string { return []string{d.Serial} },
	"wwn":    func(d storage.Disk) []string { return []string{d.WWN} },
	"id":     func(d storage.Disk) []string { return []string{string(d.ID)} },
	"by-id":  func(d storage.Disk) []string { return d.ByID },
	"bus":    func(d storage.Disk) []string { return []string{d.Bus} },
}

const matchHelp = "want size=4TB..10TB, model=, vendor=, serial=, wwn=, id=, by-id=, bus=, rotational=true|false or count=N"

// ParseMatch reads "size=4TB..10TB,model=WDC*,rotational=false,count=2". Words are compared
// without regard to case; '*' and '?' stand for any characters and any one. A size alone
// means that size give or take two percent, as disks of one class differ.
func ParseMatch(text string) (Match, error) {
	m := Match{patterns: map[string]string{}}
	seen := map[string]bool{}
	for _, term := range strings.Split(text, ",") {
		key, value, ok := strings.Cut(term, "=")
		key, value = strings.ToLower(strings.TrimSpace(key)), strings.TrimSpace(value)
		switch {
		case !ok || value == "":
			return m, fault.New(fault.Invalid, "%q is no selection: %s", term, matchHelp)
		case seen[key]:
			return m, fault.New(fault.Invalid, "%s= is there twice", key)
		}
		seen[key] = true
		if err := m.set(key, value); err != nil {
			return m, err
		}
	}
	return m, nil
}

func (m *Match) set(key, value string) (err error) {
	switch key {
	case "size":
		m.smallest, m.largest, err = parseSizes(value)
		return err
	case "rotational":
		is, err := strconv.ParseBool(value)
		if err != nil {
			return fault.New(fault.Invalid, "rotational=%s: want true or false", value)
		}
		m.rotational = &is
		return nil
	case "count":
		if m.Count, err = strconv.Atoi(value); err != nil || m.Count < 1 {
			return fault.New(fault.Invalid, "count=%s: want a number from 1", value)
		}
		return nil
	case "name", "dev", "device", "path":
		return fault.New(fault.Invalid, "%s=%s: a device name may belong to another disk after the next boot; select by what the disk is: %s", key, value, matchHelp)
	}
	if matchKeys[key] == nil {
		return fault.New(fault.Invalid, "%q is no property of a disk: %s", key, matchHelp)
	}
	value = strings.TrimPrefix(value, "/dev/disk/by-id/")
	if strings.HasPrefix(value, "/dev/") {
		return fault.New(fault.Invalid, "%s=%s: a device name may belong to another disk after the next boot; want a name below /dev/disk/by-id", key, value)
	}
	value = strings.ToLower(value)
	if _, err := path.Match(value, ""); err != nil {
		return fault.New(fault.Invalid, "%s=%s: %w", key, value, err)
	}
	m.patterns[key] = value
	return nil
}

// parseSizes reads "4TB..10TB", "4TB..", "..10TB" or "4TB".
func parseSizes(text string) (smallest, largest storage.Bytes, err error) {
	low, high, isRange := strings.Cut(text, "..")
	largest = 1<<63 - 1
	if low != "" {
		if smallest, err = storage.ParseBytes(low); err != nil {
			return 0, 0, fault.New(fault.Invalid, "size=%s: %w", text, err)
		}
	}
	if high != "" {
		if largest, err = storage.ParseBytes(high); err != nil {
			return 0, 0, fault.New(fault.Invalid, "size=%s: %w", text, err)
		}
	}
	switch {
	case !isRange:
		return smallest - smallest/50, smallest + smallest/50, nil
	case low == "" && high == "":
		return 0, 0, fault.New(fault.Invalid, "size=%s: a range has at least one end", text)
	case smallest > largest:
		return 0, 0, fault.New(fault.Invalid, "size=%s: the first end is above the second", text)
	}
	return smallest, largest, nil
}

// Fits reports whether the disk is as the selection says, free or not.
func (m Match) Fits(d storage.Disk) bool {
	if m.largest > 0 && (d.Size < m.smallest || d.Size > m.largest) || m.rotational != nil && d.Rotational != *m.rotational {
		return false
	}
	for key, pattern := range m.patterns {
		if !slices.ContainsFunc(matchKeys[key](d), func(value string) bool {
			ok, _ := path.Match(pattern, strings.ToLower(value))
			return ok
		}) {
			return false
		}
	}
	return true
}

// Selection is what a Match would take; it takes nothing.
type Selection struct {
	Selected []storage.Disk `json:"selected"`
	Refused  []storage.Disk `json:"refused,omitempty"` // they match and are not free
}

// Select picks free disks that match: the smallest first, then by identity, so that the same
// disks give the same selection whatever their names are. With a count, fewer than that are
// an error.
func (m Match) Select(disks []storage.Disk) (Selection, error) {
	s := Selection{Selected: []storage.Disk{}}
	for _, d := range disks {
		switch {
		case !m.Fits(d):
		case d.Free():
			s.Selected = append(s.Selected, d)
		default:
			s.Refused = append(s.Refused, d)
		}
	}
	slices.SortFunc(s.Selected, func(a, b storage.Disk) int {
		return cmp.Or(cmp.Compare(a.Size, b.Size), cmp.Compare(a.ID, b.ID))
	})
	if len(s.Selected) < m.Count {
		return s, fault.New(fault.Precondition, "%d free disks match, and %d are wanted; %d more match and are not free", len(s.Selected), m.Count, len(s.Refused))
	}
	if m.Count > 0 {
		s.Selected = s.Selected[:m.Count]
	}
	return s, nil
}
