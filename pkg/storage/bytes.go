package storage

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Bytes is a size in bytes. Sizes of volumes are never negative.
type Bytes int64

// Binary units.
const (
	KiB Bytes = 1 << 10
	MiB Bytes = 1 << 20
	GiB Bytes = 1 << 30
	TiB Bytes = 1 << 40
)

var units = []struct {
	suffix string
	size   float64
}{
	{"kib", 1 << 10}, {"mib", 1 << 20}, {"gib", 1 << 30}, {"tib", 1 << 40}, {"pib", 1 << 50},
	{"ki", 1 << 10}, {"mi", 1 << 20}, {"gi", 1 << 30}, {"ti", 1 << 40}, {"pi", 1 << 50},
	{"kb", 1e3}, {"mb", 1e6}, {"gb", 1e9}, {"tb", 1e12}, {"pb", 1e15},
	{"k", 1e3}, {"m", 1e6}, {"g", 1e9}, {"t", 1e12}, {"p", 1e15}, {"b", 1},
}

// ParseBytes reads a size such as "4GiB", "1.5TB", "10Gi" (Kubernetes) or a bare
// number of bytes. KiB..PiB and Ki..Pi are binary, kB..PB and k..P decimal, as disks
// are sold. It refuses negative numbers and what does not fit into 63 bits.
func ParseBytes(s string) (Bytes, error) {
	t := strings.ToLower(strings.TrimSpace(s))
	number, scale := t, 1.0
	for _, u := range units {
		if strings.HasSuffix(t, u.suffix) {
			number, scale = strings.TrimSpace(strings.TrimSuffix(t, u.suffix)), u.size
			break
		}
	}
	if n, err := strconv.ParseInt(number, 10, 64); err == nil {
		if n < 0 || n > math.MaxInt64/int64(scale) {
			return 0, fmt.Errorf("size %q is out of range", s)
		}
		return Bytes(n) * Bytes(scale), nil
	}
	f, err := strconv.ParseFloat(number, 64)
	if err != nil || !(f >= 0 && f*scale < math.MaxInt64) {
		return 0, fmt.Errorf("size %q is not a number with a unit such as 4GiB or 1TB", s)
	}
	return Bytes(f * scale), nil
}

// String prints the size in the largest binary unit that keeps it at one or more,
// with at most one decimal: "4 GiB", "1.5 TiB", "512 B".
func (b Bytes) String() string { return b.in(1024, "B", "KiB", "MiB", "GiB", "TiB", "PiB") }

// Decimal prints the size as disks are sold, likewise in decimal units: "4 TB", "1.5 TB", "512 B".
func (b Bytes) Decimal() string { return b.in(1000, "B", "kB", "MB", "GB", "TB", "PB") }

func (b Bytes) in(step float64, names ...string) string {
	v, i := float64(b), 0
	for math.Abs(v) >= step && i < len(names)-1 {
		v, i = v/step, i+1
	}
	text := strconv.FormatFloat(v, 'f', 1, 64)
	return strings.TrimSuffix(text, ".0") + " " + names[i]
}
