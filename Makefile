# `make` lists the targets. Each is a few commands that also work when pasted.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Fuzz each target for this long; arguments of `go test` in `make test`.
FUZZTIME ?= 30s
TESTFLAGS ?= -race -timeout 20m
# So many random orders of Stripe's events `make orders` plays.
ORDERS ?= 200

# Run the fault drill for this long. DRILL_SEED plays an earlier one again.
DRILL_SECONDS ?= 1800
export DRILL_SECONDS

# A regular expression: `make monitoring` stages the faults whose name it finds, and all without one.
FAULTS ?=

# A program kube-router for `make node`.
KUBE_ROUTER ?=

# The revision that `make microbench` compares the working tree with, which packages and benchmarks
# it runs, and how often.
BASE ?= HEAD
BENCH ?= .
PACKAGES ?= ./...
COUNT ?= 6

.PHONY: help deps deps-run deps-cluster deps-bench deps-node build up up-cluster down status clean test orders lint nix gosec pages bench bench-quick bench-scale bench-control microbench fuzz smoke drill node node-engine try-pages monitoring promises manifests

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | \
		while IFS=$$'\t' read -r target text; do printf '  make %-11s %s\n' "$$target" "$$text"; done

deps: ## install what running and testing need and is missing: Redis, Postgres, Node, a C compiler, curl, promtool, amtool, age; deps-cluster
	@scripts/install-deps redis postgres node cc curl promtool amtool age
	@$(MAKE) --no-print-directory deps-cluster

deps-run:
	@scripts/install-deps redis postgres node curl

deps-cluster: ## build Kubernetes, which tests and up-cluster run: ten minutes once per machine, kept in the user's cache
	@program=$$(go run -buildvcs=false ./cmd/devstack kubebox); echo "Kubernetes is built: $$program"

build: ## build the pages, and all programs into bin/
	@scripts/build-pages --if-there
	@echo 'Building bin/ (the first time takes a minute or two; it lists packages as they are compiled)'
	@# Without -buildvcs: a checkout of another user has no readable history, and need not have.
	@go build -buildvcs=false -ldflags "-X main.builtFrom=$$(scripts/revision)" -v -o bin/ ./cmd/...

pages: ## build the pages of control/web, as make build does, and fail where that cannot be done
	@scripts/build-pages

up: deps-run build ## start everything on loopback and print a request that works
	@bin/devstack up

up-cluster: deps-run deps-cluster build ## make up, and a real Kubernetes control plane in whose pods nothing runs
	@bin/devstack up-cluster

down: ## stop what `make up` started; data stays in .run/
	@[ -x bin/devstack ] || $(MAKE) build
	@bin/devstack down

status: ## say what `make up` started runs
	@if [ -x bin/devstack ]; then bin/devstack status; else echo 'Nothing is running.'; fi

clean: ## stop it and remove its data, and bin/
	@[ -x bin/devstack ] || $(MAKE) build
	@bin/devstack clean
	rm -rf bin

test: deps pages ## run all tests
	go vet ./...
	@# One package more at a time than there are processors, and one test: most wait most of the time.
	@# The longest first: a last one that waits for itself leaves the processors idle for minutes.
	scripts/go-test $(TESTFLAGS) -p $$(($$(getconf _NPROCESSORS_ONLN) + 1)) -- ./control/operator ./proxy ./control/store ./quota $$(go list ./... | grep -v -e /test/ -e /internal/archtest$$)
	go test ./internal/archtest # one goroutine over all files: the race detector would see nothing, and cost minutes
	go test -count=1 -run "Alloc|Digest" ./proxy/... ./quota ./internal/contract ./internal/kimi # what may not allocate: the race detector allocates by itself
	go test -run '^TestModel' -timeout 20m ./quota # all states of the model, of which the race detector lets few be seen
	scripts/go-test -count=1 $(TESTFLAGS) -parallel $$(($$(getconf _NPROCESSORS_ONLN) + 1)) -- $$(go list ./test/... | grep -v -e /test/node -e /test/monitoring) # they run built programs, which go test knows nothing of
	cd test/drill && ../../scripts/go-test -count=1 -timeout 5m -- .
	cd test/clients && ../../scripts/go-test -count=1 -timeout 20m -- . # programs that it builds are no part of what go test caches by

