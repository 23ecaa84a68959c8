package standalone

import (
	"bufio"
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// Ports are searched for below the range from which kernels take ports for outgoing
// connections (32768 and up), where one of those could sit on a port of ours when the
// cluster comes back, and below Kubernetes' NodePorts (30000 and up).
const (
	portsFrom = 10000
	portsTo   = 29900
	portBlock = 100
)

// portsPerOSD is the most that one OSD binds: four messengers, v1 and v2 each.
const portsPerOSD = 8

// blockSize returns how many ports a cluster takes: two a monitor, those of the OSDs,
// two for each mgr and MDS, and as many again as spare, rounded up to whole blocks.
func blockSize(mons, osds int) int {
	need := 2*mons + 1 + 2*(portsPerOSD*osds+8)
	return (need + portBlock - 1) / portBlock * portBlock
}

// choosePorts returns the first port of a window in which all are free. The search
// begins at base, or at a place that depends on the directory, so that two clusters
// made at the same time do not meet.
func choosePorts(dir, address string, base, size int) (int, error) {
	if base > 0 {
		if base+size > 65536 {
			return 0, fault.New(fault.Invalid, "--port-base %d leaves less than the %d ports that this cluster needs", base, size)
		}
		if err := checkPorts(address, base, base+size-1); err != nil {
			return 0, err
		}
		return base, nil
	}
	if err := checkPort(address, 0); err != nil {
		return 0, err
	}
	hash := fnv.New32a()
	_, _ = hash.Write([]byte(dir))
	windows := (portsTo - portsFrom) / portBlock
	first := int(hash.Sum32() % uint32(windows))
	for i := range windows {
		at := portsFrom + (first+i)%windows*portBlock
		if at+size <= portsTo && checkPorts(address, at, at+size-1) == nil {
			return at, nil
		}
	}
	return 0, fault.New(fault.Exhausted, "no %d free ports in a row on %s between %d and %d: say where they are with --port-base", size, address, portsFrom, portsTo)
}

// checkPorts says which of the ports low to high cannot be listened on, and who has it.
func checkPorts(address string, low, high int) error {
	for port := low; port <= high; port++ {
		if err := checkPort(address, port); err != nil {
			return err
		}
	}
	return nil
}

func checkPort(address string, port int) error {
	listener, err := net.Listen("tcp", net.JoinHostPort(address, strconv.Itoa(port))) //nolint:noctx // closed again at once
	if err == nil {
		return listener.Close()
	}
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return fault.New(fault.Busy, "port %d on %s is taken%s", port, address, holder(port))
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return fault.New(fault.Invalid, "%s is not an address of this machine", address)
	}
	return fmt.Errorf("try port %d on %s: %w", port, address, err)
}

// holder says who listens on a TCP port: " by NAME (pid N)", or nothing when that cannot
// be seen (another network or pid namespace, a socket of the kernel).
func holder(port int) string {
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		inode := listeningInode(table, port)
		if inode == "" {
			continue
		}
		links, _ := filepath.Glob("/proc/[0-9]*/fd/*")
		for _, link := range links {
			target, err := os.Readlink(link)
			if err != nil || target != "socket:["+inode+"]" {
				continue
			}
			pid := strings.Split(link, "/")[2]
			name, _ := os.ReadFile(filepath.Join("/proc", pid, "comm"))
			return fmt.Sprintf(" by %s (pid %s)", strings.TrimSpace(string(name)), pid)
		}
	}
	return ""
}

// listeningInode finds the socket that listens on port in a table of proc(5) net/tcp:
// field 1 is ADDRESS:PORT in hex, field 3 the state (0A: listen), field 9 the inode.
func listeningInode(table string, port int) string {
	f, err := os.Open(table)
	if err != nil {
		return ""
	}
	defer f.Close()
	suffix := fmt.Sprintf(":%04X", port)
	scanner := bufio.NewScanner(f)
	for scanner.Scan() {
		fields := strings.Fields(scanner.Text())
		if len(fields) > 9 && fields[3] == "0A" && strings.HasSuffix(fields[1], suffix) {
			return fields[9]
		}
	}
	return ""
}
