#!/usr/bin/env bash
# Generates the Go code of the API with Debian's protoc and the plug-ins of go.mod's protobuf and of a pinned grpc.
set -euo pipefail
cd "$(dirname "$0")"
bin=$(git rev-parse --show-toplevel)/.work/bin
mkdir -p "$bin"
go build -buildvcs=false -o "$bin/protoc-gen-go" google.golang.org/protobuf/cmd/protoc-gen-go
[ -x "$bin/protoc-gen-go-grpc" ] || GOBIN=$bin go install google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.1
PATH=$bin:$PATH protoc --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative coordinator.proto
