// Package clustermap reads the map from cluster id to monitors, in the form of
// ceph-csi's config.json, and follows changes of the file. It also finds the
// credentials that a service keeps for calls which carry no secrets
// (DIR/<clusterID>/userID and userKey, the layout of a mounted Kubernetes Secret).
package clustermap

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-storage/holdfast/csi/journal"
	"github.com/holdfast-storage/holdfast/csi/kms"
	"github.com/holdfast-storage/holdfast/csi/volumeid"
	"github.com/holdfast-storage/holdfast/pkg/ceph"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// DefaultSubvolumeGroup is where CephFS volumes live when the map names no group.
const DefaultSubvolumeGroup = "csi"

// Cluster is one entry of the map.
type Cluster struct {
	ID             storage.ClusterID
	Monitors       []string
	RadosNamespace string // for RBD images; empty: the pool's default namespace
	SubvolumeGroup string // for CephFS subvolumes; never empty
	CephCSI        CephCSI
}

// CephCSI says how ceph-csi knows the cluster, for volumes that it made.
type CephCSI struct {
	Aliases   []string // its clusterIDs, where they are not ours
	Instance  string   // its --instanceid; never empty
	Namespace string   // of CephFS's journal in the metadata pool; never empty
}

// Endpoint returns how the cluster is reached.
func (c Cluster) Endpoint() ceph.Endpoint {
	return ceph.Endpoint{ID: c.ID, Monitors: c.Monitors}
}

// CephCSIName is what handles of ceph-csi's call the cluster: the first of the names that it is said to have.
func (c Cluster) CephCSIName() string {
	if len(c.CephCSI.Aliases) > 0 {
		return c.CephCSI.Aliases[0]
	}
	return string(c.ID)
}

// Site is a cluster of the map with a connection to it.
type Site struct {
	Cluster ceph.Cluster
	Entry   Cluster
	Keys    kms.Keyring // what the call can wrap volumes' keys by
}

type entry struct {
	ClusterID string   `json:"clusterID"`
	Monitors  []string `json:"monitors"`
	RBD       struct {
		RadosNamespace string `json:"radosNamespace"`
	} `json:"rbd"`
	CephFS struct {
		SubvolumeGroup string `json:"subvolumeGroup"`
		RadosNamespace string `json:"radosNamespace"`
	} `json:"cephFS"`
	CephCSI struct {
		ClusterIDs []string `json:"clusterIDs"`
		InstanceID string   `json:"instanceID"`
	} `json:"cephCSI"` // Holdfast's own
	RadosNamespace string `json:"radosNamespace"` // where older files have it
}

// Parse reads a config.json. Fields of ceph-csi that Holdfast has no use for
// (netNamespaceFilePath, mirror daemons, read affinity) are passed over.
func Parse(data []byte) ([]Cluster, error) {
	var entries []entry
	if err := json.Unmarshal(data, &entries); err != nil {
		return nil, fault.New(fault.Invalid, "cluster map is not a JSON list of clusters: %w", err)
	}
	var clusters []Cluster
	seen := map[string]bool{}
	for i, e := range entries {
		switch {
		case !volumeid.ValidCluster(storage.ClusterID(e.ClusterID)):
			return nil, fault.New(fault.Invalid, "cluster map entry %d: clusterID %q: want 1 to 40 letters, digits, '-' or '_'", i+1, e.ClusterID)
		case seen[e.ClusterID]:
			return nil, fault.New(fault.Invalid, "cluster map entry %d: clusterID %q stands there twice", i+1, e.ClusterID)
		case len(e.Monitors) == 0:
			return nil, fault.New(fault.Invalid, "cluster map: cluster %q has no monitors", e.ClusterID)
		}
		seen[e.ClusterID] = true
		c := Cluster{
			ID: storage.ClusterID(e.ClusterID), Monitors: e.Monitors,
			RadosNamespace: e.RBD.RadosNamespace, SubvolumeGroup: e.CephFS.SubvolumeGroup,
			CephCSI: CephCSI{
				Aliases:   e.CephCSI.ClusterIDs,
				Instance:  cmp.Or(e.CephCSI.InstanceID, journal.DefaultInstance),
				Namespace: cmp.Or(e.CephFS.RadosNamespace, journal.DefaultNamespace),
			},
		}
		if c.RadosNamespace == "" {
			c.RadosNamespace = e.RadosNamespace
		}
		if c.SubvolumeGroup == "" {
			c.SubvolumeGroup = DefaultSubvolumeGroup
		}
		clusters = append(clusters, c)
	}
	return clusters, checkAliases(clusters, seen)
}

