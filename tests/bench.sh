#!/usr/bin/env bash
# `make bench`: brings a cluster up, measures, takes it down.
set -euo pipefail
cd "$(dirname "$0")/.."

dir=${HOLDFAST_BENCH_DIR:-/var/tmp/hf-bench}
[ ! -e "$dir" ] || bin/holdfast down --data-dir "$dir" --force --wipe --yes
trap 'bin/holdfast down --data-dir "$dir" --force --wipe --yes' EXIT
bin/holdfast up --data-dir "$dir"
go run ./tests/bench -data-dir "$dir" "$@"
