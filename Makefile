# QuicFlow. `make` alone lists the targets.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS   += --no-print-directory

# Programs link nothing of the system's: they run on any Linux, in any container.
export CGO_ENABLED ?= 0

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X main.version=$(VERSION)

# Binaries of the pinned tools (tools/go.mod), built once per set of pins.
TOOLS := .cache/bin/$(shell cat tools/go.mod tools/go.sum | sha256sum | cut -c1-12)

# The packages whose goroutines race for a living.
RACE = ./internal/release/... ./internal/wire/... ./internal/pki/... ./internal/bus/... ./internal/store/... \
       ./hub/... ./agent/... ./internal/fleet/... ./workflows/... ./activities/... ./api/...

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sort | awk -F':.*## ' '{printf "  %-16s %s\n", $$1, $$2}'

## --- build and run

.PHONY: build
build: web ## Build all programs into bin/, the console in the server
	@mkdir -p bin
	go build -ldflags '$(LDFLAGS)' -o bin/ ./cmd/... ./examples/hello

.PHONY: web
web: ## Build the console into web/dist, if its sources changed (needs Node 20)
	@scripts/web.sh build

.PHONY: build-loadtest
build-loadtest: ## Build quic-loadtest alone into bin/
	@mkdir -p bin
	go build -ldflags '$(LDFLAGS)' -o bin/ ./cmd/quic-loadtest

.PHONY: run
run: build ## Build and run the server, everything embedded
	./bin/quic-server

.PHONY: demo
demo: build ## Show it all: a server, ten agents, a canary release (DEMO_EXIT=1: check, stop, exit)
	@go run ./examples/demo

## --- test

# What links the Temporal server comes last: from nothing it takes minutes to compile.
.PHONY: test
test: ## Run the tests, on SQLite and PostgreSQL (not the end-to-end ones)
	@scripts/install-deps.sh postgresql openssl git
	go test $$(scripts/packages.sh light)
	go test $$(scripts/packages.sh heavy)

.PHONY: test-race
test-race: ## Run the concurrent packages' tests under the race detector
	@scripts/install-deps.sh postgresql gcc
	CGO_ENABLED=1 go test -race $$(go list $(RACE) | grep -v '/live$$')

.PHONY: test-integration
test-integration: test-weaknet test-git test-docker test-kubernetes test-deploy ## Run all tests on real networks, engines and clusters (as root, on Linux)

.PHONY: test-weaknet
test-weaknet: ## Run the tests on weak networks: loss, delay, partitions, moving hosts
	@scripts/install-deps.sh iproute2
	go test -count=1 -v -timeout 6m ./internal/weaknet/...

.PHONY: test-git
test-git: ## Run the tests of git over ssh and with LFS, killed at every stage
	@scripts/install-deps.sh git git-lfs openssh-server
	go test -count=1 -tags failpoint -timeout 15m ./agent/executor/git/...

.PHONY: test-docker
test-docker: ## Run the tests on a real Docker engine with a registry
	@scripts/install-deps.sh iproute2 util-linux iptables docker.io docker-registry busybox-static
	go test -count=1 -v -timeout 8m -parallel 4 -tags failpoint ./agent/executor/container/live

# From nothing the control plane takes 6 to 12 minutes to compile; the program is kept in .cache/bin.
.PHONY: test-kubernetes
test-kubernetes: ## Run the tests on a real Kubernetes control plane, which is built at the first time
	go test -count=1 -timeout 30m -tags failpoint ./internal/lab/kube/... ./agent/executor/kubernetes/live

.PHONY: test-deploy
test-deploy: ## Run deployments of scripts, git, Docker and Kubernetes through the whole product, killed at every stage
	@scripts/install-deps.sh git openssh-server iproute2 util-linux iptables docker.io docker-registry busybox-static
	go test -count=1 -parallel 2 -timeout 25m -run '$(DEPLOY)' ./internal/e2e

# End-to-end tests that need an engine or a cluster.
DEPLOY = ^(TestDeploy|TestContainerLogs)