// checkAliases refuses names of ceph-csi's that could mean two clusters.
func checkAliases(clusters []Cluster, seen map[string]bool) error {
	for _, c := range clusters {
		for _, alias := range c.CephCSI.Aliases {
			switch {
			case !volumeid.ValidAlias(alias):
				return fault.New(fault.Invalid, "cluster map: cluster %q: cephCSI.clusterIDs has %q: want 1 to 64 letters, digits, '.', '-' or '_'", c.ID, alias)
			case seen[alias]:
				return fault.New(fault.Invalid, "cluster map: cluster %q: cephCSI.clusterIDs has %q, which is in the map already", c.ID, alias)
			}
			seen[alias] = true
		}
	}
	return nil
}

// Map is the cluster map of a file, read again when the file changes.
type Map struct {
	path           string
	credentialsDir string

	mu       sync.Mutex
	modified time.Time
	size     int64
	clusters map[storage.ClusterID]Cluster
	err      error
}

// Open reads the map at path. credentialsDir may be empty.
func Open(path, credentialsDir string) (*Map, error) {
	m := &Map{path: path, credentialsDir: credentialsDir}
	if _, err := m.current(); err != nil {
		return nil, err
	}
	return m, nil
}

// current returns the clusters of the file as it is now. A file that became
// unreadable leaves the last good map in force, so that an edit in progress stops nobody.
func (m *Map) current() (map[storage.ClusterID]Cluster, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	info, err := os.Stat(m.path) // follows the symlinks that Kubernetes swaps
	if err == nil && m.clusters != nil && info.ModTime().Equal(m.modified) && info.Size() == m.size {
		m.err = nil
		return m.clusters, nil
	}
	clusters, err := load(m.path)
	if err != nil {
		if m.clusters != nil {
			m.err = err
			return m.clusters, nil
		}
		return nil, err
	}
	m.clusters, m.err = clusters, nil
	if info != nil {
		m.modified, m.size = info.ModTime(), info.Size()
	}
	return clusters, nil
}

func load(path string) (map[storage.ClusterID]Cluster, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read cluster map: %w", err)
	}
	list, err := Parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	clusters := make(map[storage.ClusterID]Cluster, len(list))
	for _, c := range list {
		clusters[c.ID] = c
	}
	return clusters, nil
}

// Err returns why the file could not be read the last time, nil when it could.
func (m *Map) Err() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.err
}

// Cluster returns the entry of id, which may be a name that ceph-csi has for it, or fault.Invalid naming
// the ids that there are.
func (m *Map) Cluster(id storage.ClusterID) (Cluster, error) {
	clusters, err := m.current()
	if err != nil {
		return Cluster{}, err
	}
	if c, ok := clusters[id]; ok {
		return c, nil
	}
	for _, c := range clusters {
		if slices.Contains(c.CephCSI.Aliases, string(id)) {
			return c, nil
		}
	}
	return Cluster{}, fault.New(fault.Invalid, "clusterID %q is not in the cluster map, which has %s", id, names(clusters))
}

// Clusters returns all entries, sorted by id.
func (m *Map) Clusters() ([]Cluster, error) {
	clusters, err := m.current()
	if err != nil {
		return nil, err
	}
	list := make([]Cluster, 0, len(clusters))
	for _, c := range clusters {
		list = append(list, c)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].ID < list[j].ID })
	return list, nil
}

func names(clusters map[storage.ClusterID]Cluster) string {
	if len(clusters) == 0 {
		return "no clusters"
	}
	var ids []string
	for id := range clusters {
		ids = append(ids, string(id))
	}
	sort.Strings(ids)
	return strings.Join(ids, ", ")
}

// Credentials returns the service's own credentials for a cluster, or fault.Denied
// saying where they are looked for: DIR/<clusterID>/userID and userKey, or
// DIR/<clusterID>.userID and <clusterID>.userKey, since the keys of one Kubernetes Secret
// for all clusters cannot hold a slash.
func (m *Map) Credentials(id storage.ClusterID) (ceph.Credentials, error) {
	if m.credentialsDir == "" {
		return ceph.Credentials{}, fault.New(fault.Denied, "the call carries no secrets and the service has no --credentials-dir")
	}
	prefix := filepath.Join(m.credentialsDir, string(id))
	separator := "/"
	user, err := os.ReadFile(prefix + separator + "userID")
	if errors.Is(err, fs.ErrNotExist) {
		separator = "."
		user, err = os.ReadFile(prefix + separator + "userID")
	}
	if err == nil {
		var key []byte
		if key, err = os.ReadFile(prefix + separator + "userKey"); err == nil {
			return ceph.Credentials{
				User: strings.TrimSpace(string(user)),
				Key:  storage.NewSecret(strings.TrimSpace(string(key))),
			}, nil
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return ceph.Credentials{}, fault.New(fault.Denied, "the call carries no secrets and %s holds no userID and userKey for cluster %s", m.credentialsDir, id)
	}
	return ceph.Credentials{}, fmt.Errorf("read credentials of cluster %s: %w", id, err)
}
