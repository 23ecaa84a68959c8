package attach

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/pkg/fault"
)

// krbdLine is what is written to sysfs: "addrs options pool image snapshot".
func krbdLine(ctx context.Context, img Image) (string, error) {
	options, err := krbdOptions(img.MapOptions)
	if err != nil {
		return "", err
	}
	addrs, options, err := kernelMonitors(img.Endpoint.Monitors, options)
	if err != nil {
		return "", err
	}
	if addrs, err = resolve(ctx, addrs); err != nil {
		return "", err
	}
	for _, word := range []string{img.Pool, img.Namespace, img.Name, img.Credentials.User, img.Credentials.Key.Reveal()} {
		if strings.ContainsAny(word, " \t\n,") {
			return "", fault.New(fault.Invalid, "map %s/%s: the kernel takes no name of a pool, namespace, image or user with spaces or commas", img.Pool, img.Name)
		}
	}
	all := []string{"name=" + img.Credentials.User, "secret=" + img.Credentials.Key.Reveal(), "noshare"}
	if img.ReadOnly {
		all = append(all, "ro")
	}
	if img.Namespace != "" {
		all = append(all, "_pool_ns="+img.Namespace)
	}
	if !hasOption(options, "mount_timeout") {
		all = append(all, "mount_timeout="+strconv.Itoa(krbdMountTimeout))
	}
	all = append(all, options...)
	return fmt.Sprintf("%s %s %s %s -", strings.Join(addrs, ","), strings.Join(all, ","), img.Pool, img.Name), nil
}

// krbdOptions reads mapOptions in ceph-csi's form, "krbd:a,b;nbd:c" or "a,b", and
// refuses those that would change who maps what.
func krbdOptions(s string) ([]string, error) {
	var out []string
	for _, section := range strings.Split(s, ";") {
		name, list, found := strings.Cut(section, ":")
		if !found || strings.ContainsAny(name, ",=") {
			list = section
		} else if strings.TrimSpace(name) != "krbd" {
			continue
		}
		for _, o := range strings.Split(list, ",") {
			o = strings.TrimSpace(o)
			key, _, _ := strings.Cut(o, "=")
			switch key {
			case "":
				continue
			case "name", "secret", "key", "_pool_ns", "ip", "share", "noshare":
				return nil, fault.New(fault.Invalid, "mapOptions %q: option %q is set by Holdfast itself", s, key)
			}
			if strings.ContainsAny(o, " \t\n") {
				return nil, fault.New(fault.Invalid, "mapOptions %q: no spaces within %q", s, o)
			}
			out = append(out, o)
		}
	}
	return out, nil
}

func hasOption(options []string, key string) bool {
	for _, o := range options {
		if name, _, _ := strings.Cut(o, "="); name == key {
			return true
		}
	}
	return false
}

// krbdError says what an errno of a map means. The line that was written is never part
// of it: it holds the key.
func krbdError(img Image, err error) error {
	var errno unix.Errno
	if !errors.As(err, &errno) {
		return fmt.Errorf("map %s/%s: %w", img.Pool, img.Name, err)
	}
	class, advice := fault.Unavailable, "the cluster does not answer; see dmesg"
	switch errno {
	case unix.ENOENT:
		class, advice = fault.NotFound, "no such pool, namespace or image"
	case unix.EPERM, unix.EACCES:
		class, advice = fault.Denied, "the cluster refuses user "+img.Credentials.User
	case unix.EINVAL:
		class, advice = fault.Invalid, "the kernel refuses the map options, or the key is no valid one; see dmesg"
	case unix.ENXIO:
		class, advice = fault.Unsupported, "the kernel lacks a feature of the image or the cluster; use mounter: fuse-loop"
	case unix.EBUSY, unix.EEXIST:
		class, advice = fault.Busy, "the image is in use"
	case unix.EROFS:
		class, advice = fault.Precondition, "the image can only be mapped read-only"
	}
	return fault.New(class, "map %s/%s: %s: %w", img.Pool, img.Name, advice, errno)
}
