# make serve   the gateway on HOST:PORT, with the catalog CATALOG: everything it needs is installed into .venv first
# make test    lint, format, types, borders and tests
# make observe a Prometheus on 127.0.0.1:9090 with the chart's rules, watching the gateway on 127.0.0.1:8000
# make dashboards   writes helm/punctual/dashboards/ anew from helm/dashboards/
# make clean   removes what these made, .venv included
#
# Python 3.11 with venv and pip is all that a machine must have. Installing takes minutes the first time and nothing
# after that, until pyproject.toml or constraints.txt change.

PYTHON ?= $(firstword $(shell command -v python3.11) python3)
HOST ?= 127.0.0.1
PORT ?= 8000
CATALOG ?= starter

VENV := .venv
BIN := $(VENV)/bin
SERVE_READY := $(VENV)/.ready-to-serve
TEST_READY := $(VENV)/.ready-to-test
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable

.PHONY: help serve test observe dashboards clean

help:
	@sed -n 's/^# make/make/p' Makefile

serve: $(SERVE_READY)
	@exec $(BIN)/punctual serve --catalog '$(CATALOG)' --host '$(HOST)' --port '$(PORT)'

test: $(TEST_READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest

observe:
	@command -v prometheus > /dev/null || { echo 'Prometheus is not installed: apt install prometheus' \
		'(Debian), or with Grafana: docker compose -f helm/observe/compose.yaml up'; exit 1; }
	@data=$$(mktemp -d) && trap 'rm -rf "$$data"' EXIT INT TERM; \
		prometheus --config.file=helm/observe/prometheus.yml --storage.tsdb.path="$$data" \
		--web.listen-address=127.0.0.1:9090

dashboards: $(TEST_READY)
	$(BIN)/python -m helm.dashboards.render

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' \
		|| { echo 'Punctual needs Python 3.11; name it with PYTHON=...'; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(SERVE_READY): $(BIN)/python pyproject.toml constraints.txt
	@echo 'Installing what serving needs into $(VENV); the first time takes some minutes.'
	$(INSTALL) '.[export]'
	@touch $@

$(TEST_READY): $(BIN)/python pyproject.toml constraints.txt
	@echo 'Installing what the tests need into $(VENV); the first time takes some minutes.'
	$(INSTALL) '.[dashboards,export,report,test,tracing]'
	@touch $(SERVE_READY) $@
