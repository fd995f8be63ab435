# Millrace. `make help` lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Which build this is: cmd/internal/release. The go command's own stamp is left out: a
# checkout of another owner would stop the build.
GIT := git -c safe.directory='*'
VERSION ?= $(shell $(GIT) describe --tags --match 'v*' --dirty 2>/dev/null || echo devel)
COMMIT ?= $(shell $(GIT) rev-parse HEAD 2>/dev/null)
RELEASE := github.com/millrace/millrace/cmd/internal/release

# The programs are built without cgo, and are the same wherever they are built: no path
# of the machine and no time is in them.
GO_BUILD = CGO_ENABLED=0 go build -mod=readonly -buildvcs=false -trimpath -ldflags '-X $(RELEASE).Version=$(VERSION) -X $(RELEASE).Commit=$(COMMIT)'
TOOL := go tool -modfile=deploy/tools/go.mod
PARTS := .cache/partsctl

# Packages whose goroutines meet, for the race detector.
RACE := ./cmd/internal/children ./deploy/local/... ./pipeline/blob/... ./pipeline/engine ./pipeline/ledger \
	./pipeline/source/... ./sinks/...

ARGS ?=
FUZZTIME ?= 30s
TEST_TIMEOUT ?= 15m

# A server of your own instead of the embedded ClickHouse: make demo CLICKHOUSE=URL
CLICKHOUSE ?=
ifneq ($(CLICKHOUSE),)
PARTS_FLAGS := -no-clickhouse
DEMO_FLAGS := --clickhouse $(CLICKHOUSE)
endif

# What a missing part means: not tested here, and never green; a failure in CI.
NOT_RUN = if [ "$${CI:-}" = true ]; then echo "FAIL: a part is missing, and CI runs need all of them"; exit 1; \
	else echo "NOT RUN: the tests need the parts named above"; exit 3; fi

# Downloads run beside the build; $(1) is what the parts are for.
PARTS_AND_BUILD = $(PARTS) $(PARTS_FLAGS) install $(1) & parts=$$!; \
	$(MAKE) build || { kill $$parts 2>/dev/null; wait $$parts; exit 1; }; wait $$parts

# Where the parts are, for tests.
PARTS_ENV = eval "$$($(PARTS) env test)"; \
	export MILLRACE_CLICKHOUSE_BIN="$(CURDIR)/bin/millrace-clickhouse" MILLRACE_BIN="$(CURDIR)/bin/millrace" MILLRACE_REQUIRE_PARTS=1
NO_PARTS = unset MILLRACE_LIBCHDB MILLRACE_AZURITE MILLRACE_PYTHON MILLRACE_JS_SDK MILLRACE_JAVA_SDK MILLRACE_KAFKA MILLRACE_KCAT MILLRACE_COUNTRIES \
	MILLRACE_CLICKHOUSE_BIN MILLRACE_BIN MILLRACE_REQUIRE_PARTS

# One line per package, failures in full, and a tally at the end. It is also
# kept in a file, because after a failure make itself has the last word.
TALLY := .cache/tally
NEW_TALLY = mkdir -p .cache; rm -f $(TALLY)
HIDE := none
TEST = $(TOOL) gotestsum --format pkgname --format-hide-empty-pkg --hide-summary $(HIDE) \
	--post-run-command 'sh .ci/tally $(TALLY)' --

# A proof that is a test: $(1) names it, $(2) is its package, $(3) its flags. The
# parts are installed and the programs built; the last line is its figures.
PROOF = $(call PARTS_AND_BUILD,test); $(PARTS_ENV); export MILLRACE_FIGURES="$(CURDIR)/.cache/figures-$(1)"; rm -f "$$MILLRACE_FIGURES"; \
	code=0; go test -count=1 -timeout 3h -v -run '^$(1)$$' $(2) -args $(3) || code=1; cat "$$MILLRACE_FIGURES" || code=1; exit $$code

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

