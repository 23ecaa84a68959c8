#!/usr/bin/env bash
# Installs the Debian packages that are missing: `deps.sh build` those that building
# needs, `deps.sh run` those of a single-machine cluster too, `deps.sh test` all of them.
# With everything there it does nothing and needs no network.
set -euo pipefail

build=(gcc libc6-dev libcephfs-dev librados-dev librbd-dev make protobuf-compiler)
run=(ceph-common ceph-fuse ceph-mds ceph-mgr ceph-mon ceph-osd cryptsetup-bin e2fsprogs qemu-block-extra
     qemu-system-common qemu-utils util-linux xfsprogs)
test=(7zip btrfs-progs busybox-static conntrack containerd containernetworking-plugins curl debootstrap dmsetup dosfstools
      ethtool fdisk fuse3 gdisk iproute2 iptables kmod libvmdk-utils lvm2 mdadm nftables openssl parted procps
      runc smartmontools socat udev uml-utilities user-mode-linux)

case "${1:-test}" in
  build) want=("${build[@]}") ;;
  run) want=("${build[@]}" "${run[@]}") ;;
  test) want=("${build[@]}" "${run[@]}" "${test[@]}") ;;
  *) echo "usage: deps.sh build|run|test" >&2; exit 2 ;;
esac

missing=()
for package in "${want[@]}"; do
  state=$(dpkg-query -W -f='${db:Status-Abbrev}' "$package" 2>/dev/null || true)
  [ "${state:0:2}" = ii ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

install=(apt-get install --yes --quiet --no-install-recommends "${missing[@]}")
if [ "$(id -u)" != 0 ]; then
  echo "error: packages are missing; run as root: ${install[*]}" >&2
  exit 1
fi
echo "installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
# Services that the packages would start are not wanted: clusters here run by hand.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' > "$policy"
  chmod +x "$policy"
  trap 'rm -f "$policy"' EXIT
fi
apt-get update --quiet
"${install[@]}"
