# Everything needs only Python 3.11 or newer and make; the virtual environment is made on first use.
# pip takes its settings (index, proxy, certificates) from this machine's own configuration.

PYTHON ?= python3
VENV ?= .venv
PIP_TOOLS ?= pip-tools==7.6.2
# More arguments for pytest: make test ARGS="-k quota -x"
ARGS ?=
# Processes that share the tests; 0 runs them in one. Many tests wait for a broker more than they compute.
WORKERS ?= 4
# Tests start dozens of processes: each would compile the sources anew where an environment forbids to keep that.
unexport PYTHONDONTWRITEBYTECODE

BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input
SOURCES := pyproject.toml

.DEFAULT_GOAL := help
.PHONY: help demo test fuzz simulate backlog chaos soak mutations check coverage bench lint format lock clean

help:  ## Show this list
	@grep -E '^[a-z]+:.*##' $(firstword $(MAKEFILE_LIST)) | sed -E 's/^([a-z]+):.*## */  make \1	/' | expand -t 18

demo: $(VENV)/.runtime  ## See everything work on this machine: broker, sandbox, bridge, a stream of events
	$(BIN)/meisa-bridge demo

test: $(VENV)/.dev  ## Run all tests; a real Kafka needs Java 17 and Maven, a schema registry Go, pages chromium, else tests skip. Slow ones too, as in CI: THOROUGH=1
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup $(ARGS)

check: lint  ## Run the static checks: ruff, mypy, import-linter
	$(BIN)/mypy
	$(BIN)/lint-imports

simulate: $(VENV)/.dev  ## Simulate the whole engine under faults: SEED=123 replays one, SEEDS=2000 runs many
	$(BIN)/python -m tests.support.simulation $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),2000))

fuzz: $(VENV)/.dev  ## A hundred thousand bad records and requests, and bad answers and files: SEED=, KIND=, COUNT=, FIRST=
	$(BIN)/python -m tests.support.fuzz $(if $(SEED),--seed $(SEED)) $(if $(KIND),--kind $(KIND)) \
	  $(if $(COUNT),--count $(COUNT)) $(if $(FIRST),--first $(FIRST))

backlog: $(VENV)/.dev  ## Hours of work on a million events at Meisa's quota, on a virtual clock: is memory flat? HOURS=
	$(BIN)/python -m tests.support.backlog $(if $(HOURS),--hours $(HOURS))

coverage: $(VENV)/.dev  ## Hold the machines in bridge/core to full branch coverage
	$(BIN)/python -m pytest -q tests/unit/core tests/property -k core --cov=bridge.core --cov-branch --cov-fail-under=100 \
	  --cov-report=term-missing:skip-covered

chaos: $(VENV)/.dev  ## Break things around a real Kafka and print what came of it: SHORT=1, EVENTS=, SEED=, KINDS="kill freeze"
	$(BIN)/python -m $(if $(SHORT),pytest -m chaos tests/chaos $(ARGS),tests.support.chaos $(if $(EVENTS),--events $(EVENTS)) \
	  $(if $(SEED),--seed $(SEED)) $(if $(KINDS),--kinds $(KINDS)) $(if $(WORK),--work-seconds $(WORK)) $(if $(FOLDER),--folder $(FOLDER)))

soak: $(VENV)/.dev  ## Half an hour of changing load on one bridge: are memory, handles and threads flat? MINUTES=, SVG=, FOLDER=
	$(BIN)/python -m tests.support.soak $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SVG),--svg $(SVG)) $(if $(FOLDER),--folder $(FOLDER))

mutations: $(VENV)/.dev  ## Take each hard case's code out of a copy: do its tests notice? CASES="1 12"
	THOROUGH=1 $(BIN)/python -m tests.mutations $(CASES)

bench: $(VENV)/.dev  ## Measure and print: throughput, CPU, memory, start
	$(BIN)/python -m benchmarks

lint: $(VENV)/.dev  ## Check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.dev  ## Put the code into shape
	$(BIN)/ruff check --fix --exit-zero .
	$(BIN)/ruff format .

clean:  ## Remove the virtual environment and everything generated
	rm -rf $(VENV) .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage htmlcov build dist *.egg-info
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "This needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1 || true)." >&2; \
	  echo "Name another one: make $(firstword $(MAKECMDGOALS)) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "'$(PYTHON)' cannot make virtual environments; on Debian: apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

# Hashes hold for every file of a lock, so pip installs exactly what was reviewed, from whatever index it uses.
$(VENV)/.runtime: requirements.lock requirements-build.lock $(SOURCES) | $(VENV)/.python
	$(INSTALL) --require-hashes -r requirements-build.lock -r requirements.lock
	$(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.runtime
	$(INSTALL) --require-hashes -r requirements-dev.lock
	@touch $@

LOCK := CUSTOM_COMPILE_COMMAND="make lock" .cache/lock/bin/pip-compile --quiet --generate-hashes --strip-extras \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host
lock:  ## Renew the lock files from pyproject.toml (make lock UPGRADE=--upgrade for newer versions)
	$(PYTHON) -m venv .cache/lock
	.cache/lock/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_TOOLS)
	$(LOCK) $(UPGRADE) --extra redis --extra tracing --output-file requirements.lock pyproject.toml
	$(LOCK) $(UPGRADE) --allow-unsafe --all-build-deps --only-build-deps --output-file requirements-build.lock pyproject.toml
	$(LOCK) $(UPGRADE) --allow-unsafe --extra dev --constraint requirements.lock --output-file requirements-dev.lock pyproject.toml