.PHONY: build
build: ## Build bin/millrace (static) and bin/millrace-clickhouse
	@$(GO_BUILD) -o bin/ ./cmd/millrace ./cmd/millrace-clickhouse

# The preflight compiles in a second, so it runs before anything else is built.
.PHONY: partsctl
partsctl:
	@command -v go >/dev/null || { echo "FAULT  go  not found. Fix: install Go 1.26 or newer"; exit 1; }
	@go build -buildvcs=false -o $(PARTS) ./deploy/local/partsctl

.PHONY: demo
demo: partsctl ## The whole job on embedded defaults: make demo ARGS='--for 60s'
	@$(PARTS) $(PARTS_FLAGS) check demo
	@$(call PARTS_AND_BUILD,demo)
	@exec bin/millrace demo $(DEMO_FLAGS) $(ARGS)

.PHONY: chaos
chaos: partsctl ## The demo with the pipeline killed (-9) five times, then the reconciliation
	@$(PARTS) $(PARTS_FLAGS) check demo
	@$(call PARTS_AND_BUILD,demo)
	@exec bin/millrace demo --chaos --for 60s $(DEMO_FLAGS) $(ARGS)

SEEDS ?= 1000
FIRST ?= 1

.PHONY: sim
sim: ## The pipeline in SEEDS (1000) simulated worlds full of faults, from seed FIRST (1) on
	@mkdir -p .cache && go build -buildvcs=false -o .cache/simulation ./bench/simulation
	@exec .cache/simulation -seeds $(SEEDS) -first $(FIRST) $(ARGS)

.PHONY: mutants
mutants: ## Seeded bugs, each of which the simulation finds within 500 seeds: make mutants ARGS='AckEarly'
	@go test -tags mutants ./pipeline/mutant
	@mkdir -p .cache && go build -buildvcs=false -tags mutants -o .cache/mutants ./bench/simulation
	@exec .cache/mutants -mutants -seeds 500 -first $(FIRST) $(ARGS)

SOAK ?= 10m

.PHONY: soak
soak: partsctl ## 3,000 interfaces in 3 accounts at their real pace for SOAK (10m), with the limits on lag and memory
	@$(PARTS) $(PARTS_FLAGS) check demo
	@$(call PARTS_AND_BUILD,demo)
	@exec bin/millrace demo --real-time --accounts 3 --nics 3000 --tuples-per-minute 100 --for $(SOAK) -o json $(DEMO_FLAGS) $(ARGS)

KILLS ?= 200
STEALS ?= 200
KAFKA_KILLS ?= 20

.PHONY: kills
kills: partsctl ## kill -9 of pipeline, ClickHouse or both, KILLS (200) times under load; restarts within 5 s
	@$(PARTS) check test
	@$(call PROOF,TestRandomKills,./cmd/internal/faults,-kills $(KILLS) -restart 5s $(ARGS))

.PHONY: owners
owners: partsctl ## Owners of a shared ledger, frozen until they are followed and woken late, STEALS (200) times
	@$(PARTS) check test
	@$(call PROOF,TestLateOwners,./cmd/internal/faults,-steals $(STEALS) -lanes 6 $(ARGS))

.PHONY: kafka-kills
kafka-kills: partsctl ## kill -9 of the pipeline into Kafka and of the broker, KAFKA_KILLS (20) times
	@$(PARTS) check test
	@$(call PROOF,TestKafkaKills,./cmd/internal/faults,-kafka-kills $(KAFKA_KILLS) $(ARGS))

.PHONY: sweep
sweep: partsctl ## Pipeline and ClickHouse killed before every system call of a commit, each call failed once (20 min)
	@$(PARTS) check test || { $(NOT_RUN); }
	@$(call PROOF,TestSweep,./cmd/internal/faults,-sweep)

.PHONY: corrupt
corrupt: partsctl ## Every file of a ledger cut to every length and with 1,000 random bit flips
	@$(PARTS) check test || { $(NOT_RUN); }
	@$(call PROOF,TestCorrupt,./cmd/internal/faults,-corrupt)

