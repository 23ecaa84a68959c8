package inside_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/vdisk/inside"
)

// Where this kernel can mount them they are as large as the partition; else the command is told, and nothing has changed.
func TestWhatGrowsOnlyWhileMounted(t *testing.T) {
	for kind, c := range map[string]struct {
		size   []string // prints how large the file system is
		number string
		unit   int64
		check  []string
	}{
		"xfs":   {[]string{"xfs_db", "-r", "-c", "sb 0", "-c", "print dblocks"}, `dblocks = (\d+)`, 4096, []string{"xfs_repair", "-n"}},
		"btrfs": {[]string{"btrfs", "inspect-internal", "dump-super"}, `(?m)^total_bytes\s+(\d+)`, 1, []string{"btrfs", "check"}},
	} {
		t.Run(kind, func(t *testing.T) {
			if _, err := exec.LookPath("mkfs." + kind); err != nil {
				t.Skip("needs mkfs." + kind)
			}
			path := filepath.Join(t.TempDir(), "part.img")
			must(t, os.WriteFile(path, nil, 0o600))
			must(t, os.Truncate(path, 320*mib))
			run(t, "", "mkfs."+kind, "-q", path)
			must(t, os.Truncate(path, 600*mib))
			part := inside.Part{Content: kind}
			part.Number = 1
			growth, err := inside.Tool{Run: command.System{}}.GrowFileSystem(t.Context(), path, part)
			must(t, err)
			out := run(t, "", append(c.size, path)...)
			found := regexp.MustCompile(c.number).FindStringSubmatch(out)
			if found == nil {
				t.Fatalf("no size in\n%s", out)
			}
			n, err := strconv.ParseInt(found[1], 10, 64)
			must(t, err)
			want := int64(320 * mib)
			if growth.Done {
				want = 600 * mib
			} else {
				t.Logf("not mounted here: %s", growth.Why)
			}
			if n *= c.unit; n < want-want/100 || n > want || growth.Done != (growth.AtBoot == "") || growth.Done != (growth.Why == "") {
				t.Errorf("%d MiB, %+v", n/mib, growth)
			}
			if !growth.Done && !strings.Contains(growth.AtBoot, "/dev/sdX1") {
				t.Errorf("%+v", growth)
			}
			run(t, "", append(c.check, path)...)
		})
	}
}