.PHONY: e2e
e2e: ## Run the end-to-end tests: real processes, killed at their worst moments
	@scripts/install-deps.sh postgresql
	go test -count=1 -parallel 4 -timeout 20m -skip '$(DEPLOY)' ./internal/e2e

.PHONY: test-web
test-web: ## Run the console's own tests
	@scripts/web.sh install
	cd web && npm run --silent check && npm test --silent

.PHONY: e2e-web
e2e-web: build ## Run the console from end to end: Chromium, a real server, real agents; pictures in web/e2e/screenshots
	@scripts/install-deps.sh chromium fonts-wqy-zenhei
	cd web && npm run --silent e2e

# A short one is among the end-to-end tests. WORLDS is how many servers with their fleets there are, one after the other, with a part of STEPS each. HOSTS are of each database, an
# agent's process each. PAUSE is the longest time between two breaks, in seconds: with 2, as among the end-to-end tests, a server is hardly ever up. SEED
# repeats the dice of an earlier run. All of it takes 2 CPUs more than an hour; with TMPDIR on a tmpfs it is faster, and a kill means the same.
STEPS ?= 100000
WORLDS ?= 4
HOSTS ?= 100
SEED  ?=
PAUSE ?= 6
.PHONY: chaos
chaos: ## Kill servers, agents and databases while STEPS (100000) steps run on HOSTS (100) hosts; count what was lost or doubled
	@scripts/install-deps.sh postgresql
	QUICFLOW_LONG_HOSTS=200 QUICFLOW_LONG_SECONDS=60 go test -count=1 -v -timeout 1h -run '^TestLongCommandsOutliveTheServer$$' ./internal/e2e
	QUICFLOW_FANOUT_AGENTS=10000 go test -count=1 -v -timeout 1h -run '^TestFanOut$$' ./internal/e2e
	for world in $$(seq $(WORLDS)); do \
		QUICFLOW_CHAOS_STEPS=$$(($(STEPS) / $(WORLDS))) QUICFLOW_CHAOS_HOSTS=$(HOSTS) QUICFLOW_CHAOS_SEED=$(SEED) QUICFLOW_CHAOS_PAUSE=$(PAUSE) \
			go test -count=1 -v -timeout 12h -run '^TestChaos$$' ./internal/e2e || exit 1; \
	done

# Each target in turn, as `go test -fuzz` takes one at a time. What it finds it keeps below testdata/fuzz/.
FUZZTIME ?= 30s
.PHONY: fuzz
fuzz: ## Feed the hub and the codec garbage, FUZZTIME (30s) for each fuzz target
	@grep -rlE '^func Fuzz' --include='*_test.go' --exclude-dir=.cache --exclude-dir=node_modules . | xargs -n1 dirname | sort -u | while read -r dir; do \
		for target in $$(cat $$dir/*_test.go | sed -nE 's/^func (Fuzz[A-Za-z0-9]+)\(.*/\1/p'); do \
			echo "$$dir $$target"; \
			go test $$dir -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x || exit 1; \
		done; \
	done

.PHONY: coverage
coverage: ## Measure the tests' coverage into coverage/
	@scripts/install-deps.sh postgresql openssl
	@mkdir -p coverage
	go test -coverprofile=coverage/cover.out $$(scripts/packages.sh light)
	go tool cover -html=coverage/cover.out -o coverage/index.html
	@go tool cover -func=coverage/cover.out | tail -1

.PHONY: bench
bench: build ## Measure rollouts and round trips; prints figures, asserts nothing
	@go run ./internal/bench

# What bench-backbone measures, on how many agents, and for how long it counts heartbeats.
RUN      ?= throughput,memory,heartbeats,promises,broadcast,storm
AGENTS   ?= 10000
DURATION ?= 10m

.PHONY: bench-backbone
bench-backbone: ## Measure the backbone beside bare quic-go and NATS (RUN=throughput,… AGENTS=10000,… DURATION=10m)
	@mkdir -p bin/bench
	@go build -o bin/bench/backbone ./internal/bench/backbone
	@cd internal/bench/nats && go build -o ../../../bin/bench/nats .
	@bin/bench/backbone -run '$(RUN)' -agents '$(AGENTS)' -duration '$(DURATION)' -nats bin/bench/nats -out bin/bench/backbone.json

# What bench-batch measures, on which databases, and in how many rounds; the sizes of the fleet are AGENTS.
BATCH    ?= batch,joblogs,ansible
DATABASE ?= sqlite,postgres
ROUNDS   ?= 3

.PHONY: bench-batch
bench-batch: build ## Measure batch jobs beside broadcasts and Ansible (BATCH=batch,… DATABASE=sqlite,… AGENTS=10000,… ROUNDS=3)
	@case ',$(DATABASE),' in *,postgres,*) scripts/install-deps.sh postgresql ;; esac
	@case ',$(BATCH),' in *,ansible,*) scripts/install-deps.sh ansible-core openssh-server ;; esac
	@mkdir -p bin/bench
	@go build -o bin/bench/batch ./internal/bench/batch
	@bin/bench/batch -run '$(BATCH)' -database '$(DATABASE)' -agents '$(AGENTS)' -rounds '$(ROUNDS)' -out bin/bench/batch.json