.PHONY: cardinality
cardinality: ## 10 million distinct keys in one window: totals, heavy keys, memory, speed against their limits
	@mkdir -p .cache && go build -buildvcs=false -o .cache/bounds ./bench/bounds && .cache/bounds $(ARGS) cardinality

.PHONY: listing
listing: ## A container of a million blobs: the memory that it takes to list them, against its limit
	@mkdir -p .cache && go build -buildvcs=false -o .cache/bounds ./bench/bounds && .cache/bounds $(ARGS) listing

FAULTS ?= 1000
MINUTES ?= 10

.PHONY: network
network: partsctl ## FAULTS (1,000) network faults between the pipeline and each of its services, under load
	@$(PARTS) check test || { $(NOT_RUN); }
	@$(call PROOF,TestNetwork,./cmd/internal/faults,-faults $(FAULTS) -jobs 4 -progress 10s $(ARGS))

.PHONY: slow-sink
slow-sink: partsctl ## ClickHouse away for MINUTES (10) under load: memory, and how fast what gathered lands
	@$(PARTS) check test || { $(NOT_RUN); }
	@$(call PROOF,TestSlowSink,./cmd/internal/faults,-stopped $(MINUTES)m -catch-up 2 $(ARGS))

.PHONY: recount
recount: partsctl ## The quick level of millrace verify over 10,000 commits, 5 M rows, within 60 s
	@$(PARTS) check test || { $(NOT_RUN); }
	@$(call PROOF,TestQuickLevel,./cmd/internal/verify,-batches 10000 -within 60s)

.PHONY: parts
parts: partsctl ## Check this machine and install what demo and tests run against
	@$(PARTS) check test
	@$(PARTS) install test

.PHONY: test
test: partsctl ## Install the parts, build, and run all tests (missing part: NOT RUN)
	@$(PARTS) check test || { $(NOT_RUN); }
	@$(call PARTS_AND_BUILD,test) || { $(NOT_RUN); }
	@$(NEW_TALLY); $(PARTS_ENV); code=0; \
	echo "with the race detector:"; $(TEST) -race -timeout $(TEST_TIMEOUT) $(RACE) || code=1; \
	echo "all packages:"; $(TEST) -timeout $(TEST_TIMEOUT) ./... || code=1; exit $$code

.PHONY: test-quick
test-quick: HIDE := skipped
test-quick: ## Go only, no parts, within 90 s after the build
	@$(NEW_TALLY); $(NO_PARTS); $(TEST) -short -timeout 90s ./...

.PHONY: race
race: partsctl ## The race detector on the packages whose goroutines meet
	@$(call PARTS_AND_BUILD,test)
	@$(PARTS_ENV); go test -race -timeout $(TEST_TIMEOUT) $(RACE)

.PHONY: check
check: lint layers test-quick ## Format, lint, layers and unit tests: before every commit

.PHONY: lint
lint: ## gofumpt and golangci-lint
	@$(TOOL) golangci-lint run --allow-parallel-runners ./...

.PHONY: gosec
gosec: ## gosec; what is left out, and why: deploy/security/gosec.yml
	@$(TOOL) golangci-lint run --allow-parallel-runners -c deploy/security/gosec.yml ./...

.PHONY: format
format: ## Rewrite the sources as gofumpt wants them
	@$(TOOL) gofumpt -w $$(git ls-files '*.go')

.PHONY: layers
layers: ## Which room imports which, and what stands at the top of the tree
	@go test ./deploy/layers

