package standalone

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/daemon"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/rpc/localapi"
)

// found decides what a new cluster is. Nothing is written.
func found(o Options) (*State, error) {
	if err := o.setDefaults(); err != nil {
		return nil, err
	}
	s := &State{Address: o.CephAddr, NodeName: nodeName(), OSDSize: o.OSDSize}
	s.Kind, s.Version, s.FSID = localapi.IdentityKind, stateVersion, newUUID()
	s.CSI, s.Agent, s.Listen = *o.CSI, o.Agent != nil && *o.Agent, o.Listen
	count := o.OSDs
	if len(o.Disks) > 0 {
		count = len(o.Disks)
	}
	for id := range count {
		osd := OSDState{ID: id, UUID: newUUID()}
		if len(o.Disks) > 0 {
			osd.Disk = o.Disks[id]
		}
		s.OSDs = append(s.OSDs, osd)
	}
	size := blockSize(o.Mons, count)
	base, err := choosePorts(o.DataDir, o.CephAddr, o.PortBase, size)
	if err != nil {
		return nil, err
	}
	for i := range o.Mons {
		s.Mons = append(s.Mons, MonState{ID: daemon.MonRef(i).ID, V2: base + 2*i, V1: base + 2*i + 1})
	}
	s.PortLow, s.PortHigh = base+2*o.Mons+1, base+size-1
	if host, port, _ := net.SplitHostPort(o.Listen); port == "0" {
		s.Listen = net.JoinHostPort(host, strconv.Itoa(base+2*o.Mons))
	}
	return s, s.giveCoordinators(o.Coordinators)
}

// quorums are the numbers of which a majority can decide, and more would be of no use.
var quorums = []int{1, 3, 5}

func (o *Options) setDefaults() error {
	if len(o.Disks) > 0 && o.OSDs > 0 {
		return fault.New(fault.Invalid, "--osds and --disk exclude each other: every disk becomes one OSD")
	}
	set(&o.OSDs, DefaultOSDs)
	set(&o.OSDSize, DefaultOSDSize)
	set(&o.Mons, DefaultMons)
	set(&o.Coordinators, DefaultCoordinators)
	set(&o.CephAddr, DefaultAddress)
	set(&o.Listen, DefaultAddress+":0")
	if o.CSI == nil {
		yes := true
		o.CSI = &yes
	}
	switch {
	case o.OSDs < 1 || o.OSDs > maxOSDs || len(o.Disks) > maxOSDs:
		return fault.New(fault.Invalid, "--osds %d: want 1 to %d", max(o.OSDs, len(o.Disks)), maxOSDs)
	case !slices.Contains(quorums, o.Mons):
		return fault.New(fault.Invalid, "--mons %d: want 1, 3 or 5, so that a majority can decide", o.Mons)
	case !slices.Contains(quorums, o.Coordinators):
		return fault.New(fault.Invalid, "--coordinators %d: want 1, 3 or 5, so that a majority can decide", o.Coordinators)
	case o.OSDSize < MinOSDSize:
		return fault.New(fault.Invalid, "--osd-size %s: want at least %s", o.OSDSize, MinOSDSize)
	case net.ParseIP(o.CephAddr) == nil:
		return fault.New(fault.Invalid, "--ceph-addr %s is not an IP address", o.CephAddr)
	}
	return checkListen(o.Listen)
}

