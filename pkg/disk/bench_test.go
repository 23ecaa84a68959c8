package disk_test

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-storage/holdfast/pkg/disk"
	"github.com/holdfast-storage/holdfast/pkg/disk/disktest"
)

// cpu is what this process has used, user and system.
func cpu(b *testing.B) time.Duration {
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// BenchmarkScan scans 1000 simulated disks: all blank, which takes the most reading, and all
// with an OSD on them. It prints the CPU time of a scan and of a second look at one disk.
func BenchmarkScan(b *testing.B) {
	for name, head := range map[string][]byte{"blank": nil, "OSDs": []byte("bluestore block device\n")} {
		b.Run(name, func(b *testing.B) {
			m := disktest.New(b)
			for i := range 1000 {
				m.Add(disktest.Disk{
					Name: "sd" + letters(i), Size: terabyte, Vendor: "ATA", Model: "WDC WD10EFRX-68F", Serial: fmt.Sprintf("WD-%08d", i),
					WWN: fmt.Sprintf("naa.50014ee2%08x", i+1), Link: fmt.Sprintf("wwn-0x50014ee2%08x", i+1), Head: head,
				})
			}
			scanner := disk.NewScanner(disk.Config{Root: m.Root, Images: true})
			begin := cpu(b)
			for b.Loop() {
				inventory, err := scanner.Scan(b.Context())
				if err != nil || len(inventory.Disks) != 1000 || inventory.Disks[999].Free() != (head == nil) {
					b.Fatal(err, len(inventory.Disks), inventory.Disks[999])
				}
			}
			b.ReportMetric(float64((cpu(b)-begin).Microseconds())/1000/float64(b.N), "cpu-ms/scan")
		})
	}
}

// letters names the disk as the kernel does: a ... z, aa ...
func letters(i int) string {
	if i < 26 {
		return string(rune('a' + i))
	}
	return letters(i/26-1) + string(rune('a'+i%26))
}
