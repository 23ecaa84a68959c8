package cli

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/rpc/localapi"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

func printResources(w io.Writer, s *localapi.Status, wide bool) {
	c := s.Capacity
	fmt.Fprintf(w, "\ncapacity: %s of %s used (raw), %s free on the host; fullest OSD: %s\n",
		storage.Bytes(c.Used), storage.Bytes(c.Total), storage.Bytes(c.HostFree), fullest(s.OSDs.List))
	fmt.Fprintf(w, "volumes:  %s rbd, %s cephfs\n", count(s.Volumes.RBD), count(s.Volumes.CephFS))
	fmt.Fprintf(w, "OSDs:     %d, %d up, %d in\n", s.OSDs.Total, s.OSDs.Up, s.OSDs.In)
	if s.AgeSeconds >= 0 {
		fmt.Fprintf(w, "seen:     %s ago\n", time.Duration(s.AgeSeconds*float64(time.Second)).Round(100*time.Millisecond))
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\nPOOL\tSTORED\tAVAILABLE\tCOPIES\tPGS\tAPPLICATION")
	for _, p := range s.Pools {
		full := ""
		if p.Full {
			full = " (full)"
		}
		fmt.Fprintf(t, "%s\t%s\t%s%s\t%d\t%d\t%s\n", p.Name, storage.Bytes(p.Stored), storage.Bytes(p.MaxAvail), full, p.Size, p.PGs, strings.Join(p.Applications, ","))
	}
	if wide {
		fmt.Fprintln(t, "\nOSD\tSTATE\tUSED\tSIZE\tSTORE\t")
		for _, o := range s.OSDs.List {
			fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t\n", o.ID, osdState(o), storage.Bytes(o.Used), storage.Bytes(o.Size), o.Store)
		}
	}
	_ = t.Flush() // as with every print to the terminal: there is nobody to tell
}

func printDaemons(w io.Writer, s *localapi.Status, wide bool) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\nDAEMON\tSTATE\tPID\tRESTARTS\tUPTIME\tLAST EXIT")
	for _, d := range s.Daemons {
		pid, uptime := "-", "-"
		if d.PID > 0 {
			pid, uptime = strconv.Itoa(d.PID), time.Duration(d.Uptime*float64(time.Second)).Round(time.Second).String()
		}
		last := d.LastExit
		if last == "" {
			last = "-"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%s\t%s\n", d.Name, d.State, pid, d.Restarts, uptime, last)
	}
	_ = t.Flush()
	fmt.Fprintf(w, "\nceph:     export CEPH_CONF=%s\nmetrics:  %s\n", s.CephConf, s.MetricsURL)
	if wide {
		fmt.Fprintf(w, "csi:      %s\n          %s\nfsid:     %s\n", s.CSI.RBDSocket, s.CSI.CephFSSocket, s.FSID)
	}
}

// fullest names the worst OSD, not the average.
func fullest(list []localapi.OSD) string {
	worst, name := -1.0, "unknown"
	for _, o := range list {
		if o.Size > 0 && float64(o.Used)/float64(o.Size) > worst {
			worst = float64(o.Used) / float64(o.Size)
			name = fmt.Sprintf("osd.%d %.0f %%", o.ID, 100*worst)
		}
	}
	return name
}

func osdState(o localapi.OSD) string {
	words := map[bool]string{true: "up", false: "down"}[o.Up]
	return words + "," + map[bool]string{true: "in", false: "out"}[o.In]
}

func count(n int) string {
	if n < 0 {
		return "?"
	}
	return strconv.Itoa(n)
}
