package volumeid

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Foreign is a handle that ceph-csi gave out, of a volume or a snapshot. It tells neither of the two
// nor the driver: whoever it is given to knows. Its form (ceph-csi: internal/util/volid.go) is
// 0001-<length of the cluster id, 4 hex digits>-<cluster id>-<location, 16 hex digits>-<UUID>.
// The zero value is no such handle.
type Foreign struct {
	Cluster  string // ceph-csi's clusterID: an alias in the cluster map, or the same as ours
	Location int64  // RBD: the id of the image's pool. CephFS: the file system's id
	UUID     string // the journal's name of it
}

const (
	foreignPrefix = "0001-"
	// foreignFixed is the length of a handle without its cluster id (ceph-csi: knownFieldSize).
	foreignFixed = 64
)

var (
	foreignCluster = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)
	foreignTail    = regexp.MustCompile(`^-([0-9a-f]{16})-([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})$`)
	uuidPattern    = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)
)

// ValidAlias reports whether id can be the cluster id of a foreign handle: 1 to 64 letters, digits,
// '.', '-' or '_'. ceph-csi takes other characters, too; nobody is known to use them.
func ValidAlias(id string) bool { return foreignCluster.MatchString(id) }

// ValidUUID reports whether text is a UUID as the journal writes it, in lower case.
func ValidUUID(text string) bool { return uuidPattern.MatchString(text) }

// String encodes the handle.
func (f Foreign) String() string {
	return fmt.Sprintf("%s%04x-%s-%016x-%s", foreignPrefix, len(f.Cluster), f.Cluster, f.Location, f.UUID)
}

// IsZero reports whether there is none.
func (f Foreign) IsZero() bool { return f == Foreign{} }

// key is what the record of it goes by: the cluster id, of which there may be several for one
// cluster, is not part of it.
func (f Foreign) key(driver storage.Driver) string {
	return Hash(driver, "ceph-csi", fmt.Sprintf("%016x/%s", f.Location, f.UUID))
}

// ParseForeign decodes a handle of ceph-csi's; anything else is fault.NotFound.
func ParseForeign(id string) (Foreign, error) {
	bad := func(why string) (Foreign, error) {
		return Foreign{}, fault.New(fault.NotFound, "volume id %q is not one of ceph-csi's: %s", clip(id), why)
	}
	rest, ok := strings.CutPrefix(id, foreignPrefix)
	if !ok || len(id) > MaxLength || len(id) <= foreignFixed || rest[4] != '-' {
		return bad("want 0001-<length>-<cluster>-<location>-<UUID>")
	}
	length, err := strconv.ParseUint(rest[:4], 16, 16)
	if err != nil || int(length) != len(id)-foreignFixed || rest[:4] != fmt.Sprintf("%04x", length) {
		return bad("the length of the cluster id is not what it says")
	}
	cluster, tail := rest[5:5+length], rest[5+length:]
	if !ValidAlias(cluster) {
		return bad("the cluster id has characters that are not allowed")
	}
	parts := foreignTail.FindStringSubmatch(tail)
	if parts == nil {
		return bad("location or UUID are not well formed")
	}
	location, err := strconv.ParseInt(parts[1], 16, 64)
	if err != nil {
		return bad("the location is no id")
	}
	return Foreign{Cluster: cluster, Location: location, UUID: parts[2]}, nil
}

// Handle is the foreign handle as one of ours: with the driver that it was given to, and the id that
// the cluster map has for its cluster.
func (f Foreign) Handle(driver storage.Driver, cluster storage.ClusterID) Handle {
	return Handle{
		Driver: driver, Cluster: cluster, Pool: f.Location, NameHash: f.key(driver),
		Incarnation: strings.ReplaceAll(f.UUID, "-", ""), Foreign: f,
	}
}
