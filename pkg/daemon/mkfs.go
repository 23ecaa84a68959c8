package daemon

import "github.com/holdfast-storage/holdfast/pkg/command"

// MonMapCommand writes the first monitor map to Paths.MonMap.
func (c Config) MonMapCommand() command.Cmd {
	args := []string{"--create", "--clobber", "--fsid", c.FSID, "--set-min-mon-release", "16"}
	for _, m := range c.Monitors {
		args = append(args, "--addv", m.Ref.ID, c.Addresses(m))
	}
	return command.Cmd{Name: "monmaptool", Args: append(args, c.Paths.MonMap())}
}

// MonMkfsCommand makes a monitor's store; its directory must be there and empty. With
// every entity in the boot keyring no later call has to add one.
func (c Config) MonMkfsCommand(r Ref) command.Cmd {
	return command.Cmd{Name: r.Program(), Args: []string{
		"--mkfs", "--conf", c.Paths.Conf(), "--id", r.ID,
		"--monmap", c.Paths.MonMap(), "--keyring", c.Paths.BootKeyring(),
	}}
}

// OSDMkfsCommand makes an OSD's store in its directory, which must be there; a link
// named "block" in it makes it use a disk instead of a file. The monitor map is given,
// so the store can be made before a monitor answers.
func (c Config) OSDMkfsCommand(r Ref, uuid string) command.Cmd {
	return command.Cmd{Name: r.Program(), Args: []string{
		"--mkfs", "--conf", c.Paths.Conf(), "--id", r.ID,
		"--osd-uuid", uuid, "--monmap", c.Paths.MonMap(),
	}}
}

// Programs maps each program that a cluster needs to the Debian package that has it.
func Programs() map[string]string {
	return map[string]string{
		"ceph-mon": "ceph-mon", "ceph-mgr": "ceph-mgr", "ceph-osd": "ceph-osd", "ceph-mds": "ceph-mds",
		"monmaptool": "ceph-common", "rbd": "ceph-common", "blkid": "util-linux", "losetup": "mount",
	}
}
