package standalone

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/certs"
	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/daemon"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/obs"
	"github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi"
	"github.com/holdfast-storage/holdfast/pkg/rpc/coordinatorapi/coordinatorv1"
	"github.com/holdfast-storage/holdfast/pkg/rpc/localapi"
)

// CoordinatorState is a coordinator's name and port.
type CoordinatorState struct {
	Name string `json:"name"`
	Port int    `json:"port"`
}

// The directories below that of the coordinators, beside those of the members.
const (
	caDir    = "ca"
	adminDir = localapi.AdminDir
	agentDir = "agent"
)

// giveCoordinators decides where the coordinators are, of a cluster that has none yet: at the top of its own window of ports, if nothing has taken that.
func (s *State) giveCoordinators(count int) error {
	if len(s.Coordinators) > 0 {
		return nil
	}
	base := s.PortHigh + 1 - count
	err := checkPorts(s.Address, base, s.PortHigh)
	if err == nil {
		s.PortHigh = base - 1
	}
	// Elsewhere in the middle of a block: clusters that are down at the moment may have fixed ports at both ends of theirs.
	for at := s.PortHigh + portBlock/2; errors.Is(err, fault.Busy); at += portBlock {
		if at+count > 65536 {
			return fault.New(fault.Exhausted, "no %d free ports in a row on %s above %d for the coordinators", count, s.Address, s.PortHigh)
		}
		base, err = at, checkPorts(s.Address, at, at+count-1)
	}
	if err != nil {
		return err
	}
	for i := range count {
		s.Coordinators = append(s.Coordinators, CoordinatorState{fmt.Sprint("c", i+1), base + i})
	}
	return nil
}

func (s *Supervisor) coordinatorDir(name string) string {
	return filepath.Join(localapi.CoordinatorDir(s.dir), name)
}

func (s *Supervisor) coordinatorAddress(c CoordinatorState) string {
	return net.JoinHostPort(s.state.Address, strconv.Itoa(c.Port))
}

func (s *Supervisor) coordinatorAddresses() []string {
	var list []string
	for _, c := range s.state.Coordinators {
		list = append(list, s.coordinatorAddress(c))
	}
	return list
}

func (s *Supervisor) coordinatorKey() string { return s.coordinatorDir("ceph.key") }

func childCoordinator(c CoordinatorState) string { return "coordinator." + c.Name }

func (s *Supervisor) coordinatorCommand(c CoordinatorState) command.Cmd {
	var members []string
	for _, m := range s.state.Coordinators {
		members = append(members, m.Name+"="+s.coordinatorAddress(m))
	}
	return command.Cmd{Name: s.tools.Executable, Args: []string{
		"coordinator", "--ca", s.coordinatorDir(caDir), "--certs", s.coordinatorDir(c.Name), "--dir", filepath.Join(s.coordinatorDir(c.Name), "log"),
		"--address", s.coordinatorAddress(c), "--members", strings.Join(members, ","),
		"--ceph-monitors", strings.Join(s.config.MonitorAddresses(), ","), "--ceph-key-file", s.coordinatorKey(),
	}}
}

// startCoordinators gives everybody their certificates and starts the members, which wait for Ceph by themselves.
func (s *Supervisor) startCoordinators(context.Context) error {
	if err := s.certify(time.Now()); err != nil {
		return err
	}
	for _, c := range s.state.Coordinators {
		if _, err := s.keep(childCoordinator(c), s.coordinatorCommand(c)); err != nil {
			return err
		}
	}
	return nil
}

// renewBefore is how long before its end a certificate is renewed, and renewEvery how often that is looked at.
const (
	renewBefore = certs.Life / 3
	renewEvery  = time.Hour
)

