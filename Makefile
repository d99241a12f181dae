# The commands for users and contributors; CI runs the same ones (.ci/run).
PYTHON ?= python3
TORCH ?= auto
FOLDER ?=
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help setup reproduce study test test-all check bench rivals up down clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-10s %s\n", $$1, $$2}'

setup: ## create .venv and install, nothing else; TORCH=cpu or TORCH=cuda chooses the build of torch
	@TORCH=$(TORCH) $(PYTHON) infra/install.py $(VENV)

reproduce: setup ## the whole pipeline at laptop size on embedded services
	@$(BIN)/effnet reproduce profile=laptop

study: setup ## experiments that can fail, on ELPV (its package is installed: CC BY-NC-SA 4.0) or FOLDER=...
ifdef FOLDER
	@$(BIN)/effnet study profile=study data=folder data.path="$(FOLDER)"
else
	@$(BIN)/python -c 'import elpv_dataset' 2>/dev/null || \
		$(PYTHON) -m pip --python $(BIN)/python install --quiet --no-deps elpv-dataset==1.0.0.post1
	@$(BIN)/effnet study profile=study
endif

# Three processes, because a quarter of the time is spent waiting, run whole test files in the order of their paths: end
# to end and integration, then units.
# PYTHONDONTWRITEBYTECODE is cleared because otherwise each of many training processes would compile the modules again.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder

test: setup ## the tests, on real services, without those marked slow
	@$(PYTEST)

test-all: setup ## all tests, in one run, whose files set up their services and reference jobs once
	@$(PYTEST) -m "slow or not slow"

check: setup ## format, lint, types, import contracts
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

rivals: ## install the rivals of the benchmarks into .venv-rivals
	@bash benchmarks/rivals/install.sh

bench: setup ## all benchmarks, each with its rival in the same run
	@for each in waits startup overhead decode order folder shard loader step memory latency serve checkpoint; do $(BIN)/python -m benchmarks.$$each || exit 1; done

up: setup ## start the embedded services
	@$(BIN)/effnet up

down: setup ## stop the embedded services
	@$(BIN)/effnet down

clean: ## stop the services, then delete .venv and everything under runs/
	@if [ -x $(BIN)/effnet ]; then $(BIN)/effnet down; fi
	@rm -rf $(VENV) runs build models/*/native/*.so models/*/*/native/*.so *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
