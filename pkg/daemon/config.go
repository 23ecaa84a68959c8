package daemon

import (
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// Config is what the daemons of one cluster are configured by.
type Config struct {
	FSID     string
	Paths    Paths
	Address  string // the IP that all daemons listen on
	Monitors []Monitor
	PortLow  int // first and last port of what is not a monitor
	PortHigh int
	OSDs     int
	OSDSize  storage.Bytes // of an OSD in a file
	NodeName string        // the host in CRUSH
}

// Monitor is a monitor's place on the network: one port for messenger v2, one for v1,
// which kernels before 5.11 speak.
type Monitor struct {
	Ref    Ref
	V2, V1 int
}

// Addresses returns the monitor's addresses as ceph.conf and monmaptool write them.
func (c Config) Addresses(m Monitor) string {
	return fmt.Sprintf("[v2:%s,v1:%s]", hostPort(c.Address, m.V2), hostPort(c.Address, m.V1))
}

func hostPort(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }

// MonitorAddresses returns both addresses of every monitor, each under its protocol: on
// a port of its own choice a client cannot tell v1 from v2, and trying the wrong one
// costs it seconds.
func (c Config) MonitorAddresses() []string {
	var list []string
	for _, m := range c.Monitors {
		list = append(list, c.Addresses(m))
	}
	return list
}

// MaxReplicas is the number of copies that a pool gets when there are OSDs for it.
const MaxReplicas = 3

// Replicas returns the pools' size: three copies, fewer when there are fewer OSDs.
func (c Config) Replicas() int { return min(MaxReplicas, c.OSDs) }

// MinReplicas returns how many copies must be up for writes to go on: a majority, as
// Ceph's own default (size - size/2). With one, the last copy would take writes that
// no other copy has.
func (c Config) MinReplicas() int { return c.Replicas() - c.Replicas()/2 }

// CephConf renders ceph.conf.
func (c Config) CephConf() string {
	var hosts, ids []string
	for _, m := range c.Monitors {
		hosts = append(hosts, c.Addresses(m))
		ids = append(ids, m.Ref.ID)
	}
	return strings.NewReplacer(
		"{fsid}", c.FSID,
		"{dir}", c.Paths.Dir,
		"{hosts}", strings.Join(hosts, ","),
		"{ids}", strings.Join(ids, ","),
		"{addr}", c.Address,
		"{low}", strconv.Itoa(c.PortLow),
		"{high}", strconv.Itoa(c.PortHigh),
		"{size}", strconv.Itoa(c.Replicas()),
		"{minsize}", strconv.Itoa(c.MinReplicas()),
		"{sizeone}", strconv.FormatBool(c.OSDs == 1),
		"{osdbytes}", strconv.FormatInt(int64(c.OSDSize), 10),
		"{node}", c.NodeName,
	).Replace(confTemplate)
}
