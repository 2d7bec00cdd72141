# Paths are relative, so that a checkout in a folder with spaces works too.
PY := .venv/bin/python
ENGINE ?= cpu
SHELL := /bin/bash

.PHONY: help setup demo lint check format unit test test-gpu bench docs install uninstall clean

help: ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: ## .venv with Helios, an engine (ENGINE=cpu or cuda) and the developers' tools
	@.ci/setup $(ENGINE)

demo: setup ## start heliosd, import a real model, ask it, stop
	@.ci/demo

check: lint unit ## format, lint, types, import contracts, unit tests: what each commit passes

lint: setup
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy
	.venv/bin/lint-imports

format: setup ## what `check` would complain about and a tool can mend
	$(PY) -m ruff check --fix --quiet .
	$(PY) -m ruff format .

# Bytecode, that of rewritten assertions too, is kept from one run to the next: to make it is an eighth of the work.
unit: export PYTHONDONTWRITEBYTECODE :=
unit: setup
	$(PY) -m pytest -q -n auto -m "not slow and not gpu"

# The quick ones with all examples of their properties, side by side; those with engines one after another.
test: setup ## all tests that need no GPU, with real engines
	$(PY) -m pytest -q -n auto -m "not (slow or gpu)"
	$(PY) -m pytest -q -m "slow and not gpu"

test-gpu: ## everything in tests/hardware, on a machine with an NVIDIA GPU
	@$(MAKE) --no-print-directory setup ENGINE=cuda
	$(PY) -m pytest -q -m gpu tests/hardware

bench: setup ## the benchmarks, each a table
	$(PY) -m tests.bench.startup
	$(PY) -m tests.bench.coldstart
	$(PY) -m tests.bench.gateway
	$(PY) -m tests.bench.estimate
	$(PY) -m tests.bench.truth
	$(PY) -m tests.bench.training
	$(PY) -m tests.bench.packing
	$(PY) -m tests.bench.defragment
	$(PY) -m tests.bench.storm
	$(PY) -m tests.bench.traces
	$(PY) -m tests.bench.crowd
	$(PY) -m tests.bench.forecast
	$(PY) -m tests.bench.store
	$(PY) -m tests.bench.catalog
	$(PY) -m tests.bench.retention
	$(PY) -m tests.bench.fetch
	$(PY) -m tests.bench.kills
	$(PY) -m tests.bench.overhead

docs: setup ## write what is generated: docs/api.md, docs/metrics.md, alert rules, dashboards
	$(PY) -m heliosd.api.openapi > docs/api.md
	$(PY) -m heliosd.telemetry.catalogue > docs/metrics.md
	$(PY) -m heliosd.telemetry.alerts > systemd/prometheus/helios.rules.yml
	$(PY) -m heliosd.telemetry.dashboards systemd/grafana

install: ## heliosd as a systemd service (PREFIX=/opt/helios, ENGINE=cpu or cuda)
	@PREFIX="$(or $(PREFIX),/opt/helios)" DESTDIR="$(DESTDIR)" $(if $(filter command% environment%,$(origin ENGINE)),ENGINE="$(ENGINE)") systemd/install.sh

uninstall: ## take it away again; models and state stay
	@PREFIX="$(or $(PREFIX),/opt/helios)" DESTDIR="$(DESTDIR)" systemd/install.sh --uninstall

clean: ## what can be made again
	rm -rf .venv .demo build .mypy_cache .ruff_cache .pytest_cache .hypothesis