// certify makes the CA, and those certificates that are missing or about to end. Who uses one takes the new one by itself.
func (s *Supervisor) certify(now time.Time) error {
	ca, err := certs.ReadCA(s.coordinatorDir(caDir))
	if errors.Is(err, fs.ErrNotExist) {
		if ca, err = certs.NewCA(s.state.FSID, now); err == nil {
			err = certs.WriteCA(s.coordinatorDir(caDir), ca)
		}
	}
	if err != nil {
		return err
	}
	wanted := map[string]certs.Identity{
		adminDir: {Role: certs.Admin, Name: "admin"},
		agentDir: {Role: certs.Agent, Name: s.state.agentName()},
	}
	for _, c := range s.state.Coordinators {
		wanted[c.Name] = certs.Identity{Role: certs.Coordinator, Name: c.Name}
	}
	for name, id := range wanted {
		dir := s.coordinatorDir(name)
		if store, err := certs.Open(dir); err == nil && store.Identity() == id && store.Expires().Sub(now) > renewBefore {
			continue
		}
		pair, err := ca.Issue(id, now)
		if err != nil {
			return err
		}
		trusted, err := certs.Trust(dir, ca.Cert)
		if err != nil {
			return err
		}
		if err := certs.Write(dir, trusted, pair); err != nil {
			return err
		}
	}
	return writeIfChanged(filepath.Join(s.coordinatorDir(adminDir), coordinatorapi.EndpointsFile), []byte(strings.Join(s.coordinatorAddresses(), "\n")+"\n"), 0o600)
}

// renew keeps certificates from ending, until ctx does.
func (s *Supervisor) renew(ctx context.Context) {
	for sleep(ctx, renewEvery) {
		if err := s.certify(time.Now()); err != nil {
			s.tools.Log.Error("certificates are not renewed", obs.KeyError, err)
		}
	}
}

// giveKey makes the coordinators' Ceph user and puts its key where they look for it.
func (s *Supervisor) giveKey(ctx context.Context) error {
	e := daemon.Entity{Name: daemon.Coordinator, Caps: daemon.CoordinatorCaps()}
	var made struct {
		Key string `json:"key"`
	}
	if err := s.monJSON(ctx, "auth get-or-create-key", map[string]any{"entity": e.Name}, &made); err != nil {
		return fmt.Errorf("make user %s: %w", e.Name, err)
	}
	if err := s.ensureUser(ctx, e); err != nil {
		return err
	}
	return writeIfChanged(s.coordinatorKey(), []byte(made.Key+"\n"), 0o600)
}

// awaitLeader waits until a coordinator leads. An old cluster does its work without one, and its agent starts OSDs.
func (s *Supervisor) awaitLeader(ctx context.Context) error {
	err := s.leads(ctx)
	if errors.Is(err, fault.Unavailable) && s.state.Formed {
		s.note(err.Error())
		return nil
	}
	return err
}

func (s *Supervisor) leads(ctx context.Context) error {
	store, err := certs.Open(s.coordinatorDir(adminDir))
	if err != nil {
		return err
	}
	client := coordinatorapi.New(store, s.coordinatorAddresses())
	defer client.Close()
	return within(ctx, waitCSI, "no coordinator leads", filepath.Join(s.paths.Log(), "coordinator.*.out"), func(ctx context.Context) (bool, error) {
		var last error
		for _, address := range s.coordinatorAddresses() {
			api, err := client.At(address)
			if err != nil {
				return false, err
			}
			asking, cancel := context.WithTimeout(ctx, time.Second)
			status, err := api.GetStatus(asking, &coordinatorv1.GetStatusRequest{})
			cancel()
			if err == nil && status.GetLeader() != nil {
				return true, nil
			}
			last = errors.Join(last, fault.FromStatus(err))
		}
		return false, last
	})
}

// retire stops a child of an earlier version that runs with another command line: one that takes no orders of coordinators, say.
func (s *Supervisor) retire(ctx context.Context, name string, cmd command.Cmd) error {
	c := newChild(s.paths, name, cmd, s.tools.Log)
	p, err := find(c.record, cmd)
	if errors.Is(err, fault.NotFound) || err == nil && slices.Equal(p.Args, append([]string{cmd.Name}, cmd.Args...)) {
		return nil
	}
	if err != nil {
		return err
	}
	return c.stop(ctx)
}

func (s *Supervisor) coordinatorChildren(get func(string, command.Cmd) *child) []*child {
	var list []*child
	for _, c := range s.state.Coordinators {
		list = append(list, get(childCoordinator(c), s.coordinatorCommand(c)))
	}
	return list
}
