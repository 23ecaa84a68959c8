package keeper

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/fault"
)

const (
	qemuProgram = "qemu-storage-daemon"
	fuseProgram = "ceph-fuse"
	diskNode    = "disk"
)

// ability looks for the programs and for FUSE.
func ability() Ability {
	var a Ability
	var missing []string
	_, err := os.Stat("/dev/fuse")
	fuse := err == nil
	if !fuse {
		missing = append(missing, "/dev/fuse is missing (modprobe fuse)")
	}
	_, err = exec.LookPath(qemuProgram)
	a.RBD = fuse && err == nil
	if err != nil {
		missing = append(missing, qemuProgram+" is missing (apt-get install qemu-system-common qemu-block-extra)")
	}
	_, err = exec.LookPath(fuseProgram)
	a.CephFS = fuse && err == nil
	if err != nil {
		missing = append(missing, fuseProgram+" is missing (apt-get install ceph-fuse)")
	}
	a.Reason = strings.Join(missing, "; ")
	return a
}

// program returns the helper of a kind.
func program(kind string) string {
	if kind == KindCephFS {
		return fuseProgram
	}
	return qemuProgram
}

// arguments returns a helper's command line. It holds no secret.
func (k *keeper) arguments(s Spec) ([]string, error) {
	conf, dir := filepath.Join(k.dir(s.ID), "ceph.conf"), k.dir(s.ID)
	if s.Kind == KindCephFS {
		var options []string
		if s.ReadOnly {
			options = append(options, "ro")
		}
		if s.Options != "" {
			options = append(options, s.Options)
		}
		options = append(options, "fsname="+Source(s.ID)) // last, so that it stands
		return []string{fuseProgram, "-f", "-c", conf, "--id", s.User, k.target(s), "-o", strings.Join(options, ",")}, nil
	}
	// JSON instead of key=value: a comma or a space in a name stays what it is.
	// No cache in librbd: that of 16.2 now and then answers 0 to the flush after a write that a
	// fence refused (7 of 40 runs), and the kernel has a page cache above it anyway.
	disk := map[string]any{
		"driver": "rbd", "node-name": diskNode, "pool": s.Pool, "image": s.Image, "user": s.User,
		"conf": conf, "discard": "unmap", "read-only": s.ReadOnly, "cache": map[string]any{"direct": true},
	}
	if s.Namespace != "" {
		disk["namespace"] = s.Namespace
	}
	var passphrase []string
	if s.Header > 0 {
		disk["encrypt"] = map[string]any{"format": "luks2", "key-secret": "passphrase"}
		passphrase = []string{"--object", "secret,id=passphrase,format=raw,file=" + unlockPath}
	}
	blockdev, err := json.Marshal(disk)
	if err != nil {
		return nil, fmt.Errorf("encode block device: %w", err)
	}
	export, err := json.Marshal(map[string]any{
		"type": "fuse", "id": "export", "node-name": diskNode, "mountpoint": k.target(s), "writable": !s.ReadOnly,
	})
	if err != nil {
		return nil, fmt.Errorf("encode export: %w", err)
	}
	return append(append([]string{qemuProgram}, passphrase...),
		"--blockdev", string(blockdev),
		"--chardev", "socket,id=qmp,path="+strings.ReplaceAll(filepath.Join(dir, "qmp.sock"), ",", ",,")+",server=on,wait=off",
		"--monitor", "chardev=qmp",
		"--export", string(export),
	), nil
}

// config is the helper's ceph.conf: how the cluster is reached, where the key is (not
// the key), and bounds on operations.
func (k *keeper) config(s Spec) ([]byte, error) {
	for _, v := range append([]string{s.User, s.Filesystem, s.Directory}, s.Monitors...) {
		if strings.ContainsAny(v, "\n\r\x00") {
			return nil, fault.New(fault.Invalid, "attachment %s: a line break in %q", s.ID, v)
		}
	}
	timeout := int(k.cfg.OpTimeout / time.Second)
	var b strings.Builder
	fmt.Fprintf(&b, "[global]\nmon host = %s\nkeyring = %s\nlog to stderr = true\nerr to stderr = true\nlog file =\nadmin socket =\n", strings.Join(s.Monitors, ","), keyPath)
	if s.FSID != "" {
		fmt.Fprintf(&b, "fsid = %s\n", s.FSID)
	}
	fmt.Fprintf(&b, "[client]\nrados osd op timeout = %d\nrados mon op timeout = 30\nrbd cache = false\nclient quota = true\n", timeout)
	if s.Kind == KindCephFS {
		fmt.Fprintf(&b, "admin socket = %s\n", quote(filepath.Join(k.dir(s.ID), "asok")))
		// When the MDS wants dentries back ceph-fuse would remount the path that it was started
		// on, which has been handed over by then, and abort when that fails. FUSE's own
		// notification (Linux 3.18 on) needs no path.
		b.WriteString("client try dentry invalidate = true\nclient die on failed dentry invalidate = false\nclient die on failed remount = false\n")
		// A mount that cannot be made must fail within the caller's patience.
		fmt.Fprintf(&b, "client mount timeout = 30\nclient mountpoint = %s\n", quote(s.Directory))
		if s.Filesystem != "" {
			fmt.Fprintf(&b, "client fs = %s\nclient mds namespace = %s\n", quote(s.Filesystem), quote(s.Filesystem))
		}
	}
	return []byte(b.String()), nil
}

// quote writes a value of ceph.conf such that ';' and '#' begin no comment.
func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// secrets are what the helper reads from its inherited files: a keyring (keyPath) and, for
// an encrypted image, its passphrase (unlockPath).
func secrets(s Spec) [][]byte {
	list := [][]byte{fmt.Appendf(nil, "[client.%s]\nkey = %s\n", s.User, s.Key)}
	if s.Header > 0 {
		list = append(list, []byte(s.Passphrase))
	}
	return list
}
