# make run: the whole pipeline on real digits.  make test: the tests.  Both set everything up first.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
CONFIG ?= configs/digits.yaml
VENV   := .venv
STAMP  := $(VENV)/.installed
WORKERS ?= 2
EXAMPLES ?= 20000
SITE ?= site
BIN    := $(VENV)/bin
UV     := VIRTUAL_ENV=$(CURDIR)/$(VENV) UV_COMPILE_BYTECODE=1 $(BIN)/uv

.PHONY: setup run test test-slow check format docs bench bench-gpu faults fuzz sbom audit lock clean

setup: $(STAMP)

# Bytecode is compiled here, once: without it every Ray worker compiles torch and Ray again.
$(STAMP): pyproject.toml requirements.lock bootstrap.lock
	@test -n "$(PYTHON)" || { echo "error: Python (make setup): none found; expected python3.11 or newer on PATH" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: Python (make setup): $(PYTHON) is too old; expected 3.11 or newer: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r bootstrap.lock
	$(UV) pip sync --quiet --require-hashes requirements.lock
	$(UV) pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

run: $(STAMP)
	$(BIN)/gan run $(CONFIG)

# Two processes, each with a Ray of its own; a file of tests stays in one, with what its tests share.
test: $(STAMP)
	$(BIN)/python -m pytest --numprocesses=$(WORKERS) --dist=loadfile

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m "slow or not slow"

check: $(STAMP) docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The documents as a site that needs no server: SITE/index.html. Its tools are in a lock of their own, which nothing else needs.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict --site-dir $(SITE)

$(VENV)/.docs: requirements-docs.lock $(STAMP)
	$(UV) pip install --quiet --require-hashes -r requirements-docs.lock
	@touch $@

bench: $(STAMP)
	$(BIN)/python -m tests.benchmarks

# A population against one GAN on a GPU, by gan_core and torch alone: with no environment of ours, PYTHON is what has them.
bench-gpu:
	$(PYTHON) -m tests.benchmarks.populations program --device cuda --nets published
	$(PYTHON) -m tests.benchmarks.populations program --device cuda --nets digits --members 256

# The scorecard of faults (docs/faults.md); PART="--part flips --runs 1000" is a part of it, PART=--busy has busy neighbours.
faults: $(STAMP)
	$(BIN)/python -m tests.faults.scorecard $(PART)

# Hypothesis on every parser for about an hour; 60 examples of each are among the tests.
fuzz: $(STAMP)
	GAN_FUZZ_EXAMPLES=$(EXAMPLES) GAN_TEST_SEED=$$(date +%s) $(BIN)/python -m pytest -n0 --timeout=7200 tests/faults/test_fuzz.py

# What the image installs, as CycloneDX; and its known vulnerabilities, where their source can be asked: else it fails.
sbom: $(STAMP)
	$(UV) tool run --from cyclonedx-bom cyclonedx-py requirements requirements-runtime.lock --output-reproducible -o sbom.json

audit: $(STAMP)
	$(UV) tool run pip-audit --strict --disable-pip --requirement requirements-runtime.lock

# Pins with hashes and no index address; bootstrap.lock holds the installer itself.
# The runtime lock, which the image installs, is the part of the lock without the tools of development.
lock: $(STAMP)
	grep -o 'uv==[0-9.]*' pyproject.toml | $(UV) pip compile - --universal --generate-hashes --no-annotate --no-header --upgrade -o bootstrap.lock
	$(UV) pip compile pyproject.toml --extra dev --universal --generate-hashes --no-annotate --no-header --upgrade -o requirements.lock
	$(UV) pip compile pyproject.toml --extra services --universal --generate-hashes --no-annotate --no-header --upgrade --constraints requirements.lock -o requirements-runtime.lock
	$(UV) pip compile --group docs --universal --generate-hashes --no-annotate --no-header --upgrade --constraints requirements.lock -o requirements-docs.lock

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache bench.json site
