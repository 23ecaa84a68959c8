// Command guest is the init of a User Mode Linux guest whose root is the host's own /,
// read-only: it makes the machine usable, runs one program, writes what it printed and
// its exit code to the shared directory, and powers off.
//
// Everything it needs stands in the file named by the kernel argument guest=FILE.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Job is what the host wants done. The host writes it, see tests/uml.
type Job struct {
	Share    string   // directory of the host, writable at the same path
	Address  string   // IP address with prefix for vec0; "" for no network
	Modules  []string // kernel modules to load
	Argv     []string
	Env      []string
	Output   string // file for stdout and stderr
	ExitCode string // file for the exit code
}

func main() {
	code, err := run()
	if err != nil {
		fmt.Fprintln(os.Stderr, "guest:", err) // the host shows the console
		code = 125
	}
	_ = code
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

func run() (int, error) {
	if err := mounts(); err != nil {
		return 0, err
	}
	job, err := readJob()
	if err != nil {
		return 0, err
	}
	if err := unix.Mount("none", job.Share, "hostfs", 0, job.Share); err != nil {
		return 0, fmt.Errorf("mount %s: %w", job.Share, err)
	}
	if err := prepare(job); err != nil {
		return 0, err
	}
	out, err := os.OpenFile(job.Output, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return 0, err
	}
	cmd := exec.Command(job.Argv[0], job.Argv[1:]...)
	cmd.Stdout, cmd.Stderr, cmd.Dir = out, out, "/"
	cmd.Env = append(os.Environ(), job.Env...)
	err = cmd.Run()
	if cmd.ProcessState == nil {
		return 0, err
	}
	code := cmd.ProcessState.ExitCode()
	return code, os.WriteFile(job.ExitCode, []byte(strconv.Itoa(code)), 0o644)
}

// mounts makes what is writable, and the kernel's own file systems.
func mounts() error {
	for _, m := range [][3]string{
		{"proc", "/proc", "proc"}, {"sysfs", "/sys", "sysfs"}, {"tmpfs", "/run", "tmpfs"}, {"tmpfs", "/tmp", "tmpfs"},
		{"tmpfs", "/var/tmp", "tmpfs"}, {"tmpfs", "/var/lib", "tmpfs"}, {"tmpfs", "/mnt", "tmpfs"}, {"tmpfs", "/dev/shm", "tmpfs"},
	} {
		if m[1] == "/dev/shm" {
			_ = os.MkdirAll(m[1], 0o755) // /dev is the kernel's devtmpfs
		}
		if err := unix.Mount(m[0], m[1], m[2], 0, ""); err != nil && err != unix.EBUSY {
			return fmt.Errorf("mount %s: %w", m[1], err)
		}
	}
	return nil
}

func readJob() (Job, error) {
	var job Job
	data, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return job, err
	}
	for _, word := range strings.Fields(string(data)) {
		path, ok := strings.CutPrefix(word, "guest=")
		if !ok {
			continue
		}
		// The root is the host's, but what is writable there is hidden under tmpfs now.
		dir := filepath.Dir(path)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return job, err
		}
		if err := unix.Mount("none", dir, "hostfs", unix.MS_RDONLY, dir); err != nil {
			return job, fmt.Errorf("mount %s: %w", dir, err)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return job, err
		}
		return job, json.Unmarshal(data, &job)
	}
	return job, fmt.Errorf("no guest=FILE on the kernel's command line")
}

// prepare sets PATH, modules and the network up.
func prepare(job Job) error {
	// The modules lie elsewhere than modprobe looks: a wrapper, in front of PATH.
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return err
	}
	release := unix.ByteSliceToString(uts.Release[:])
	if err := os.MkdirAll("/run/m/lib/modules", 0o755); err != nil {
		return err
	}
	if err := os.Symlink("/usr/lib/uml/modules/"+release, "/run/m/lib/modules/"+release); err != nil {
		return err
	}
	if err := os.MkdirAll("/run/bin", 0o755); err != nil {
		return err
	}
	wrapper := "#!/bin/sh\nexec /sbin/modprobe -d /run/m \"$@\"\n"
	if err := os.WriteFile("/run/bin/modprobe", []byte(wrapper), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile("/proc/sys/kernel/modprobe", []byte("/run/bin/modprobe"), 0o644); err != nil {
		return err
	}
	for key, value := range map[string]string{"PATH": "/run/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "TMPDIR": "/tmp", "LC_ALL": "C.UTF-8"} {
		if err := os.Setenv(key, value); err != nil {
			return err
		}
	}
	commands := [][]string{{"ip", "link", "set", "lo", "up"}}
	if job.Address != "" {
		commands = append(commands, []string{"ip", "link", "set", "vec0", "up"}, []string{"ip", "addr", "add", job.Address, "dev", "vec0"})
	}
	if len(job.Modules) > 0 {
		commands = append(commands, append([]string{"modprobe", "-a"}, job.Modules...))
	}
	for _, argv := range commands {
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, out)
		}
	}
	return nil
}
