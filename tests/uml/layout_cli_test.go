package uml_test

import "testing"

// planScript makes a stack by the commands that a person has, kills the program in the middle of a reshape and goes on.
const planScript = `
set -eu
not() { if "$@"; then return 1; fi; }
hf() { "$DIR/holdfast" --data-dir "$DIR/data" "$@"; }
plan() { hf plan --device /dev/ubda --device /dev/ubdb --device /dev/ubdc --device /dev/ubdd "$@"; }
plan new media --disk HF-0001,HF-0002 --mount /mnt/media --reserve 64MiB --out "$DIR/new.json" > /dev/null
plan run "$DIR/new.json" | grep '2 to take'
not mdadm --examine /dev/ubda1 2> /dev/null                       # nothing was done
not plan run "$DIR/new.json" --approve serial.HF-0001             # not all that is at stake
plan run "$DIR/new.json" --approve serial.HF-0002,serial.HF-0001
dd if=/dev/urandom of=/mnt/media/file bs=1M count=40 status=none
sum=$(sha256sum < /mnt/media/file)
plan grow media --step add:HF-0003,HF-0004 --out "$DIR/grow.json" > /dev/null
id=$(sed -n 's/^  "id": "\(.*\)",/\1/p' "$DIR/grow.json")
plan run "$DIR/grow.json" --approve serial.HF-0003,serial.HF-0004 --limit 8MiB/s 2> "$DIR/progress" &
until grep -q 'reshape.*%' "$DIR/progress"; do sleep 0.1; done
plan list | grep "$id.*running"
not plan run "$id" 2> "$DIR/second"                               # one process has the journal
grep -q 'another process' "$DIR/second"
pkill -9 -x holdfast; wait || true
plan cancel "$id"
plan watch "$id" | head -1 &
plan run "$id" --latency 30ms
plan watch "$id" | grep completed
[ "$(sha256sum < /mnt/media/file)" = "$sum" ]
grep -A1 raid5 /proc/mdstat
plan list
echo SCRIPT-OK
`

func TestPlanCommandsOnRealDisks(t *testing.T) {
	b := newBench(t)
	for range 4 {
		b.disk(256)
	}
	b.script(planScript)
}
