package uml_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/holdfast-storage/holdfast/pkg/plan"
	"github.com/holdfast-storage/holdfast/pkg/storage"
	"github.com/holdfast-storage/holdfast/tests/uml"
)

// osdTools are what scripts with an OSD on a stack have in common. The guest is a node of a cluster whose other daemons run on the host.
const osdTools = agentTools + `
limit=1GiB/s
export CEPH_CONF="$DIR/data/ceph.conf"
intact() { rados -p only get file /run/got; [ "$(sha256sum < /run/got)" = "$(cat "$DIR/sum")" ]; rm /run/got; }
up() { until hf osd list | grep '^3 .* up .*volume.hf--bulk-data'; do sleep 0.3; done; }
`

// osdScript makes a mirror that carries an OSD, has it hold the only copy of some data, and crashes while a third disk joins.
const osdScript = osdTools + `
agent
not plan new bulk --disk HF-0001 --osd --fs xfs 2> "$DIR/refused"
grep 'fs osd' "$DIR/refused"
plan new bulk --disk HF-0001,HF-0002 --osd --class stack --reserve 64MiB -o json > "$DIR/new.json"
plan approve "$(id "$DIR/new.json")" --token serial.HF-0001,serial.HF-0002
finished "$(id "$DIR/new.json")"
up
ceph <<END
osd crush rule create-replicated only default osd stack
osd pool create only 8 8 replicated only --autoscale-mode=off
osd pool set only size 1 --yes-i-really-mean-it
END
dd if=/dev/urandom of=/run/file bs=1M count=64 status=none
sha256sum < /run/file > "$DIR/sum"
rados -p only put file /run/file
intact
again 1MiB/s
intact                                                             # the OSD has not noticed that the agent is another
plan grow bulk --step add:HF-0003 -o json > "$DIR/grow.json"
grep 'the OSD is stopped for some seconds' "$DIR/grow.json"
plan approve "$(id "$DIR/grow.json")" --token serial.HF-0003
until grep -q reshape /proc/mdstat; do sleep 0.1; done
touch "$DIR/die"
sleep 1000
`

// osdAfterScript is the boot after that: the OSD serves before the reshape is over, and in the end it has the new space.
const osdAfterScript = osdTools + `
limit=1MiB/s
agent
up
grep -q reshape /proc/mdstat
intact
again 1GiB/s
finished "$(id "$DIR/grow.json")"
grep -A1 raid5 /proc/mdstat | grep '3/3'
up
intact
[ "$(blockdev --getsize64 /dev/mapper/hf--bulk-data)" = "$(sed -n 's/^  "capacity_after_bytes": \(.*\),/\1/p' "$DIR/grow.json")" ]
hf osd list
kill $pid; wait $pid
echo SCRIPT-OK
`

// TestAnOSDOnAStack has a stack carry an OSD: it is made by the stack's plan, started after a crash, and grown by the plan that grows the stack.
func TestAnOSDOnAStack(t *testing.T) {
	if missing := uml.Missing(); missing != "" {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs " + missing)
		}
		t.Skip("needs " + missing)
	}
	b := newBench(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	l := newLab(t, ctx)
	b.machine.Network, b.machine.Address, b.machine.Memory = l.network, "10.99.0.2/24", 1536
	b.nodeOf(l, "10.99.0.2")
	b.ceph(ctx, l, nil, "tell", "mon.*", "config", "set", "mon_allow_pool_size_one", "true")
	for range 3 {
		b.disk(1024)
	}
	b.script(osdScript)
	b.script(osdAfterScript)
	b.osdHas(ctx, l, b.planned("grow.json").After)
}

// nodeOf makes the guest's data directory that of a node of a cluster.
func (b *bench) nodeOf(l *lab, address string) {
	b.t.Helper()
	conf, err := os.ReadFile(filepath.Join(l.ceph(), "ceph.conf"))
	if err != nil {
		b.t.Fatal(err)
	}
	dir := filepath.Join(b.dir, "data")
	text := "[global]\n"
	for _, line := range regexp.MustCompile(`(?m)^(fsid|mon host)\s*=.*$`).FindAllString(string(conf), -1) {
		text += line + "\n"
	}
	text += fmt.Sprintf("public addr = %s\nkeyring = %s/keys/$name.keyring\nrun dir = /run\nlog file = %s/log/$name.log\n"+
		"[osd]\nosd data = %s/$name\nosd objectstore = bluestore\ncrush location = root=default host=guest\nosd memory target = 939524096\nbluestore cache autotune = false\nbluestore cache size = 33554432\n",
		address, dir, dir, dir)
	key, err := os.ReadFile(filepath.Join(l.ceph(), "keys", "client.admin.keyring"))
	if err == nil {
		err = errors.Join(os.MkdirAll(filepath.Join(dir, "keys"), 0o755), os.MkdirAll(filepath.Join(dir, "log"), 0o755))
	}
	if err == nil {
		err = errors.Join(os.WriteFile(filepath.Join(dir, "ceph.conf"), []byte(text), 0o600), os.WriteFile(filepath.Join(dir, "keys", "client.admin.keyring"), key, 0o600))
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// planned reads a plan that a script has kept.
func (b *bench) planned(name string) plan.Plan {
	b.t.Helper()
	data, err := os.ReadFile(filepath.Join(b.dir, name))
	var p plan.Plan
	if err == nil {
		p, err = plan.Parse(data)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return p
}

// ceph runs a command of the cluster on the host and reads its answer, if into is not nil.
func (b *bench) ceph(ctx context.Context, l *lab, into any, args ...string) {
	b.t.Helper()
	out, err := l.network.Command(ctx, "ceph", append([]string{"--conf", filepath.Join(l.ceph(), "ceph.conf"), "--format", "json"}, args...)...).Output()
	if err == nil && into != nil {
		err = json.Unmarshal(out, into)
	}
	if err != nil {
		b.t.Fatalf("ceph %v: %v", args, err)
	}
}

// osdHas compares what the cluster knows of the OSD with what its volume has.
func (b *bench) osdHas(ctx context.Context, l *lab, want storage.Bytes) {
	b.t.Helper()
	var metadata struct {
		Size storage.Bytes `json:"bluestore_bdev_size,string"`
	}
	var tree struct {
		Nodes []struct {
			ID     int     `json:"id"`
			Class  string  `json:"device_class"`
			Weight float64 `json:"crush_weight"`
		} `json:"nodes"`
	}
	b.ceph(ctx, l, &metadata, "osd", "metadata", "3")
	b.ceph(ctx, l, &tree, "osd", "tree")
	if metadata.Size != want {
		b.t.Errorf("the OSD has a device of %d bytes, its volume %d", metadata.Size, want)
	}
	for _, n := range tree.Nodes {
		if n.ID == 3 {
			b.t.Logf("osd.3 of class %s has %s and a CRUSH weight of %.5f", n.Class, metadata.Size, n.Weight)
			if n.Class != "stack" || math.Abs(n.Weight-float64(want)/float64(storage.TiB)) > 1e-4 {
				b.t.Errorf("osd.3: %+v, want a weight of %.5f", n, float64(want)/float64(storage.TiB))
			}
			return
		}
	}
	b.t.Error("osd.3 is not in the CRUSH map")
}
