package uml_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-storage/holdfast/tests/uml"
	"github.com/holdfast-storage/holdfast/tests/uml/layoutrun"
)

// agentTools are what scripts with an agent have in common.
const agentTools = `
set -eu
ip link set lo up
hf() { "$DIR/holdfast" --data-dir "$DIR/data" "$@"; }
devices=
for disk in /dev/ubd[a-h]; do devices="$devices --device $disk"; done
plan() { hf plan $devices "$@"; }
agent() {
  setpriv --no-new-privs --bounding-set "$CAPABILITIES" "$DIR/holdfastd" agent --data-dir "$DIR/data" $devices --limit $limit --min-size 64MiB ${scrubs-} 2>> "$DIR/agent.log" &
  pid=$!
  until hf agent status > /dev/null 2>&1; do sleep 0.1; done
}
limit=64MiB/s
again() { kill $pid; wait $pid || true; limit=$1; agent; }             # with another limit: a slow machine must not miss a reshape
finished() { plan watch "$1" | grep completed; }
not() { if "$@"; then return 1; fi; }                                  # a failure that is wanted: "set -e" lets "! command" pass whatever it returns
id() { sed -n 's/^  "id": "\(.*\)",/\1/p' "$1"; }
`

// agentScript has the agent make and grow a stack: it is killed in the middle of a reshape, paused, and found again.
const agentScript = agentTools + `
agent
[ "$(stat -c %a "$DIR/data/run/agent.sock")" = 600 ]
not "$DIR/holdfastd" agent --data-dir "$DIR/data" 2> "$DIR/second"  # one agent a directory
grep -q 'another process' "$DIR/second"
plan new media --disk HF-0001,HF-0002 --mount /mnt/media --reserve 64MiB --out "$DIR/new.json" > /dev/null
new=$(id "$DIR/new.json")
plan propose "$DIR/new.json"
plan list | grep "$new.*proposed"
plan approve "$new" | grep '2 to take'
not plan approve "$new" --token serial.HF-0001                    # not all that is at stake
plan approve "$new" --token serial.HF-0002,serial.HF-0001
finished "$new"
dd if=/dev/urandom of=/mnt/media/file bs=1M count=40 status=none
sum=$(sha256sum < /mnt/media/file)

again 1MiB/s
plan grow media --step add:HF-0004 -o json > "$DIR/stale.json"    # the agent keeps it
plan grow media --step add:HF-0003,HF-0004 -o json > "$DIR/grow.json"
grow=$(id "$DIR/grow.json") stale=$(id "$DIR/stale.json")
plan approve "$grow" --token serial.HF-0003,serial.HF-0004
until hf agent status | grep "$grow"; do sleep 0.1; done
until plan list | grep "$grow" && grep -q reshape /proc/mdstat; do sleep 0.1; done
not plan run "$DIR/new.json" --approve x 2> /dev/null
kill -9 $pid; wait $pid || true
agent                                                            # goes on by itself
until hf agent status | grep "$grow"; do sleep 0.1; done
plan pause "$grow"
md=$(grep -l reshape /sys/block/md*/md/sync_action | head -1 | xargs dirname)
until [ "$(cat $md/sync_speed_max)" = '1 (local)' ]; do sleep 0.1; done
plan list | grep "$grow.*pausing"
kill $pid; wait $pid || true                                     # an upgrade: the pause stays in force
[ "$(cat $md/sync_speed_max)" = '1 (local)' ]
grep -q reshape $md/sync_action
limit=64MiB/s
agent
sleep 2
plan list | grep "$grow.*pausing"
plan resume "$grow"
finished "$grow"
not plan approve "$stale" --token serial.HF-0004 2> "$DIR/refused"
grep 'is stale.*disk serial.HF-0003 is part of it' "$DIR/refused"
plan cancel "$stale"
if plan list | grep "$stale"; then exit 1; fi
[ "$(sha256sum < /mnt/media/file)" = "$sum" ]
grep -A1 raid5 /proc/mdstat
plan list
hf agent status
kill $pid; wait $pid
umount /mnt/media
echo SCRIPT-OK
`

