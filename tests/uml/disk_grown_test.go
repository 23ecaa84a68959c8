package uml_test

import "testing"

// grownScript lets disks grow under a running node, as those of a virtual machine do: the agent notices by the kernel's event alone, and proposes what
// takes the new space to the top. The disks are loop devices, whose files grow.
const grownScript = agentTools + `
mkdir /mnt/store
mkfs.ext4 -q /dev/ubda
mount /dev/ubda /mnt/store
for n in 0 1 2; do truncate -s 448M /mnt/store/d$n; losetup -P /dev/loop$n /mnt/store/d$n; done
devices="--device /dev/loop0 --device /dev/loop1 --device /dev/loop2"
disk() { echo "serial./mnt/store/d$1"; }
grown() { truncate -s "$2" "/mnt/store/d$1"; losetup -c "/dev/loop$1"; }
proposed() { until plan list | grep "stack $1 .*proposed"; do sleep 0.2; done; proposal=$(plan list | sed -n "s/ .*stack $1 .*proposed.*//p"); }
space() { df --output=size -BM "/mnt/$1" | tail -1 | tr -dc 0-9; }
limit=1GiB/s
agent
plan new solo --disk "$(disk 0)" --mount /mnt/solo --reserve 64MiB -o json > "$DIR/solo.json"
plan approve "$(id "$DIR/solo.json")" --token "$(disk 0)"
finished "$(id "$DIR/solo.json")"
plan new pair --disk "$(disk 1),$(disk 2)" --fs xfs --mount /mnt/pair --reserve 64MiB -o json > "$DIR/pair.json"
plan approve "$(id "$DIR/pair.json")" --token "$(disk 1),$(disk 2)"
finished "$(id "$DIR/pair.json")"
for name in solo pair; do
  dd if=/dev/urandom of=/mnt/$name/file bs=1M count=40 conv=fsync status=none
  sha256sum < /mnt/$name/file > "$DIR/$name.sum"
done
solo=$(space solo) pair=$(space pair)

grown 0 768M
sfdisk --list /dev/loop0 2>&1 | grep 'backup GPT table is not on the end'
proposed solo
hf agent status | grep "proposed: $proposal of stack solo: take the new size of"
plan show "$proposal"
plan approve "$proposal" --token "$proposal"
finished "$proposal"
[ "$(space solo)" -gt $((solo + 250)) ]
if sfdisk --list /dev/loop0 2>&1 | grep 'backup GPT'; then exit 1; fi

grown 1 704M                                                      # one half of a mirror: nothing is gained yet
until curl -s --unix-socket "$DIR/data/run/agent.sock" http://agent/v1/inventory | grep -q '"size_bytes":738197504\b'; do sleep 0.2; done
sleep 12                                                           # two looks
if plan list | grep 'stack pair .*proposed'; then exit 1; fi
grown 2 736M
proposed pair
plan approve "$proposal" --token "$proposal"
finished "$proposal"
[ "$(space pair)" -gt $((pair + 200)) ]
umount /mnt/solo /mnt/pair
for name in solo pair; do
  mount "/dev/mapper/hf--$name-data" "/mnt/$name"
  [ "$(sha256sum < /mnt/$name/file)" = "$(cat "$DIR/$name.sum")" ]
  umount "/mnt/$name"
done
plan list
kill $pid; wait $pid
echo SCRIPT-OK
`

func TestDisksThatGrowUnderARunningNode(t *testing.T) {
	b := newBench(t)
	b.disk(3072)
	b.machine.Modules = append(b.machine.Modules, "loop")
	b.script(grownScript)
}
