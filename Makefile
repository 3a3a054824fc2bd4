# Erlang takes file names and output for Latin-1 otherwise, and Elixir warns.
export LANG = C.UTF-8
export LC_ALL = C.UTF-8

# cargo and mix use all cores themselves, and runners share the build directories.
.NOTPARALLEL:

.PHONY: help setup build test check audit model test-rust test-elixir test-node test-conformance test-consumer test-netns netns test-chaos chaos attack format demo demo-node bench matrix sim explore loom miri bugbank fuzz coverage clean

help:
	@echo 'make setup    check for what is needed; on Debian, install it'
	@echo 'make build    the library, for use'
	@echo 'make test     everything that has to pass'
	@echo 'make check    only formatting and lints'
	@echo 'make audit    the crates that are used: known holes, licences, where from; needs cargo-deny'
	@echo 'make model    the handshake, proven on paper by ProVerif; some ten minutes'
	@echo 'make format   put the formatting right'
	@echo 'make demo     two realms that talk'
	@echo 'make demo-node  plain Erlang, with the daemon beside it'
	@echo 'make bench    how fast it is'
	@echo 'make sim      realms in virtual time while everything goes wrong; SECONDS=600, SEED=7'
	@echo 'make explore  all interleavings of small cases of two cores; SECONDS=1200, CASE=4, JOBS=2'
	@echo 'make loom     what threads share in the daemon, in every order in which they may run'
	@echo 'make miri     tests of the core under Miri: undefined behaviour, and whatever panics; takes long; needs a nightly compiler'
	@echo 'make bugbank  bugs that are put in one after the other, and the tests that catch them; BUG=7, JOBS=2'
	@echo 'make fuzz     every parser and state machine under changed bytes; SECONDS=20 (of each), TARGET=session; needs cargo-fuzz'
	@echo 'make coverage how much of the core is run by fuzzing and tests, in percent; needs llvm-tools'
	@echo 'make netns    two networks whose cable goes, whose ends hang and are killed; as root, on Linux'
	@echo 'make chaos    two realms on two networks under full load, while links and processes go; SECONDS=600, KILLS=1000, SEED=7; as root, on Linux'
	@echo 'make attack   every attack of docs/attacks.md in its full size, and what has come of it'
	@echo 'make matrix   the tests on OTP 25, 27 and 29, and clusters of several; as root, on Linux'

setup:
	@scripts/setup

build: setup
	mix compile

# In order of speed; the runners of tests come last.
test: setup check test-rust test-elixir test-node test-netns test-chaos test-conformance test-consumer

check: setup
	cargo fmt --all --check
	mix format --check-formatted
	cargo clippy --workspace --all-targets --locked -- -D warnings
	MIX_ENV=test mix compile --force --warnings-as-errors
	@if command -v cargo-deny >/dev/null; then cargo deny --locked check bans licenses sources; fi

# Against the advisories of the day, so it is no part of what has to pass before a change goes in.
audit:
	@command -v cargo-deny >/dev/null || { echo 'make audit needs cargo-deny: cargo install --locked cargo-deny' >&2; exit 1; }
	cargo deny --locked check

# The handshake as terms, with broken variants that have to be found out; needs ProVerif.
model:
	models/check

test-rust:
	cargo test --workspace --locked

test-elixir:
	mix test

# The same suite with realms behind the daemon, and with one of each. An attack has one victim, so the pairs need not go through them again.
PAIRS = $(filter-out test/integration/attacks_%,$(wildcard test/integration/*_test.exs))
test-node:
	LEGATION_TRANSPORT=c_node mix test test/integration
	LEGATION_TRANSPORT=embedded+c_node mix test $(PAIRS)
	LEGATION_TRANSPORT=c_node+embedded mix test $(PAIRS)

# An engine behind the daemon beside a process of a second BEAM node: what OTP code sees. All of it: test/conformance/run.
test-conformance:
	test/conformance/run --short

# The library as others use it: a dependency of another project.
test-consumer:
	test/consumer/check

# What sockets of one machine can't show: two networks, and a cable between them. Where it can't be done it says so.
test-netns:
	test/netns/run --short

# The same behind daemons, too.
netns: setup
	test/netns/run

# A few seconds of `make chaos`, of which no time is judged. Where it can't be done it says so.
test-chaos:
	test/chaos/run --short

# docs/testing.md. SECONDS: how long, over all pairs of transports. KILLS: until so many processes were killed, instead. SEED: what is drawn.
# PAIR: embedded+c_node, say, alone. SENDERS: of each node to each engine.
chaos: setup
	CHAOS_SECONDS='$(SECONDS)' CHAOS_KILLS='$(KILLS)' CHAOS_SEED='$(SEED)' CHAOS_PAIR='$(PAIR)' CHAOS_SENDERS='$(SENDERS)' test/chaos/run

# A short version is in test-elixir and test-node.
attack: setup
	scripts/attack

format:
	cargo fmt --all
	mix format

# They see to the set-up themselves.
demo:
	@scripts/demo

demo-node:
	@scripts/demo-node

bench: setup
	scripts/bench

# docs/testing.md. SECONDS: how long, of real time. SEEDS: how many at most. FROM: the first. ACTIVE: virtual seconds of each. JOBS: cores.
# SEED: that one alone, with its whole trace.
SIM = $(if $(SEED),--seed $(SEED),--seconds $(or $(SECONDS),180)) $(if $(SEEDS),--seeds $(SEEDS)) $(if $(FROM),--from $(FROM)) \
	$(if $(ACTIVE),--active $(ACTIVE)) $(if $(JOBS),--jobs $(JOBS))
sim:
	cargo run --release --locked -p legation_sim -- $(SIM)

# docs/testing.md. BUG: numbers of some, BUG='7 12'. JOBS: copies of the tree at a time. That each still applies is in test-rust.
bugbank: setup
	scripts/bugbank

# docs/testing.md. SECONDS: of each target. TARGET: that one alone. KEEP: what goes another way is put into fuzz/corpus. SANITIZER=address
fuzz:
	@scripts/fuzz $(if $(SECONDS),--seconds $(SECONDS)) $(if $(TARGET),--target $(TARGET)) $(if $(KEEP),--keep) $(if $(SANITIZER),--sanitizer $(SANITIZER))

coverage:
	@scripts/coverage

# docs/testing.md. SECONDS: how long, of real time. CASE: that one alone. JOBS: cores. Small ones are in test-rust.
explore:
	cargo run --release --locked -p legation_model -- $(if $(SECONDS),--seconds $(SECONDS)) $(if $(CASE),--case $(CASE)) $(if $(JOBS),--jobs $(JOBS))

# All of it is in test-rust, too, with fewer interruptions of each thread. INTERRUPTIONS: how many at most.
loom:
	LOOM_MAX_PREEMPTIONS=$(or $(INTERRUPTIONS),6) cargo test --release --locked -p interleaved_threads

# TESTS: those whose names have this in them.
miri:
	scripts/miri $(TESTS)

# Roots with other OTPs are made on the first run, and kept below ~/.cache.
matrix: setup
	scripts/matrix

clean:
	cargo clean
	rm -rf _build test/consumer/_build priv/native