orders: ## play the life of a customer who pays in ORDERS (200) random orders of Stripe's events
	go test -count=1 -run '^TestStory$$' -timeout 9m ./control/billing/stripe -orders $(ORDERS)

manifests: ## say whether k8s/golden is what k8s/ evaluates to, and play the alert rules (needs Nix)
	@scripts/manifests

lint: ## gofmt, vet, staticcheck, the layout's rules, GitHub workflows, scripts, known vulnerabilities, make nix where Nix is
	@scripts/lint

nix: ## check the Nix files, flake.lock and secrets, with any Nix and no network but Go's (half a minute)
	@scripts/install-deps nix jq
	@scripts/nix-check

gosec: ## look for common mistakes of security (a minute; the reasons for what is left out are in scripts/gosec)
	@scripts/gosec

deps-bench:
	@scripts/install-deps redis postgres node curl nginx haproxy strace portkey

bench: deps-bench build ## measure token-proxy beside nginx, HAProxy and others, and write BENCHMARKS.md (50 minutes)
	bin/openclaw-bench compare
	bin/openclaw-bench report

bench-quick: deps-bench build ## the same with few and short rounds, printed only (under 2 minutes)
	bin/openclaw-bench compare --quick --results .run/bench

bench-scale: deps-bench build ## 10,000 open streams, twice the load, a million grants, system calls; then the report (35 minutes)
	bin/openclaw-bench streams
	bin/openclaw-bench overload
	bin/openclaw-bench grants
	bin/openclaw-bench syscalls
	bin/openclaw-bench report

bench-control: deps-run build ## ask the api with 100,000 customers and 10 million usage events in Postgres (8 minutes)
	bin/openclaw-bench control

microbench: ## run the benchmarks beside the code, BENCH in PACKAGES, and compare with revision BASE (HEAD)
	@scripts/microbench '$(BASE)' '$(BENCH)' '$(COUNT)' $(PACKAGES)

fuzz: ## fuzz each parser for FUZZTIME (30s)
	@scripts/fuzz $(FUZZTIME)

smoke: build ## start, use and stop the whole stack on free ports, in a directory of its own
	@scripts/smoke

drill: deps-run ## hurt the whole system under load for DRILL_SECONDS (1800) and compare all books
	@cd test/drill && go build -buildvcs=false -o ../../bin/drill . && exec ../../bin/drill

deps-node: deps-run deps-cluster
	@scripts/install-deps containerd cni netfilter

node-engine: # first, since the rest takes minutes
	@[ -x '$(KUBE_ROUTER)' ] || { printf '%s\n' 'make node needs a program that enforces network policies: kube-router, of which 2.9 was tried.' \
		'Take one from https://github.com/cloudnativelabs/kube-router/releases, then: make node KUBE_ROUTER=/path/to/kube-router' >&2; exit 1; }
	@[ "$$(id -u)" -eq 0 ] || { echo 'make node needs root, for namespaces, mounts and a firewall of its own.' >&2; exit 1; }

node: node-engine deps-node ## run boxes on a real node and try what their network policy lets through; root, KUBE_ROUTER=PROGRAM (5 minutes)
	go test -count=1 -v -timeout 15m ./test/node -node -kube-router '$(abspath $(KUBE_ROUTER))'

try-pages: deps pages build ## use the pages in Chromium as customers and operators do, beside make up-cluster on other ports; pictures in .run/pictures (6 minutes)
	@scripts/install-deps chromium
	@scripts/try-pages

monitoring: deps-run deps-cluster build ## have Prometheus and Alertmanager watch make up-cluster, and stage a fault for each alert, or FAULTS (12 minutes)
	@scripts/install-deps promtool amtool redis-exporter
	go test -count=1 -v -timeout 60m ./test/monitoring -devstack '$(abspath bin/devstack)' -faults '$(FAULTS)'

promises: deps ## run at full length what `make test` runs shortly, and print the figures: limits, revocations, a failing Redis (20 minutes)
	go test -count=1 -timeout 40m -v ./test/e2e -long
	go test -count=1 -timeout 20m -race -run 'LeavesNothing$$|LeaveNothing$$' ./proxy -long
	$(MAKE) orders