// abandonScript loses a new disk for good in the middle of a reshape: the plan is given up, and another disk takes its place.
const abandonScript = agentTools + `
agent
plan new media --disk HF-0001,HF-0002 --mount /mnt/media --reserve 64MiB -o json > "$DIR/new.json"
plan approve "$(id "$DIR/new.json")" --token serial.HF-0001,serial.HF-0002
finished "$(id "$DIR/new.json")"
dd if=/dev/urandom of=/mnt/media/file bs=1M count=40 status=none
sum=$(sha256sum < /mnt/media/file)
again 1MiB/s
plan grow media --step add:HF-0003,HF-0004 -o json > "$DIR/grow.json"
grow=$(id "$DIR/grow.json")
plan approve "$grow" --token serial.HF-0003,serial.HF-0004
until grep -q reshape /proc/mdstat; do sleep 0.1; done
kill -9 $pid; wait $pid || true
mdadm --fail /dev/md127 /dev/ubdd1
until mdadm --remove /dev/md127 /dev/ubdd1; do sleep 0.1; done        # it is pulled
devices=${devices/--device \/dev\/ubdd/}
limit=64MiB/s
agent
until hf agent status | grep HF-PLAN-STOPPED; do sleep 0.2; done
until [ "$(cat /sys/block/md127/md/sync_action)" = idle ]; do sleep 0.2; done
not plan grow media --step add:HF-0005 2> "$DIR/refused"
grep 'has not come to its end' "$DIR/refused"
plan abandon "$grow" 2>&1 | grep 'serial.HF-0003,serial.HF-0004'
plan abandon "$grow" --token serial.HF-0003,serial.HF-0004
until plan list | grep 'bring to an end' | grep completed; do sleep 0.2; done
plan list | grep "$grow.*abandoned"
[ "$(df --output=size -BM /mnt/media | tail -1 | tr -dc 0-9)" -gt 500 ]
plan grow media --step replace:serial.HF-0004=HF-0005 -o json > "$DIR/replace.json"
plan approve "$(id "$DIR/replace.json")" --token serial.HF-0004,serial.HF-0005
finished "$(id "$DIR/replace.json")"
[ "$(sha256sum < /mnt/media/file)" = "$sum" ]
grep -A1 raid5 /proc/mdstat | grep '4/4'
[ "$(cat /sys/block/md127/md/consistency_policy)" = ppl ]
plan list
kill $pid; wait $pid
umount /mnt/media
echo SCRIPT-OK
`

// crashScript has the machine die in the middle of a reshape.
const crashScript = agentTools + `
agent
plan new media --disk HF-0001,HF-0002 --mount /mnt/media --reserve 64MiB -o json > "$DIR/new.json"
plan approve "$(id "$DIR/new.json")" --token serial.HF-0001,serial.HF-0002
finished "$(id "$DIR/new.json")"
dd if=/dev/urandom of=/mnt/media/file bs=1M count=40 conv=fsync status=none
sha256sum < /mnt/media/file > "$DIR/sum"
again 1MiB/s
plan grow media --step add:HF-0003,HF-0004 -o json > "$DIR/grow.json"
plan approve "$(id "$DIR/grow.json")" --token serial.HF-0003,serial.HF-0004
until plan watch "$(id "$DIR/grow.json")" | head -1 | grep -q reshape && grep -q reshape /proc/mdstat; do sleep 0.1; done
echo "in the reshape: $(grep -A2 '^md' /proc/mdstat)"
touch "$DIR/die"
sleep 1000
`

