PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
LOCKS  := base controller trainer tpu cuda images dev parity tunix
PARITY := .venv-parity
TUNIX  := .venv-tunix
# The tests of a file share what they start and compile, so one process takes them all; others wait while two compute.
BY_FILE := --numprocesses 4 --dist loadfile --no-loadscope-reorder
export TOKENIZERS_PARALLELISM := false

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-light test-all check lint bench bench-controller bench-tunix parity generate lock clean

##@ Use
help: ## List the commands
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## Make the virtual environment from the lock (demo and test do it themselves)

demo: $(READY) ## Train a small model with GRPO from one GRPOJob and watch its reward rise (about a minute once set up)
	$(BIN)/python -m examples.demo.run

##@ Develop
test: $(READY) lint ## Lint, types, imports and the tests, with reduced counts and without the longest
	$(BIN)/python -m tests.controlplane.binaries
	$(BIN)/python -m pytest -q $(BY_FILE) -m 'not long' tests

test-light: $(READY) ## The tests that need no JAX and no cluster
	$(BIN)/python -m pytest -q --numprocesses 2 --dist worksteal tests/contract tests/controller tests/repository

test-all: $(READY) lint ## Every test with full counts, and the images (as root); figures go to docs/results.md
	$(BIN)/python -m tests.controlplane.binaries
	GRPO_TEST_SCALE=50 $(BIN)/python -m pytest -q $(BY_FILE) -o python_files='test_*.py builds.py' tests

check: lint test-light ## What a commit needs: lint, types, imports, light tests

lint: $(READY) ## ruff, mypy, import-linter, hadolint, and whether what is generated is fresh
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint controller/Dockerfile trainer/Dockerfile
	$(BIN)/python docs/generate.py --check

bench: $(READY) ## Ratios against a baseline in the same run, with the machine's noise
	$(BIN)/python tests/bench/startup.py
	JAX_PLATFORMS=$${JAX_PLATFORMS:-cpu} $(BIN)/python -m tests.bench.step

bench-controller: $(READY) ## The operator over 1,000 jobs: rate, delay, requests, CPU and memory (about eight minutes)
	$(BIN)/python -m tests.bench.controller

bench-tunix: $(TUNIX)/.ready ## One training step here and in Tunix, in turn (1 GB to fetch once)
	JAX_PLATFORMS=cpu $(BIN)/python -m tests.bench.beside_tunix $(TUNIX)/bin/python

parity: $(PARITY)/.ready ## Exports against transformers, PEFT and PyTorch, in an environment of their own (3 GB to fetch once)
	JAX_PLATFORMS=cpu PYTHONPATH=. $(PARITY)/bin/python -m pytest -q tests/parity/exports.py

generate: $(READY) ## Rewrite what is generated from the types (docs/api.md, rules.md, metrics.md, troubleshooting.md, crds/)
	$(BIN)/python docs/generate.py

lock: $(READY) ## Resolve pyproject.toml anew into .ci/requirements/*.txt
	@for lock in $(LOCKS); do \
	  sources=pyproject.toml; \
	  case $$lock in \
	    base) extras= ;; \
	    controller) extras="--extra controller" ;; \
	    trainer) extras="--extra trainer --extra tracking" ;; \
	    tpu) extras="--extra trainer --extra tpu --extra tracking" ;; \
	    cuda) extras="--extra trainer --extra cuda --extra tracking --constraint .ci/requirements/trainer.txt" ;; \
	    images) extras="--group pyproject.toml:images" sources= ;; \
	    dev) extras="--extra controller --extra trainer --extra dev" ;; \
	    parity) extras="--extra trainer --group pyproject.toml:parity --constraint .ci/requirements/dev.txt" ;; \
	    tunix) extras="--group pyproject.toml:tunix" sources= ;; \
	  esac; \
	  $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	    --custom-compile-command "make lock" $$extras $$sources --output-file .ci/requirements/$$lock.txt; \
	done

clean: ## Remove the virtual environment and caches
	rm -rf $(VENV) $(PARITY) $(TUNIX) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

$(READY): .ci/requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"Python 3.11 or newer is needed, {v.major}.{v.minor} was found; set PYTHON=/path/to/python3.11")'
	@echo "Setting up $(VENV) (once, about a minute) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --requirement .ci/requirements/dev.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(PARITY)/.ready $(TUNIX)/.ready: .venv-%/.ready: .ci/requirements/%.txt | $(READY)
	@$(PYTHON) -m venv .venv-$*
	@.venv-$*/bin/pip install --quiet --disable-pip-version-check --require-hashes --requirement .ci/requirements/$*.txt
	@touch $@