.PHONY: bench-container
bench-container: ## Measure a container step beside `docker run` and waiting for its health (as root, on Linux)
	@scripts/install-deps.sh iproute2 util-linux iptables docker.io docker-registry busybox-static
	go test -count=1 -run '^$$' -bench Install -benchtime 30x -timeout 10m ./agent/executor/container/live

# SIZE is in megabytes; DIR is where the files are written, as the disk is a part of it.
SIZE ?= 200
DIR  ?=

.PHONY: bench-artifact
bench-artifact: ## Measure an artifact on its way to agents beside HTTPS and bare QUIC (AGENTS=20 SIZE=200 ROUNDS=3 DIR=…)
	@mkdir -p bin/bench
	@go build -o bin/bench/artifact ./internal/bench/artifact
	@bin/bench/artifact -agents '$(if $(filter command line environment,$(origin AGENTS)),$(AGENTS),20)' -size '$(SIZE)' -rounds '$(ROUNDS)' -dir '$(DIR)' -out bin/bench/artifact.json

## --- source

.PHONY: lint
lint: $(TOOLS)/golangci-lint $(TOOLS)/workflowcheck ## Check style, the import table and the workflows' determinism
	$(TOOLS)/golangci-lint run --allow-parallel-runners
	$(TOOLS)/workflowcheck ./workflows/...
	@if go list -deps ./cmd/quic-client | grep -E '^go\.temporal\.io/|/quicflow/(api|workflows|internal/store)$$'; then \
		echo "the agent links what is above" >&2; exit 1; fi
	@if go list -deps ./cmd/quic-loadtest | grep -E '^go\.temporal\.io/|/quicflow/(api|hub|workflows|internal/store)$$'; then \
		echo "the load test links the server" >&2; exit 1; fi

.PHONY: fmt
fmt: $(TOOLS)/golangci-lint ## Format the source
	$(TOOLS)/golangci-lint fmt

.PHONY: proto
proto: $(TOOLS)/buf ## Generate the wire messages from proto/
	$(TOOLS)/buf generate

.PHONY: generate
generate: proto ## Generate everything that is generated: messages, OpenAPI, configuration presets
	go generate ./...
	@scripts/web.sh generate
	go test ./internal/config -run TestPresets -count=1 -update

.PHONY: verify
verify: $(TOOLS)/buf ## Fail if anything generated differs from its source
	@scripts/verify.sh

.PHONY: clean
clean: ## Remove what was built and the demo's data (not the tools)
	rm -rf bin coverage .demo web/e2e/screenshots
	find web/dist -mindepth 1 ! -name .gitkeep -delete

## --- tools

$(TOOLS)/golangci-lint: PKG = github.com/golangci/golangci-lint/v2/cmd/golangci-lint
$(TOOLS)/workflowcheck: PKG = go.temporal.io/sdk/contrib/tools/workflowcheck
$(TOOLS)/buf: PKG = github.com/bufbuild/buf/cmd/buf
$(TOOLS)/%:
	@mkdir -p $(@D)
	cd tools && go build -o ../$@ $(PKG)
