package lvm

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-storage/holdfast/pkg/command"
	"github.com/holdfast-storage/holdfast/pkg/fault"
	"github.com/holdfast-storage/holdfast/pkg/storage"
)

// canned answers every command with one text.
type canned struct {
	out string
	ran []command.Cmd
}

func (c *canned) Run(_ context.Context, cmd command.Cmd) (command.Result, error) {
	c.ran = append(c.ran, cmd)
	return command.Result{Stdout: []byte(c.out)}, nil
}

// As LVM 2.03.16 prints it.
const (
	pvs = `  {"report": [{"pv": [{"pv_name":"/dev/md127", "vg_name":"hf-t", "pv_size":"419430400"}, {"pv_name":"/dev/md126", "vg_name":"", "pv_size":"67108864"}]}]}`
	lvs = `  {"report": [{"lv": [{"vg_name":"hf-t", "lv_name":"data", "lv_size":"507510784", "lv_active":"active", "lv_tags":""}, {"vg_name":"hf-t", "lv_name":"next", "lv_size":"4194304", "lv_active":"", "lv_tags":"a,holdfast.new"}]}]}`
)

func TestReportsAreRead(t *testing.T) {
	got, err := Tool{Run: &canned{out: pvs}}.PVs(t.Context())
	if diff := cmp.Diff([]PV{{"/dev/md127", "hf-t", 400 * storage.MiB}, {"/dev/md126", "", 64 * storage.MiB}}, got); err != nil || diff != "" {
		t.Error(err, diff)
	}
	volumes, err := Tool{Run: &canned{out: lvs}}.LVs(t.Context(), "hf-t")
	if diff := cmp.Diff([]LV{{"hf-t", "data", 484 * storage.MiB, true, false}, {"hf-t", "next", 4 * storage.MiB, false, true}}, volumes); err != nil || diff != "" {
		t.Error(err, diff)
	}
	if path := volumes[0].Path(); path != "/dev/mapper/hf--t-data" {
		t.Error(path)
	}
	for _, bad := range []string{"", "{", `{"report": [{"pv": [{"pv_size":"12m"}]}]}`, `{"report": [{"pv": [{"pv_size":"-1"}]}]}`} {
		if _, err := (Tool{Run: &canned{out: bad}}).PVs(t.Context()); !errors.Is(err, fault.Unsupported) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestWithoutUdevLVMMakesItsNodesItself(t *testing.T) {
	c := &canned{}
	if err := (Tool{Run: c, NoUdev: true}).ExtendVolume(t.Context(), "g", "v", storage.GiB); err != nil {
		t.Fatal(err)
	}
	if line := c.ran[0].String(); !strings.HasSuffix(line, "--size 1073741824b g/v") || !strings.Contains(strings.Join(c.ran[0].Env, " "), "DM_DISABLE_UDEV=1") {
		t.Error(line, c.ran[0].Env)
	}
}

func FuzzParseReport(f *testing.F) {
	f.Add([]byte(pvs))
	f.Add([]byte(lvs))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _ = Tool{Run: &canned{out: string(data)}}.PVs(context.Background())
		_, _ = Tool{Run: &canned{out: string(data)}}.LVs(context.Background(), "g")
	})
}
