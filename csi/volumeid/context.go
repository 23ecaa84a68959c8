package volumeid

import (
	"fmt"
	"sort"
	"strings"

	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// Context is what the controller tells the node about a volume: CSI's volume_context,
// kept in the PersistentVolume and handed to every node call. It holds no secrets.
// Values are as the StorageClass gave them; the controller has validated them.
type Context struct {
	ClusterID string
	Name      string // the CSI name, for people

	// RBD
	Pool           string
	RadosNamespace string
	Image          string
	MapOptions     string // krbd map options, comma separated
	UnmapOptions   string
	MkfsOptions    string
	Encrypted      string // "true": the image holds a LUKS2 volume, its wrapped key is in the image's metadata
	FsType         string // the file system to make; empty: the node chooses

	// CephFS
	Filesystem         string
	SubvolumePath      string
	KernelMountOptions string
	FuseMountOptions   string
	ReadOnly           string // "true": a snapshot is shown, which nothing can be written to

	// Both
	Mounter string // "", "auto", "krbd", "fuse-loop" (rbd); "", "auto", "kernel", "fuse" (cephfs)
}

func (c *Context) fields() map[string]*string {
	return map[string]*string{
		"clusterID": &c.ClusterID, "name": &c.Name, "pool": &c.Pool, "radosNamespace": &c.RadosNamespace,
		"image": &c.Image, "mapOptions": &c.MapOptions, "unmapOptions": &c.UnmapOptions,
		"mkfsOptions": &c.MkfsOptions, "fsType": &c.FsType, "fsName": &c.Filesystem,
		"subvolumePath": &c.SubvolumePath, "kernelMountOptions": &c.KernelMountOptions,
		"fuseMountOptions": &c.FuseMountOptions, "mounter": &c.Mounter,
		"readOnly": &c.ReadOnly, "encrypted": &c.Encrypted,
	}
}

// Map encodes c for CSI; empty fields are left out.
func (c *Context) Map() map[string]string {
	m := map[string]string{}
	for key, value := range c.fields() {
		if *value != "" {
			m[key] = *value
		}
	}
	return m
}

// ParseContext reads a volume_context. Keys with a "csi.storage.k8s.io/" or
// "storage.kubernetes.io/" prefix (Kubernetes adds some) are passed over, any other
// unknown key is fault.Invalid: it would be an option that is not applied.
func ParseContext(m map[string]string) (Context, error) {
	var c Context
	fields := c.fields()
	var unknown []string
	for key, value := range m {
		if field, ok := fields[key]; ok {
			*field = value
		} else if !strings.HasPrefix(key, "csi.storage.k8s.io/") && !strings.HasPrefix(key, "storage.kubernetes.io/") {
			unknown = append(unknown, fmt.Sprintf("%q", key))
		}
	}
	if len(unknown) > 0 {
		sort.Strings(unknown)
		return Context{}, fault.New(fault.Invalid, "volume context has unknown keys %s: the volume was made by a newer Holdfast or edited by hand", strings.Join(unknown, ", "))
	}
	return c, nil
}
