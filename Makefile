# The two commands are `make demo` and `make test`; the rest is for people who change the code.
# ERANK_JOBS=N limits parallel compilation (a libtorch file takes up to 1.5 GB).

ERANK_JOBS ?= $(shell nproc)
SHELL := /bin/bash
RELEASE := build
CONFIGURE := cmake -G Ninja

.PHONY: help demo setup build test test-slow web test-web format lint asan tsan fuzz bench bench-peers bench-grpo bench-bm25 bench-precisions compile-matrix clean

help:
	@sed -n 's/^## //p' Makefile

## make demo             install what is missing, build, rerank the demo's queries and show the result
demo: build
	@$(RELEASE)/erank demo

## make test             the same set-up, then every test that is quick
test: setup-tests
	@$(CONFIGURE) -S . -B $(RELEASE) -DCMAKE_BUILD_TYPE=Release -DERANK_TESTS=ON >$(RELEASE).configure.log || (tail -20 $(RELEASE).configure.log; exit 1)
	@rm -f $(RELEASE).configure.log
	cmake --build $(RELEASE) -j $(ERANK_JOBS)
	cd $(RELEASE) && ctest --output-on-failure -j $(ERANK_JOBS) -LE slow

## make test-slow        the long tests: 8 GB checkpoint, optional models, engines of examples/scale, clients, long fuzz runs
test-slow: test
	tools/setup --slow --scale --clients
	cd $(RELEASE) && ctest --output-on-failure -L slow
	$(MAKE) fuzz FUZZ_SECONDS=300

## make web              build the page's bundle, web/dist (needs Node 20.19)
web:
	cd web && npm ci && npm run build

## make test-web         the bundle is what its sources build, and the page works in a browser (Node, Chromium)
test-web: build
	ERANK_PROGRAM=$(CURDIR)/$(RELEASE)/erank web/check

## make build            only build: the program is build/erank
build: setup
	@$(CONFIGURE) -S . -B $(RELEASE) -DCMAKE_BUILD_TYPE=Release -DERANK_TESTS=$(if $(wildcard $(RELEASE)/tests),ON,OFF)
	cmake --build $(RELEASE) -j $(ERANK_JOBS) --target erank

PREFIX ?= /usr/local
.PHONY: install deb wheel
## make install          the program, the library liberank.so and its CMake package into PREFIX (/usr/local)
install: build
	cmake --build $(RELEASE) -j $(ERANK_JOBS) --target erank_shared
	cmake --install $(RELEASE) --prefix $(PREFIX)

## make deb              Debian packages in build/deb: erank, erank-mpi, erank-parquet, liberank-dev
deb: build
	cmake --build $(RELEASE) -j $(ERANK_JOBS) --target erank_shared
	cd $(RELEASE) && cpack -G DEB -B deb

## make wheel            the Python package in build/wheel
wheel: setup
	python3 -m pip wheel . --no-deps -w $(RELEASE)/wheel

.PHONY: setup-tests setup-dev
setup:
	@tools/setup
setup-tests:
	@tools/setup --tests
setup-dev:
	@tools/setup --tests --dev

## make format           clang-format every source in place
format: setup-dev
	git ls-files '*.h' '*.cpp' | xargs clang-format -i

## make lint             formatting and clang-tidy, without changing anything
lint: setup-dev
	git ls-files '*.h' '*.cpp' | xargs clang-format --dry-run --Werror
	cmake --preset release >/dev/null
	tools/lint build-release

## make asan             the rooms without libtorch under address and undefined-behaviour sanitizers
asan: setup-dev
	cmake --preset dev >/dev/null && cmake --build --preset dev -j $(ERANK_JOBS)
	cd build-dev && ASAN_OPTIONS=detect_leaks=1 ctest --output-on-failure -j $(ERANK_JOBS) -LE slow

## make tsan             the rooms without libtorch under the thread sanitizer
tsan: setup-dev
	cmake --preset tsan >/dev/null && cmake --build --preset tsan -j $(ERANK_JOBS)
	cd build-tsan && ctest --output-on-failure -j $(ERANK_JOBS) -LE slow

FUZZ_SECONDS ?= 60
## make fuzz             every fuzz target for FUZZ_SECONDS (60) each
fuzz: setup-dev
	cmake --preset fuzz >/dev/null && cmake --build --preset fuzz -j $(ERANK_JOBS)
	tools/run_fuzzers build-fuzz $(FUZZ_SECONDS)

## make bench            the programs behind docs/performance.md
bench: setup-dev
	cmake --preset release -DERANK_BENCH=ON >/dev/null && cmake --build build-release -j $(ERANK_JOBS)
	tools/run_benches build-release

PEERS ?=
## make bench-peers      erank against llama.cpp, transformers and OpenVINO; PEERS='--only decode' measures a part
bench-peers: build
	@tools/peers || true
	python3 bench/peers.py --erank $(RELEASE)/erank $(PEERS)

GRPO ?=
## make bench-grpo       a step of erank train grpo against TRL's GRPOTrainer; GRPO='--steps 5' changes a setting
bench-grpo: build
	@tools/peers trl || true
	python3 bench/grpo_speed.py --erank $(RELEASE)/erank $(GRPO)

BM25 ?=
## make bench-bm25       erank's first stage against Anserini's: equal hits, times; BM25='--data DIR' names the collections
bench-bm25: build
	@tools/peers anserini || true
	python3 bench/bm25_peer.py --erank $(RELEASE)/erank $(BM25)

PRECISIONS ?=
## make bench-precisions memory and speed of the 4B shape in bf16, int8 and 4 bits; PRECISIONS='--shape qwen3-0.6b' changes it
bench-precisions: build
	python3 bench/precisions.py --erank $(RELEASE)/erank $(PRECISIONS)

## make compile-matrix   compile against libtorch 2.11, 2.13 and 2.14
compile-matrix: setup-dev
	tools/compile_matrix

clean:
	rm -rf build build-*
