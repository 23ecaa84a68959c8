package daemon

import "path/filepath"

// Paths is the layout of a cluster's directory on one machine.
type Paths struct{ Dir string }

// Conf is the cluster's ceph.conf.
func (p Paths) Conf() string { return filepath.Join(p.Dir, "ceph.conf") }

// Keys holds the keyrings, readable by their owner alone.
func (p Paths) Keys() string { return filepath.Join(p.Dir, "keys") }

// Keyring is the keyring of an entity ("osd.0", "client.admin").
func (p Paths) Keyring(entity string) string {
	return filepath.Join(p.Keys(), entity+".keyring")
}

// BootKeyring holds every entity with its capabilities: a monitor's first keyring.
func (p Paths) BootKeyring() string { return filepath.Join(p.Keys(), "boot") }

// MonMap is the first monitor map.
func (p Paths) MonMap() string { return filepath.Join(p.Keys(), "monmap") }

// Run holds sockets, locks and process records.
func (p Paths) Run() string { return filepath.Join(p.Dir, "run") }

// Log holds the logs.
func (p Paths) Log() string { return filepath.Join(p.Dir, "log") }

// Crash is where Ceph leaves reports of crashes.
func (p Paths) Crash() string { return filepath.Join(p.Dir, "crash") }

// Data is the store of a daemon.
func (p Paths) Data(r Ref) string { return filepath.Join(p.Dir, r.Name()) }

// AdminSocket is the admin socket of a daemon.
func (p Paths) AdminSocket(r Ref) string {
	return filepath.Join(p.Run(), r.Name()+".asok")
}
