package attach

import (
	"strings"

	"golang.org/x/sys/unix"
)

// vfsFlags are the mount options that mount(2) takes as flags, mount(8)'s names.
var vfsFlags = map[string]struct {
	set, clear uintptr
}{
	"defaults": {}, "rw": {clear: unix.MS_RDONLY}, "ro": {set: unix.MS_RDONLY},
	"nosuid": {set: unix.MS_NOSUID}, "suid": {clear: unix.MS_NOSUID},
	"nodev": {set: unix.MS_NODEV}, "dev": {clear: unix.MS_NODEV},
	"noexec": {set: unix.MS_NOEXEC}, "exec": {clear: unix.MS_NOEXEC},
	"sync": {set: unix.MS_SYNCHRONOUS}, "async": {clear: unix.MS_SYNCHRONOUS},
	"dirsync": {set: unix.MS_DIRSYNC}, "mand": {set: unix.MS_MANDLOCK}, "nomand": {clear: unix.MS_MANDLOCK},
	"noatime": {set: unix.MS_NOATIME}, "atime": {clear: unix.MS_NOATIME},
	"nodiratime": {set: unix.MS_NODIRATIME}, "diratime": {clear: unix.MS_NODIRATIME},
	"relatime": {set: unix.MS_RELATIME}, "norelatime": {clear: unix.MS_RELATIME},
	"strictatime": {set: unix.MS_STRICTATIME}, "lazytime": {set: unix.MS_LAZYTIME}, "nolazytime": {clear: unix.MS_LAZYTIME},
	"silent": {set: unix.MS_SILENT}, "loud": {clear: unix.MS_SILENT},
	// For mount(8) and fstab alone:
	"_netdev": {}, "auto": {}, "noauto": {}, "nofail": {}, "user": {}, "nouser": {}, "users": {},
}

// MountOptions splits options (each may hold several, comma separated) into mount(2)'s
// flags and its data. A comma within double quotes (SELinux contexts) does not split.
func MountOptions(options []string) (flags uintptr, data string) {
	var rest []string
	for _, o := range options {
		for _, one := range splitQuoted(o) {
			one = strings.TrimSpace(one)
			if f, ok := vfsFlags[one]; ok {
				flags = flags&^f.clear | f.set
			} else if one != "" && !strings.HasPrefix(one, "x-") && !strings.HasPrefix(one, "comment=") {
				rest = append(rest, one)
			}
		}
	}
	return flags, strings.Join(rest, ",")
}

func splitQuoted(s string) []string {
	quoted := false
	return strings.FieldsFunc(s, func(r rune) bool {
		if r == '"' {
			quoted = !quoted
		}
		return r == ',' && !quoted
	})
}
