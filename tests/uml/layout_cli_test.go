package uml_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// planScript makes a stack by the commands that a person has, kills the program in the middle of a reshape and goes on.
const planScript = `
set -eu
hf() { "$DIR/holdfast" --data-dir "$DIR/data" "$@"; }
hf plan new media --disk HF-0001,HF-0002 --mount /mnt/media --reserve 64MiB --out "$DIR/new.json" > /dev/null
hf plan run "$DIR/new.json" | grep '2 to take'
! mdadm --examine /dev/ubda1 2> /dev/null                     # nothing was done
! hf plan run "$DIR/new.json" --approve HF-0001               # not all that is at stake
hf plan run "$DIR/new.json" --approve HF-0002,HF-0001
dd if=/dev/urandom of=/mnt/media/file bs=1M count=40 status=none
sum=$(sha256sum < /mnt/media/file)
hf plan grow media --step add:HF-0003,HF-0004 --out "$DIR/grow.json" > /dev/null
id=$(sed -n 's/^  "id": "\(.*\)",/\1/p' "$DIR/grow.json")
hf plan run "$DIR/grow.json" --approve HF-0003,HF-0004 --limit 8MiB/s 2> "$DIR/progress" &
until grep -q 'reshape.*%' "$DIR/progress"; do sleep 0.1; done
hf plan list | grep "$id.*running"
! hf plan run "$id" 2> "$DIR/second"                          # one process has the journal
grep -q 'another process' "$DIR/second"
pkill -9 -x holdfast; wait || true
hf plan cancel "$id"
hf plan watch "$id" | head -1 &
hf plan run "$id" --latency 30ms
hf plan watch "$id" | grep completed
[ "$(sha256sum < /mnt/media/file)" = "$sum" ]
grep -A1 raid5 /proc/mdstat
hf plan list
echo SCRIPT-OK
`

func TestPlanCommandsOnRealDisks(t *testing.T) {
	b := newBench(t)
	for range 4 {
		b.disk(256)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(b.dir, "holdfast"), "../../cmd/holdfast")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	script := filepath.Join(b.dir, "script")
	if err := os.WriteFile(script, []byte(planScript), 0o600); err != nil {
		t.Fatal(err)
	}
	g, err := b.machine.Boot(ctx, "cli", []string{"/bin/bash", script}, []string{"DIR=" + b.dir})
	if err != nil {
		t.Fatal(err)
	}
	output, code, err := g.Wait(ctx)
	if err != nil || code != 0 || !strings.Contains(output, "SCRIPT-OK") {
		t.Fatalf("exit code %d, %v\n%s", code, err, output)
	}
	t.Log(output)
}
