#!/usr/bin/env bash
# `make demo`: the single-machine cluster, one RBD and one CephFS volume, and what can be
# done with them. Every command is shown before it runs, so that it can be typed again.
set -euo pipefail
cd "$(dirname "$0")/.."

export PATH=$PWD/bin:$PATH
dir=${HOLDFAST_DEMO_DIR:-/var/tmp/hf-demo}
mnt=$dir-mnt

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then bold=$'\e[1m' plain=$'\e[0m'; else bold= plain=; fi
say() { printf '\n%s# %s%s\n' "$bold" "$*" "$plain"; }
run() { printf '%s$ %s%s\n' "$bold" "$*" "$plain"; "$@"; }
hf() { run holdfast --data-dir "$dir" "$@"; }

say "A whole Ceph cluster on this machine: monitor, manager, three OSDs, MDS, CSI services"
hf up

for volume in disk shared; do  # left over from a demo that was cut off
  if holdfast --data-dir "$dir" volume show "$volume" >/dev/null 2>&1; then
    holdfast --data-dir "$dir" volume umount "$volume"
    holdfast --data-dir "$dir" volume delete "$volume" --yes
  fi
done

say "One RBD volume (a disk for one node) and one CephFS volume (a file system for many)"
hf volume create disk --size 1GiB
hf volume create shared --type cephfs --size 1GiB
hf volume mount disk "$mnt/disk"
hf volume mount shared "$mnt/shared"

say "Write to one, copy to the other, compare"
run dd if=/dev/urandom of="$mnt/disk/data" bs=1M count=64 conv=fsync status=none
run cp "$mnt/disk/data" "$mnt/shared/data"
run cmp "$mnt/disk/data" "$mnt/shared/data"

say "Grow both while they are mounted"
run df -h --output=target,size,used "$mnt/disk" "$mnt/shared"
hf volume expand disk 2GiB
hf volume expand shared 2GiB
run df -h --output=target,size,used "$mnt/disk" "$mnt/shared"

say "Unmount, mount again, read back"
hf volume umount disk
hf volume mount disk "$mnt/disk"
run cmp "$mnt/disk/data" "$mnt/shared/data"
hf volume list

say "The state of it all"
hf status

cat <<END

${bold}How to go on${plain}
  export PATH=$PWD/bin:\$PATH
  alias hf='holdfast --data-dir $dir'
  ls $mnt/disk $mnt/shared               the two volumes are still mounted
  hf volume create more --size 5GiB      more volumes
  export CEPH_CONF=$dir/ceph.conf        then Ceph's own tools: ceph -s, rbd ls
  make demo-kube                         the same on a real Kubernetes
${bold}How to take it down${plain}
  hf volume umount disk; hf volume umount shared
  hf down                                 stops it; \`hf up\` brings the same data back
  hf down --wipe                          removes it
END
