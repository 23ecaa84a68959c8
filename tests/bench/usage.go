package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// ticks are clock ticks of CPU time a second (Linux shows USER_HZ to programs, 100 on every
// architecture that Go supports).
const ticks = 100

// cpuTime is the CPU time in seconds that the processes of the cluster in dir and this one have
// used. Other load on the machine changes rates, and hardly changes this.
func cpuTime(dir string) float64 {
	var used float64
	paths, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range paths {
		line, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		own := filepath.Base(filepath.Dir(path)) == strconv.Itoa(os.Getpid())
		if !own && !strings.Contains(string(line), dir+"/") {
			continue
		}
		stat, err := os.ReadFile(filepath.Join(filepath.Dir(path), "stat"))
		if err != nil {
			continue // it has ended
		}
		used += statTime(string(stat))
	}
	return used
}

// statTime reads utime and stime of a line of /proc/PID/stat (proc(5)): fields 14 and 15; the
// second, the program's name in parentheses, may hold spaces.
func statTime(stat string) float64 {
	fields := strings.Fields(stat[strings.LastIndex(stat, ")")+1:])
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.ParseFloat(fields[11], 64)
	system, _ := strconv.ParseFloat(fields[12], 64)
	return (user + system) / ticks
}
