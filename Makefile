# `make demo` and `make test` each install what is missing, then do it. `make help` lists the rest.

# Where rustup puts cargo; a shell that was opened before does not know.
export PATH := $(HOME)/.cargo/bin:$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-mesh descriptors soak bench bench-peers test-clients client-stubs packages lint deny fuzz format sqlx-prepare sqlx-check schema-prepare schema-check

help: ## Lists the commands.
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 22

setup: ## Installs what is missing: Rust, a C compiler, Postgres.
	@scripts/setup.sh

demo: setup ## Shows the whole thing on this machine. ARGS="…" are options of `holdfast demo`.
	@cargo run -- demo $(ARGS)

# Most tests wait for servers and for time, so twice as many run at once as there are cores.
test: export RUST_TEST_THREADS ?= $(shell echo $$((2 * $$(getconf _NPROCESSORS_ONLN))))
test: setup ## Runs all tests. ARGS="…" are options of `cargo test`.
	@cargo test $(ARGS)
	@scripts/clients.sh --if-possible

soak: setup ## Lets a nemesis loose on servers and clients. MINUTES, KILLS, REDEMPTIONS, SERVERS and SEED are optional.
	@HOLDFAST_SOAK_MINUTES=$(or $(MINUTES),5) HOLDFAST_SOAK_KILLS=$(KILLS) HOLDFAST_SOAK_REDEMPTIONS=$(REDEMPTIONS) \
		HOLDFAST_SOAK_SERVERS=$(SERVERS) HOLDFAST_SOAK_SEED=$(SEED) cargo test --quiet --test soak

bench: setup ## Measures Holdfast beside what it replaces. ARGS="--quick", "--only cycles,etcd", "--only bloat", "--help", …
	@echo "building (some minutes the first time)"
	@cargo build --release --quiet --package holdfast --package holdfast-bench
	@target/release/holdfast-bench --docs docs $(ARGS)

bench-peers: setup ## Installs what `make bench` also compares with: etcd, graphile-worker.
	@scripts/bench-peers.sh

test-clients: setup ## Checks with clients in Python, buf and grpcurl; with ADDRESS=host:port, a server that runs.
	@scripts/clients.sh $(ADDRESS) $(ARGS)

test-mesh: setup ## Runs two servers behind Envoy, HAProxy and nginx. PROXIES="envoy" for some.
	@cargo build --quiet
	@scripts/mesh.sh $(PROXIES)

descriptors: setup ## Writes the contract's descriptor set, with the error details, to target/holdfast.binpb.
	@scripts/buf.sh build --output target/holdfast.binpb

client-stubs: setup ## Writes the stubs of the clients in clients/ anew, after a change of the contract.
	@scripts/client-stubs.sh

packages: setup ## Makes the clients' packages, under target/packages.
	@scripts/packages.sh

lint: setup ## Checks format, lints, the contract, .sqlx and schema.sql.
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	scripts/buf.sh lint
	scripts/buf.sh format -d --exit-code
	scripts/breaking.sh
	scripts/sqlx.sh check
	scripts/schema.sh check
	scripts/client-stubs.sh --check

deny: setup ## Checks licences, sources and known weaknesses of what is depended on, by deny.toml.
	@scripts/deny.sh

fuzz: setup ## Fuzzes requests, files, answers and tokens. SECONDS (120, each), TARGET and INPUT=FILE are optional.
	@SECONDS_EACH=$(SECONDS) TARGET=$(TARGET) INPUT=$(INPUT) scripts/fuzz.sh

format: setup ## Formats the Rust and the contract.
	cargo fmt --all
	scripts/buf.sh format -w

sqlx-prepare: setup ## Writes .sqlx anew, after a change of statements or migrations.
	@scripts/sqlx.sh prepare

sqlx-check: setup ## Checks that .sqlx fits the statements and migrations.
	@scripts/sqlx.sh check

schema-prepare: setup ## Writes schema.sql anew, after a change of migrations.
	@scripts/schema.sh prepare

schema-check: setup ## Checks that schema.sql shows what the migrations make.
	@scripts/schema.sh check
