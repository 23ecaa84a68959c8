// Package volumeid holds the versioned volume handle and the volume context: what
// identifies a volume and what describes it to a node. Pure; imports fault and storage.
//
// A handle reads hf1.<r|c>.<cluster>.<pool>.<name hash>.<incarnation>, for example
// hf1.r.prod.12.4f1c...(32 hex).b7a0...(32 hex): at most 128 bytes (CSI's limit).
// The incarnation is fresh for every volume, so a late delete of an old volume cannot
// touch a new one of the same name.
package volumeid

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// MaxLength is CSI's limit for a volume id, in bytes.
const MaxLength = 128

// Handle identifies one incarnation of a volume.
type Handle struct {
	Driver      storage.Driver
	Cluster     storage.ClusterID
	Pool        int64   // RBD: the pool's id. CephFS: the file system's id
	NameHash    string  // 32 hex digits, see Hash
	Incarnation string  // 32 hex digits, random
	Foreign     Foreign // of a volume that ceph-csi made, as which it is written; zero for Holdfast's own
}

var (
	hexPattern     = regexp.MustCompile(`^[0-9a-f]{32}$`)
	clusterPattern = regexp.MustCompile(`^[A-Za-z0-9_-]{1,40}$`)
)

// ValidCluster reports whether id can stand in a handle.
func ValidCluster(id storage.ClusterID) bool { return clusterPattern.MatchString(string(id)) }

// Hash returns the key of a CSI name: 128 bits of SHA-256 over kind and name, in hex.
// The kind keeps a volume, a snapshot and a group of one name apart, and the drivers too.
func Hash(driver storage.Driver, kind, name string) string {
	sum := sha256.Sum256([]byte(string(driver) + "\x00" + kind + "\x00" + name))
	return hex.EncodeToString(sum[:16])
}

// BackendName is what the image or subvolume of an incarnation is called.
func BackendName(incarnation string) string { return "hf-" + incarnation }

// TombstoneName is what the image of a deleted volume is called while snapshots of it live.
func TombstoneName(incarnation string) string { return "hf-gone-" + incarnation }

// String encodes the handle.
func (h Handle) String() string {
	if !h.Foreign.IsZero() {
		return h.Foreign.String()
	}
	letter := "r"
	if h.Driver == storage.CephFS {
		letter = "c"
	}
	return fmt.Sprintf("hf1.%s.%s.%d.%s.%s", letter, h.Cluster, h.Pool, h.NameHash, h.Incarnation)
}

// Parse decodes a handle. Anything else is fault.NotFound: a volume id that this
// driver did not hand out names no volume of it. Of ceph-csi's handles, which do not tell
// the driver, see ParseForeign.
func Parse(id string) (Handle, error) {
	bad := func(why string) (Handle, error) {
		return Handle{}, fault.New(fault.NotFound, "volume id %q is not one of Holdfast's: %s", clip(id), why)
	}
	if len(id) > MaxLength {
		return bad("longer than 128 bytes")
	}
	parts := strings.Split(id, ".")
	if len(parts) != 6 || parts[0] != "hf1" {
		return bad("want hf1.<r|c>.<cluster>.<pool>.<name hash>.<incarnation>")
	}
	h := Handle{Cluster: storage.ClusterID(parts[2]), NameHash: parts[4], Incarnation: parts[5]}
	switch parts[1] {
	case "r":
		h.Driver = storage.RBD
	case "c":
		h.Driver = storage.CephFS
	default:
		return bad("unknown driver letter")
	}
	if !ValidCluster(h.Cluster) {
		return bad("the cluster id has characters that are not allowed")
	}
	pool, err := strconv.ParseInt(parts[3], 10, 64)
	if err != nil || pool < 0 || strconv.FormatInt(pool, 10) != parts[3] {
		return bad("the pool is not a number")
	}
	h.Pool = pool
	if !hexPattern.MatchString(h.NameHash) || !hexPattern.MatchString(h.Incarnation) {
		return bad("name hash and incarnation are 32 hex digits each")
	}
	return h, nil
}

func clip(s string) string {
	if len(s) > MaxLength {
		return strings.ToValidUTF8(s[:MaxLength], "") + "..."
	}
	return s
}
