# `make` lists what there is. Every target installs what it needs.
SHELL := /bin/bash
.DEFAULT_GOAL := help

# go-ceph is compiled for the Ceph release of Debian 12 (16.2); what newer clusters add
# is found out at run time.
export GOFLAGS := -tags=pacific,ceph_preview -buildvcs=false
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X main.version=$(VERSION)
TOOLS   := $(CURDIR)/.work/bin

GOLANGCI_LINT := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.12.0
GOVULNCHECK   := golang.org/x/vuln/cmd/govulncheck@v1.1.4

.PHONY: help deps build generate lint vuln test-unit test conformance test-layouts test-crash test-fuzz test-sim test-rebalance soak bench demo demo-kube image clean

##@ Use
demo: build ## bring a cluster up on this machine, make volumes, use them
	@tests/deps.sh run
	@tests/demo.sh

demo-kube: build ## the same on a real Kubernetes of two nodes, with a shared registry
	@tests/deps.sh test
	go run ./tests/kube/hfkube demo

##@ Build
deps: ## install all Debian packages that building, running and testing need
	@tests/deps.sh test

build: ## build bin/holdfast (static) and bin/holdfastd
	@tests/deps.sh build
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/holdfast ./cmd/holdfast
	go build -trimpath -ldflags '$(LDFLAGS)' -o bin/holdfastd ./cmd/holdfastd

generate: ## make generated files anew (none yet; the test run fails on a difference)
	go generate ./...

image: build ## write the container image of both programs to .work/holdfast-image.tar
	@tests/deps.sh test
	go run ./images/build -out .work/holdfast-image.tar

##@ Check
lint: $(TOOLS)/golangci-lint ## run golangci-lint and look for known vulnerabilities
	GOLANGCI_LINT_CACHE=$(CURDIR)/.work/lint $(TOOLS)/golangci-lint run ./...
	@$(MAKE) --no-print-directory vuln

vuln: $(TOOLS)/govulncheck ## look for known vulnerabilities (needs the vulnerability database)
	@$(TOOLS)/govulncheck ./... || { code=$$?; [ $$code = 3 ] && exit 3; \
	  echo "govulncheck: not run to its end (no vulnerability database here?), exit status $$code"; }

test-unit: ## tests without root and without a cluster, with the race detector
	@tests/deps.sh build
	go test -race $$(go list ./... | grep -v /tests/) ./tests/arch

test: ## everything, on real Ceph, User Mode Linux and Kubernetes (as root)
	@tests/deps.sh test
	@tests/run.sh

conformance: build ## all of Kubernetes' own storage specs that apply, on both drivers (as root, an hour)
	@tests/deps.sh test
	HOLDFAST_CONFORMANCE=$(or $(CONFORMANCE_FOCUS),all) go test -count=1 -v -timeout 4h -run "TestHoldfastOnKubernetes/(Kubernetes|with_all)" ./tests/kube

test-crash: build ## kill the services at every point of every call, stop them for longer than their leases (as root)
	@tests/deps.sh test
	HOLDFAST_CRASH=all go test -count=1 -v -timeout 3h ./tests/crash

test-layouts: ## stacks of 50 random mixes of disks, killed at every journal write and over reshapes, in guests (as root)
	@tests/deps.sh test
	HOLDFAST_LAYOUTS=all HOLDFAST_LAYOUT_SEED=$(LAYOUT_SEED) go test -count=1 -v -timeout 6h -run 'Layout|Life|Mixes|Reshape|Journal|Lost|Plan|Disk|Power|Rot|Stack|Agent|Images' ./tests/uml

test-fuzz: ## compare FUZZ_MAPPINGS CRUSH mappings (10 million) with crushtool's, OSD maps with osdmaptool's, plans with an oracle; fuzz readers for FUZZ_TIME (1m) each
	@tests/deps.sh run
	HOLDFAST_CRUSH_MAPPINGS=$(or $(FUZZ_MAPPINGS),10000000) HOLDFAST_CRUSH_SEED=$(or $(FUZZ_SEED),1000) go test -count=1 -v -timeout 2h -run TestMappings ./pkg/crush
	HOLDFAST_OSDMAPS=$(or $(FUZZ_OSDMAPS),400) HOLDFAST_PLACEMENT_CLUSTERS=100 go test -count=1 -v -timeout 2h -run 'TestMappings|Unseen|Waves|Twelve|Changes' ./pkg/placement/...
	for what in crush.FuzzParse placement/osdmap.FuzzParse vdisk/vdi.FuzzImage vdisk/vmdk.FuzzDisk vdisk/vmdk.FuzzCOWD partition/edit.FuzzRead vdisk/inside.FuzzReadGroup cli.FuzzPolicies coordinator.FuzzRequests coordinator/fsm.FuzzCommand certs.FuzzToken; do \
	  go test -run '^$$' -fuzz "$${what#*.}\$$" -fuzztime $(or $(FUZZ_TIME),1m) -fuzzminimizetime 1x -parallel 1 "./pkg/$${what%.*}" || exit 1; done

test-sim: ## coordinators' rules under simulated faults: SIM_SEEDS (20000) seeds
	HOLDFAST_SIM_SEEDS=$(or $(SIM_SEEDS),20000) go test -count=1 -v -timeout 1h -run Simul ./pkg/coordinator/fsm

test-rebalance: build ## changes of a real cluster by coordinators in many small waves, an OSD that fails in the middle, 60 faults under porcupine (as root)
	@tests/deps.sh test
	HOLDFAST_REBALANCE=all HOLDFAST_WAVE_BACKFILLS=2 HOLDFAST_FAULTS=60 go test -count=1 -v -timeout 2h -run 'Changes|Anew|Histories' ./tests/coordinator

soak: build ## whole lives of SOAK_VOLUMES volumes (1000) under random kills; SOAK_SEED repeats a run (as root)
	@tests/deps.sh test
	HOLDFAST_SOAK_VOLUMES=$(or $(SOAK_VOLUMES),1000) HOLDFAST_SOAK_SEED=$(SOAK_SEED) go test -count=1 -v -timeout 6h -run TestSoak ./tests/crash

bench: build ## ratios to bare librbd and the manager, of disk images to cp and qemu-img, of CRUSH to crushtool's, of placement plans to osdmaptool's, interleaved
	@tests/deps.sh run
	go run ./tests/bench/images -holdfast bin/holdfast
	go test -run '^$$' -benchtime 1x -timeout 30m -bench Crushtool ./pkg/crush
	go test -run '^$$' -benchtime 1x -timeout 1h -bench 'Balance|Change' ./pkg/placement
	@tests/bench.sh
	go test -run '^$$' -bench Commits -benchtime 1x ./pkg/coordinator/raftnode
	go test -run '^$$' -bench Memory -benchtime 1x ./pkg/coordinator/fsm
	go test -run '^$$' -bench 'Recovery|Watchers' -benchtime 1x -timeout 20m ./tests/coordinator

##@ Clean
clean: ## remove what building made
	rm -rf bin .work

$(TOOLS)/golangci-lint: Makefile
	GOFLAGS=-buildvcs=false GOBIN=$(TOOLS) CGO_ENABLED=0 go install $(GOLANGCI_LINT)

$(TOOLS)/govulncheck: Makefile
	GOFLAGS=-buildvcs=false GOBIN=$(TOOLS) CGO_ENABLED=0 go install $(GOVULNCHECK)

help: ## show this list
	@awk 'BEGIN {FS = ":.*##"} /^##@/ {printf "\n%s\n", substr($$0, 5)} \
	  /^[a-z-]+:.*##/ {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
