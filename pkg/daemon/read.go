package daemon

import (
	"fmt"
	"os"
	"regexp"

	"github.com/holdfast-storage/holdfast/pkg/fault"
)

var (
	fsidLine = regexp.MustCompile(`(?m)^\s*fsid\s*=\s*([0-9a-f-]{36})\s*$`)
	hostLine = regexp.MustCompile(`(?m)^\s*mon[ _]host\s*=\s*(\S.*?)\s*$`)
)

// FSID reads the id of the cluster from its ceph.conf, "" if there is none.
func (p Paths) FSID() string {
	conf, err := os.ReadFile(p.Conf())
	if err != nil {
		return ""
	}
	if m := fsidLine.FindSubmatch(conf); m != nil {
		return string(m[1])
	}
	return ""
}

// MonHost reads the monitors' addresses from the cluster's ceph.conf, in the form of its option "mon host". fault.NotFound if there is
// no cluster.
func (p Paths) MonHost() (string, error) {
	conf, err := os.ReadFile(p.Conf())
	if os.IsNotExist(err) {
		return "", fault.New(fault.NotFound, "there is no cluster in %s: %s is missing", p.Dir, p.Conf())
	}
	if err != nil {
		return "", fmt.Errorf("read the cluster's configuration: %w", err)
	}
	m := hostLine.FindSubmatch(conf)
	if m == nil {
		return "", fault.New(fault.Invalid, "%s names no monitors", p.Conf())
	}
	return string(m[1]), nil
}
