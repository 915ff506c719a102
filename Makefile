# `make demo ARGS="--once"`, `make test`, `make bench ARGS=scan`: ARGS go to the program behind the target.
.PHONY: demo test check differential causal bench bench-gate release-pgo clean
ARGS ?=
E2E ?=
SHIPPED = target/pgo/keyway
SEED ?= 1
N ?= 20000
SEEDS ?= 10
SECONDS ?= 60
SESSIONS ?= 64

demo: ## servers, a shop and keyway on this machine
	@scripts/install.sh demo
	cargo run --release -- demo $(ARGS)

test: ## everything, against real PostgreSQL clusters
	@scripts/install.sh test
	@integration/drivers/install.sh
	cargo fmt --all --check
	cargo clippy --all-targets -- -D warnings
	cargo test --no-fail-fast $(ARGS)
	benches/gate.py

check: ## what needs no PostgreSQL
	cargo fmt --all --check
	cargo clippy --all-targets -- -D warnings
	cargo test --lib --bins --test tidy $(ARGS)

differential: ## random statements, on one PostgreSQL and through keyway; SEED=7 N=20000
	@scripts/install.sh test
	KEYWAY_SEED=$(SEED) KEYWAY_STATEMENTS=$(N) cargo test --test integration differential::sql_random -- --nocapture

causal: ## sessions read and write while replicas pause and die; SEEDS=10 SECONDS=60 SESSIONS=64
	@scripts/install.sh test
	KEYWAY_CAUSAL_SEEDS=$(SEEDS) KEYWAY_CAUSAL_SECONDS=$(SECONDS) KEYWAY_CAUSAL_SESSIONS=$(SESSIONS) \
		cargo test --test integration consistency::no_read_goes_back -- --nocapture

bench: release-pgo ## criterion, then the end-to-end tables; E2E="--write" puts them into docs/performance.md
	cargo bench $(ARGS) -- --warm-up-time 0.3 --measurement-time 1
	cargo build --release --example floor --example connects
	benches/e2e.py --keyway $(SHIPPED) --floor target/release/examples/floor $(E2E)
	benches/connects.py --keyway $(SHIPPED) $(filter --write,$(E2E))
	benches/counting.py --keyway $(SHIPPED)
	benches/instructions.py --keyway $(SHIPPED) --cache
	benches/transfer.py --keyway $(SHIPPED) $(filter --write,$(E2E))
	benches/ramp.py --keyway $(SHIPPED)
	benches/idle_clients.py --keyway $(SHIPPED)
	benches/shards.py --keyway $(SHIPPED) $(filter --write,$(E2E))
	benches/replica_reads.py --keyway $(SHIPPED) $(filter --write,$(E2E))
	benches/scaling_model.py

bench-gate: ## instructions per statement, which may not grow by more than 5 %; ARGS="--optimised" ARGS="--write"
	@scripts/install.sh test
	benches/gate.py $(ARGS)

release-pgo: ## target/pgo/keyway, laid out by a recorded profile
	@scripts/install.sh bench
	scripts/pgo.sh

clean:
	cargo clean
	rm -rf integration/drivers/.venv integration/drivers/node_modules