func set[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// adjust applies what may change on a later `up` and refuses what may not.
func (s *State) adjust(o Options) error {
	mismatch := func(flag string, asked, has any) error {
		return fault.New(fault.Precondition, "%s %v: the cluster in %s was made with %v, and that cannot be changed by `up`; leave the flag out", flag, asked, o.DataDir, has)
	}
	var disks []string
	files := 0
	for _, osd := range s.OSDs {
		if osd.Disk != "" {
			disks = append(disks, osd.Disk)
		} else {
			files++
		}
	}
	switch {
	case o.OSDs != 0 && o.OSDs != files:
		return mismatch("--osds", o.OSDs, files)
	case o.OSDSize != 0 && o.OSDSize != s.OSDSize:
		return mismatch("--osd-size", o.OSDSize, s.OSDSize)
	case o.Mons != 0 && o.Mons != len(s.Mons):
		return mismatch("--mons", o.Mons, len(s.Mons))
	case o.Coordinators != 0 && len(s.Coordinators) > 0 && o.Coordinators != len(s.Coordinators):
		return mismatch("--coordinators", o.Coordinators, len(s.Coordinators))
	case o.Coordinators != 0 && !slices.Contains(quorums, o.Coordinators):
		return fault.New(fault.Invalid, "--coordinators %d: want 1, 3 or 5, so that a majority can decide", o.Coordinators)
	case o.CephAddr != "" && o.CephAddr != s.Address:
		return mismatch("--ceph-addr", o.CephAddr, s.Address)
	case len(o.Disks) > 0 && !slices.Equal(o.Disks, disks):
		return mismatch("--disk", strings.Join(o.Disks, " "), "disks: "+strings.Join(disks, " "))
	}
	if o.Listen != "" && o.Listen != s.Listen {
		if err := checkListen(o.Listen); err != nil {
			return err
		}
		if host, port, _ := net.SplitHostPort(o.Listen); port == "0" {
			listener, err := net.Listen("tcp", net.JoinHostPort(host, "0")) //nolint:noctx // closed again at once
			if err != nil {
				return fmt.Errorf("find a port for --listen: %w", err)
			}
			o.Listen = listener.Addr().String()
			if err := listener.Close(); err != nil {
				return fmt.Errorf("find a port for --listen: %w", err)
			}
		}
		s.Listen = o.Listen
	}
	if o.CSI != nil {
		s.CSI = *o.CSI
	}
	if o.Agent != nil {
		s.Agent = *o.Agent
	}
	if o.Stop {
		return nil
	}
	set(&o.Coordinators, DefaultCoordinators)
	return s.giveCoordinators(o.Coordinators)
}

// establish loads the state of the directory, or founds a cluster and puts it on stable
// storage. note is something that the person should know.
func establish(ctx context.Context, o Options, runner command.Runner) (s *State, note string, err error) {
	s, err = loadState(o.DataDir)
	if err == nil {
		if err := s.adjust(o); err != nil {
			return nil, "", err
		}
		return s, "", s.save(o.DataDir)
	}
	if !errors.Is(err, fault.NotFound) {
		return nil, "", err
	}
	if o.Stop {
		return nil, "", err
	}
	if s, err = found(o); err != nil {
		return nil, "", err
	}
	identities, err := checkBlankDisks(ctx, runner, o.Disks)
	if err != nil {
		return nil, "", err
	}
	for i, identity := range identities { // every disk is an OSD, in this order
		s.OSDs[i].DiskID = identity
	}
	free, err := freeSpace(o.DataDir)
	if err != nil {
		return nil, "", err
	}
	files := 0
	for _, osd := range s.OSDs {
		if osd.Disk == "" {
			files++
		}
	}
	if note, err = checkSpace(o.DataDir, free, files, s.OSDSize); err != nil {
		return nil, "", err
	}
	return s, note, s.save(o.DataDir)
}

var notInName = regexp.MustCompile(`[^a-zA-Z0-9.-]+`)

// nodeName is what this machine is called in CRUSH and towards CSI, for ever: the
// cluster keeps it when the host's name changes.
func nodeName() string {
	name, err := os.Hostname()
	if err != nil {
		name = ""
	}
	short, _, _ := strings.Cut(name, ".")
	if short = strings.Trim(notInName.ReplaceAllString(short, "-"), "-."); short == "" {
		return "localhost"
	}
	return strings.ToLower(short)
}

// newUUID returns a random UUID (RFC 9562, version 4).
func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand's documentation
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:16])
}

// store returns the file or disk that an OSD keeps its data on.
func (s *State) store(dir string, osd OSDState) string {
	if osd.Disk != "" {
		return osd.Disk
	}
	return daemon.Paths{Dir: dir}.Data(daemon.OSDRef(osd.ID)) + "/block"
}
