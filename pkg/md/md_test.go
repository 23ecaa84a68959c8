package md

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

const uuid = "11111111-2222-3333-4444-555555555555"

// sysfs writes files below a fake /sys, as Linux 6.1 has them in the middle of a reshape.
func sysfs(t *testing.T) string {
	t.Helper()
	sys := t.TempDir()
	for name, text := range map[string]string{
		"size": "204800", "md/uuid": uuid, "md/level": "raid5", "md/array_state": "active", "md/sync_action": "reshape", "md/consistency_policy": "resync",
		"md/degraded": "1", "md/mismatch_cnt": "8", "md/component_size": "102400", "md/sync_speed": "2048", "md/raid_disks": "4 (2)", "md/sync_completed": "51200 / 204800",
		"md/sync_speed_max": "", "md/sync_speed_min": "",
		"md/dev-sda1/state": "in_sync", "md/dev-sda1/slot": "0",
		"md/dev-sdb1/state": "faulty,want_replacement", "md/dev-sdb1/slot": "none",
		"md/dev-sdc1/state": "spare,replacement", "md/dev-sdc1/slot": "1",
	} {
		path := filepath.Join(sys, "block", "md127", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return sys
}

func TestAnArrayIsReadFromSysfs(t *testing.T) {
	tool := Tool{Sys: sysfs(t)}
	a, err := tool.Find(uuid)
	if err != nil {
		t.Fatal(err)
	}
	want := Array{
		Device: "md127", UUID: uuid, Level: "raid5", Disks: 4, Component: 100 * storage.MiB, Capacity: 100 * storage.MiB, State: "active", Action: "reshape",
		Done: 25 * storage.MiB, Total: 100 * storage.MiB, Speed: 2 * storage.MiB, Degraded: 1, Consistency: "resync", Mismatches: 8,
		Members: []Member{
			{Device: "sda1", Slot: 0, InSync: true},
			{Device: "sdb1", Slot: -1, Faulty: true, WantReplacement: true},
			{Device: "sdc1", Slot: 1, Replacing: true},
		},
	}
	if diff := cmp.Diff(want, a); diff != "" {
		t.Fatal(diff)
	}
	if !a.Busy() || a.Path() != "/dev/md127" {
		t.Error(a)
	}
	if _, err := tool.Find("other"); !errors.Is(err, fault.NotFound) {
		t.Error(err)
	}
}

func TestTheThrottleIsSetAndLifted(t *testing.T) {
	tool := Tool{Sys: sysfs(t)}
	for rate, want := range map[storage.Bytes][2]string{10 * storage.MiB: {"1", "10240"}, 5: {"1", "1"}, 0: {"system", "system"}} {
		if err := tool.Throttle(Array{Device: "md127"}, rate); err != nil {
			t.Fatal(err)
		}
		for i, name := range []string{"sync_speed_min", "sync_speed_max"} {
			got, _ := os.ReadFile(filepath.Join(tool.Sys, "block", "md127", "md", name))
			if string(got) != want[i] {
				t.Errorf("%d: %s is %q, want %q", rate, name, got, want[i])
			}
		}
	}
}

// recorder keeps what was run.
type recorder struct{ lines []string }

func (r *recorder) Run(_ context.Context, cmd command.Cmd) (command.Result, error) {
	r.lines = append(r.lines, cmd.String())
	return command.Result{}, nil
}

func TestWhatMdadmIsTold(t *testing.T) {
	r := &recorder{}
	tool, ctx := Tool{Run: r, Sys: sysfs(t)}, t.Context()
	a := Array{Device: "md127", UUID: uuid, Level: "raid1", Consistency: "bitmap"}
	for _, err := range []error{
		tool.Create(ctx, Creation{Name: "hf-x-1", UUID: uuid, Level: "raid5", Component: storage.GiB, DataOffset: storage.MiB, Chunk: 64 * storage.KiB, Consistency: "bitmap", AssumeClean: true, Members: []string{"/dev/a", "/dev/b"}}),
		tool.Reshape(ctx, a, "raid5", 4), tool.Reshape(ctx, a, "raid1", 3), tool.Replace(ctx, a, "/dev/a", "/dev/b"), tool.Protect(ctx, a, "resync"), tool.Protect(ctx, a, "bitmap"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	want := []string{
		"mdadm --create /dev/md/hf-x-1 --run --force --metadata=1.2 --homehost=any --name=hf-x-1 --uuid=" + uuid + " --level=raid5 --raid-devices=2 --size=1048576 --data-offset=1024 --chunk=64 --bitmap=internal --assume-clean /dev/a /dev/b",
		"mdadm --grow /dev/md127 --raid-devices=4 --level=raid5",
		"mdadm --grow /dev/md127 --raid-devices=3",
		"mdadm /dev/md127 --replace /dev/a --with /dev/b",
		"mdadm --grow /dev/md127 --bitmap=none",
	}
	if diff := cmp.Diff(want, r.lines); diff != "" {
		t.Error(diff)
	}
}

func TestAnEmptyLogIsOneThatTheKernelTakes(t *testing.T) {
	header, err := emptyLog(uuid)
	if err != nil || len(header) != 4096 {
		t.Fatal(err)
	}
	sum := binary.LittleEndian.Uint32(header[checksumAt:])
	binary.LittleEndian.PutUint32(header[checksumAt:], 0)
	if crc32.Checksum(header, crc32.MakeTable(crc32.Castagnoli)) != sum {
		t.Error("the checksum is not over the header with no checksum")
	}
	id, _ := hex.DecodeString(strings.ReplaceAll(uuid, "-", ""))
	if binary.LittleEndian.Uint32(header[signatureAt:]) != crc32.Checksum(id, crc32.MakeTable(crc32.Castagnoli)) {
		t.Error("the signature is not that of the UUID")
	}
	if _, err := emptyLog("1234"); !errors.Is(err, fault.Invalid) {
		t.Error(err)
	}
}

func FuzzParseSuperblock(f *testing.F) {
	buf := make([]byte, 64)
	binary.LittleEndian.PutUint32(buf, superblockMagic)
	f.Add(buf)
	f.Fuzz(func(t *testing.T, data []byte) {
		if got := parseSuperblock(data); got != "" && len(got) != 36 {
			t.Fatalf("%q", got)
		}
		if n := parseEvents(data); n != 0 && parseSuperblock(data) == "" {
			t.Fatalf("%d events without a superblock", n)
		}
	})
}

func FuzzParseCompleted(f *testing.F) {
	for _, text := range []string{"none", "delayed", "1 / 2", "9223372036854775807 / 1", "-1 / 5"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if done, total := parseCompleted(text); done < 0 || total < done {
			t.Fatalf("%q gives %d of %d", text, done, total)
		}
	})
}