// afterScript is the boot after that: nobody does anything, and the plan comes to its end. Then parity goes bad, and a disk.
const afterScript = agentTools + `
scrubs="--scrub-every 2s"
agent
finished "$(id "$DIR/grow.json")"
[ "$(sha256sum < /mnt/media/file)" = "$(cat "$DIR/sum")" ]
until grep -q 'scrub begins' "$DIR/agent.log"; do sleep 0.2; done
curl -s "$(hf agent status | sed -n 's/^metrics: //p')" | grep 'holdfast_array_state.*clean.* 1'
until [ "$(cat /sys/block/md127/md/sync_action)" = idle ]; do sleep 0.1; done
dd if=/dev/urandom of=/dev/ubdb1 bs=1M seek=100 count=1 conv=notrunc,fsync status=none
until hf agent status | grep HF-ARRAY-MISMATCH; do sleep 0.2; done
kill $pid; wait $pid || true
scrubs="--scrub-every 0"
agent
until [ "$(cat /sys/block/md127/md/sync_action)" = idle ]; do sleep 0.1; done
mdadm --fail /dev/md127 /dev/ubdb1                                # the disk whose bytes went bad
until plan list | grep 'proposed.*replace serial.HF-0002 .* by serial.HF-0005'; do sleep 0.2; done
hf agent status | grep -e HF-DISK-FAILING -e HF-ARRAY-DEGRADED
replace=$(plan list | sed -n 's/ .*proposed.*//p')
plan approve "$replace" --token serial.HF-0002,serial.HF-0005
finished "$replace"
[ "$(sha256sum < /mnt/media/file)" = "$(cat "$DIR/sum")" ]
until ! hf agent status | grep -e HF-DISK -e HF-ARRAY-DEGRADED; do sleep 0.2; done
kill $pid; wait $pid
umount /mnt/media
echo SCRIPT-OK
`

func TestTheAgentAfterACrash(t *testing.T) {
	b := newBench(t)
	for range 5 {
		b.disk(256)
	}
	b.script(crashScript)
	b.script(afterScript)
}

func TestAPlanWhoseDiskDiedIsGivenUp(t *testing.T) {
	b := newBench(t)
	for range 5 {
		b.disk(256)
	}
	b.script(abandonScript)
}

func TestTheAgentGrowsAStack(t *testing.T) {
	b := newBench(t)
	for range 4 {
		b.disk(256)
	}
	b.script(agentScript)
}

// programsFor builds this repository's programs for a guest.
func (b *bench) programsFor(ctx context.Context) {
	b.t.Helper()
	for name, cgo := range map[string]string{"holdfast": "0", "holdfastd": "1"} {
		cmd := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(b.dir, name), "../../cmd/"+name)
		cmd.Env = append(os.Environ(), "CGO_ENABLED="+cgo)
		if out, err := cmd.CombinedOutput(); err != nil {
			b.t.Fatalf("%v\n%s", err, out)
		}
	}
}

// dies ends the guest as a crash does if it asks for that.
func (b *bench) dies(ctx context.Context, g *uml.Guest, die string) bool {
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-g.Ended():
			return false
		case <-ctx.Done():
			return false
		case <-ticker.C:
			if _, err := os.Stat(die); err == nil {
				g.Stop()
				return true
			}
		}
	}
}

// capabilities are those that the agent's unit leaves it, as setpriv takes them.
func (b *bench) capabilities() string {
	b.t.Helper()
	unit, err := os.ReadFile("../../deploy/node/holdfast-agent.service")
	if err != nil {
		b.t.Fatal(err)
	}
	for line := range strings.Lines(string(unit)) {
		if list, ok := strings.CutPrefix(strings.TrimSpace(line), "CapabilityBoundingSet="); ok {
			return "-all,+" + strings.ToLower(strings.ReplaceAll(strings.ReplaceAll(list, "CAP_", ""), " ", ",+"))
		}
	}
	b.t.Fatal("the unit bounds no capabilities")
	return ""
}

// script runs a script with this repository's programs in a guest. It ends by saying SCRIPT-OK.
func (b *bench) script(text string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 10*time.Minute)
	defer cancel()
	b.programsFor(ctx)
	script := filepath.Join(b.dir, "script")
	if err := os.WriteFile(script, []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
	die := filepath.Join(b.dir, layoutrun.DieFile)
	_ = os.Remove(die)
	g, err := b.machine.Boot(ctx, "s", []string{"/bin/bash", script}, []string{"DIR=" + b.dir, "DM_DISABLE_UDEV=1", "CAPABILITIES=" + b.capabilities()})
	if err != nil {
		b.t.Fatal(err)
	}
	if b.dies(ctx, g, die) {
		b.t.Log(g.Output())
		return
	}
	output, code, err := g.Wait(ctx)
	if err != nil || code != 0 || !strings.Contains(output, "SCRIPT-OK") {
		log, _ := os.ReadFile(filepath.Join(b.dir, "agent.log"))
		b.t.Fatalf("exit code %d, %v\n%s\nagent:\n%s", code, err, output, log)
	}
	b.t.Log(output)
}
