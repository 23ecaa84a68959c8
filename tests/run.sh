#!/usr/bin/env bash
# The whole test run (`make test`): builds, brings one real cluster up for the tests that
# share it, runs every tier, takes everything down. Ends with go test's own lines.
set -euo pipefail
cd "$(dirname "$0")/.."

# All the run mounts is mounted in a namespace of its own, which ends with its last process: a
# run that is killed leaves no mount behind, and one that an earlier run left dead (a FUSE
# mount without its server fails every mkfs.btrfs) is not seen by this one.
if [ "${HOLDFAST_TEST_MOUNTS:-}" != "$$" ]; then
  exec env HOLDFAST_TEST_MOUNTS=$$ unshare --mount -- bash tests/run.sh
fi
mapfile -t fuse < <(awk '$3 ~ /^fuse/ { print $2 }' /proc/self/mounts)
for where in "${fuse[@]}"; do
  where=$(printf %b "$where")
  timeout -s KILL 5 stat "$where" >/dev/null 2>&1 || umount -l "$where" || echo "cannot put $where aside"
done

state=${HOLDFAST_TEST_STATE:-/var/tmp/hf-test}  # short: Unix sockets end at 107 bytes
export HOLDFAST_KUBE_DIR=${HOLDFAST_KUBE_DIR:-$state/kube}
cluster=$state/c
mkdir -p "$state"

step() { printf '\n== %s (%(%H:%M:%S)T, %d s in)\n' "$*" -1 "$SECONDS"; }

down() { bin/holdfast down --data-dir "$cluster" --force --wipe --yes; }

# fallen keeps what the daemons said, and shows the end of it, before the cluster goes.
fallen() {
  [ $? = 0 ] || [ ! -d "$cluster/log" ] || {
    rm -rf "$state/failed" && cp -r "$cluster/log" "$state/failed"
    echo "the daemons' logs are kept in $state/failed; their ends:"
    tail -n 5 "$state"/failed/*
  }
  down
}

step "build"
make --no-print-directory build
step "check format, vet and lint"
unformatted=$(gofmt -l cmd csi images pkg tests)
[ -z "$unformatted" ] || { echo "error: run gofmt on $unformatted" >&2; exit 1; }
before=$(git diff | sha256sum)
make --no-print-directory generate
[ "$(git diff | sha256sum)" = "$before" ] || { echo "error: make generate changes files: commit them" >&2; exit 1; }
go vet ./...
make --no-print-directory lint

step "build Kubernetes, its storage specs, the sidecars and csi-sanity (minutes the first time)"
go run ./tests/kube/hfkube build
go run ./tests/kube/hfkube build-conformance
export HOLDFAST_CSI_SANITY=$HOLDFAST_KUBE_DIR/bin/csi-sanity
export HOLDFAST_CSI_SANITY_NEXT=$state/csi-sanity-next
(cd tests/sanity56 && CGO_ENABLED=0 GOFLAGS=-buildvcs=false \
  go build -trimpath -o "$HOLDFAST_CSI_SANITY_NEXT" github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity)

step "bring the shared cluster up"
[ ! -e "$cluster" ] || down
trap fallen EXIT
bin/holdfast up --data-dir "$cluster"
export HOLDFAST_TEST_CLUSTER=$cluster

step "unit and conformance tests, with the race detector"
go test -race -count=1 $(go list ./... | grep -v /tests/) ./tests/arch
step "csi-sanity"
go test -count=1 -timeout 20m ./tests/sanity
step "holdfast volume"
go test -count=1 -timeout 20m ./tests/volumes
step "controller and node killed at points of their work, on a new cluster"
down
bin/holdfast up --data-dir "$cluster"
go test -count=1 -timeout 20m ./tests/crash
trap - EXIT
down
unset HOLDFAST_TEST_CLUSTER

step "coordinators: killed, stopped, with a disk that hangs"
go test -count=1 -timeout 10m ./tests/coordinator
step "the whole of holdfast up"
go test -count=1 -timeout 20m ./tests/standalone
step "placement plans carried out on a cluster of six OSDs"
go test -count=1 -timeout 20m ./tests/placement
step "OSDs on disks: made, grown, replaced, adopted, removed"
go test -count=1 -timeout 20m ./tests/osds
step "a cluster that breaks under the services"
go test -count=1 -timeout 20m ./tests/faults
step "User Mode Linux: krbd, kernel CephFS, disks and layouts, the agent, whole images"
go test -count=1 -timeout 40m ./tests/uml
step "Kubernetes: two nodes, real sidecars"
go test -count=1 -timeout 40m ./tests/kube
