package gpt

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// As sfdisk of util-linux 2.38 prints it.
const printed = `{"partitiontable": {"label": "gpt", "id": "D12BEAA8-E416-3343-9CCF-CF3C9B29B56B", "device": "/dev/ubda", "unit": "sectors",
 "firstlba": 2048, "lastlba": 262110, "sectorsize": 512, "partitions": [
 {"node": "/dev/ubda1", "start": 2048, "size": 212992, "type": "0FC63DAF-8483-4772-8E79-3D69D8477DE4", "uuid": "1F54F8CE-989E-3F4C-93DF-CF6D4022B9A5", "name": "hf-p-1"}]}}`

func TestATableIsRead(t *testing.T) {
	got, err := parse([]byte(printed))
	want := Table{GUID: "d12beaa8-e416-3343-9ccf-cf3c9b29b56b", Partitions: []Partition{
		{"/dev/ubda1", "1f54f8ce-989e-3f4c-93df-cf6d4022b9a5", "hf-p-1", storage.MiB, 104 * storage.MiB},
	}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Error(err, diff)
	}
	if _, ok := got.Partition("1f54f8ce-989e-3f4c-93df-cf6d4022b9a5"); !ok {
		t.Error("it is not found by its UUID")
	}
	for _, change := range [][2]string{{`"gpt"`, `"dos"`}, {"512", "520"}, {"2048,", "-1,"}, {"212992", "9223372036854775807"}} {
		if _, err := parse([]byte(strings.ReplaceAll(printed, change[0], change[1]))); !errors.Is(err, fault.Unsupported) {
			t.Errorf("%v: %v", change, err)
		}
	}
}

// TestATableIsWritten uses the real programs on a file.
func TestATableIsWritten(t *testing.T) {
	if _, err := exec.LookPath("sfdisk"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs fdisk")
		}
		t.Skip("needs fdisk")
	}
	file := filepath.Join(t.TempDir(), "disk")
	f, err := os.Create(file)
	if err == nil {
		err = errors.Join(f.Truncate(64<<20), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	tool, ctx := Tool{Run: command.System{}}, t.Context()
	if _, err := tool.Read(ctx, file); !errors.Is(err, fault.NotFound) {
		t.Errorf("a blank disk: %v", err)
	}
	guid, uuid := "d12beaa8-e416-8343-9ccf-cf3c9b29b56b", "1f54f8ce-989e-8f4c-93df-cf6d4022b9a5"
	// blockdev reads sector sizes of devices alone, so the script is what is tried here.
	if err := tool.sfdisk(ctx, "label: gpt\nlabel-id: "+guid+"\nfirst-lba: 2048\n", file); err != nil {
		t.Fatal(err)
	}
	if err := tool.sfdisk(ctx, "start=2048, size=20480, type="+TypeRAID+", uuid="+uuid+", name=\"hf-x-1\"\n", "--append", "--force", file); err != nil {
		t.Fatal(err)
	}
	table, err := tool.Read(ctx, file)
	if err != nil || table.GUID != guid {
		t.Fatal(err, table)
	}
	if p, ok := table.Partition(uuid); !ok || p.Start != storage.MiB || p.Size != 10*storage.MiB || p.Name != "hf-x-1" {
		t.Error(p)
	}
	if found, err := tool.Signatures(ctx, file); err != nil || len(found) == 0 {
		t.Error(err, found)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(printed))
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		table, err := parse(data)
		for _, p := range table.Partitions {
			if err == nil && (p.Start < 0 || p.Size < 0) {
				t.Fatalf("%+v", p)
			}
		}
	})
}