.PHONY: fuzz
fuzz: ## Each fuzz target for FUZZTIME (30s)
	@for dir in $$(grep -rlE '^func Fuzz' --include='*_test.go' . | xargs -n1 dirname | sort -u); do \
		for target in $$(grep -hoE '^func Fuzz[A-Za-z0-9_]*' $$dir/*_test.go | sed 's/^func //'); do \
			echo "== $$dir $$target for $(FUZZTIME)"; \
			go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x $$dir; \
		done; \
	done

.PHONY: bench
bench: ## Benchmarks with memory; compare two runs with benchstat
	@go test -run '^$$' -bench . -benchmem -timeout 60m $$(grep -rlE '^func Benchmark' --include='*_test.go' . | xargs -n1 dirname | sort -u)

.PHONY: generate
generate: ## Rewrite generated files; the tree must be clean after it
	@go generate ./...
	@git diff --exit-code

.PHONY: vuln
vuln: ## Known vulnerabilities in what is linked; asks vuln.go.dev, or GOVULNDB=file:///PATH
	@$(TOOL) govulncheck $${GOVULNDB:+-db "$$GOVULNDB"} ./... || { code=$$?; [ $$code -eq 3 ] || \
	echo "NOT RUN: the database was not read. It is asked over HTTPS at vuln.go.dev; without a way there, set GOVULNDB=file:///PATH to a copy of it: deploy/docs/security.md"; exit $$code; }

.PHONY: security
security: partsctl ## The security checklist: every line's tests, the last line as JSON
	@$(PARTS) check test || { $(NOT_RUN); }
	@$(call PARTS_AND_BUILD,test) || { $(NOT_RUN); }
	@$(PARTS_ENV); go run ./deploy/security/securityctl

# The names of what a release is made of.
PLATFORM = $(shell go env GOOS)_$(shell go env GOARCH)
ARCHIVE = millrace_$(VERSION)_$(PLATFORM)

# The tool wants the main module's own licence, which stands beside: it is told to look
# for it nowhere.
SBOM_OF = GOPRIVATE='github.com/millrace/*' GOVCS='github.com/millrace/*:off' GOFLAGS=-mod=mod $(TOOL) cyclonedx-gomod bin -json -licenses -std -noserial -notimestamp -version $(VERSION)

.PHONY: sbom
sbom: build ## What is linked into the programs, as CycloneDX: bin/*.cdx.json
	@for program in millrace millrace-clickhouse; do $(SBOM_OF) -output bin/$$program.cdx.json bin/$$program 2>/dev/null; done
	@go test -count=1 -tags sbom -run '^TestSBOM$$' ./deploy/security

.PHONY: release
release: sbom ## An archive of the programs, its contents and its checksums: bin/release
	@rm -rf bin/release && mkdir -p bin/release/$(ARCHIVE)
	@cp bin/millrace bin/millrace-clickhouse bin/millrace.cdx.json bin/millrace-clickhouse.cdx.json LICENSE README.md deploy/millrace.yaml deploy/security/licenses.txt bin/release/$(ARCHIVE)
	@tar --sort=name --owner=0 --group=0 --numeric-owner --mode=go-w --mtime=@0 -C bin/release -cf - $(ARCHIVE) | gzip -n > bin/release/$(ARCHIVE).tar.gz
	@rm -r bin/release/$(ARCHIVE); cd bin/release && sha256sum $(ARCHIVE).tar.gz > SHA256SUMS && sha256sum --check --strict SHA256SUMS

.PHONY: reproducible
reproducible: ## Build twice, in two folders, all of it anew: the programs must be equal
	@MILLRACE_BUILD_ANEW=1 go test -count=1 -v -timeout 60m -run 'TestBuildsAreEqual' ./deploy/security | grep -v '^=== '

SCRIPTS ?= 1000

.PHONY: model
model: partsctl ## The simulation's ClickHouse against the real one: SCRIPTS (1000) random scripts, with kills
	@$(PARTS) check test
	@$(call PARTS_AND_BUILD,test)
	@$(PARTS_ENV); go run ./bench/simulation/table/proof -scripts $(SCRIPTS)

.PHONY: clean
clean: ## Remove bin/ (the downloaded parts in .cache/ stay)
	@rm -rf bin
