# `make` lists the targets. Everything runs in .venv, which is made and kept up to date as needed.
#
#   make test PYTEST_ARGS="-k quota -x"      arguments for pytest
#   make test PYTEST_ARGS="-n 0 --pdb"       one test at a time, on a terminal
#   make test PYTHON=python3.12              the Python that .venv is made with

PYTHON ?= python3
PYTEST_ARGS ?=
DEMO_ARGS ?=
BENCH_ARGS ?= all
BROKERS ?=

# Two processes: unit tests one by one; those against brokers by file, as a file's tests share a
# broker. Each process has its own brokers, and those tests that are marked `alone` the machine.
UNIT := tests -n 2 --dist worksteal
INTEGRATION := integration -n 2 --dist loadfile --no-loadscope-reorder

BIN := .venv/bin
INSTALLED := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help install venv demo test unit lint types smoke soak bench brokers clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

install: $(INSTALLED) ## make .venv with the project and its development tools

venv: $(INSTALLED)

# Done again only when pyproject.toml changes. What pip says goes to standard error, so that the
# output of the targets stays theirs.
$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
		|| { echo "$(PYTHON) cannot make virtual environments: apt-get install python3-venv" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1' >&2
	@$(BIN)/python -m pip install --quiet --group dev --editable . >&2
	@touch $@

demo: $(INSTALLED) ## see it work, without a broker (DEMO_ARGS="--help")
	@$(BIN)/shield demo $(DEMO_ARGS)

# One part may have none of the tests that PYTEST_ARGS selects (pytest's status 5), but not both.
test: lint types ## everything: lint, types, unit tests, then the tests against real brokers
	@found=false; \
	for part in "$(UNIT)" "$(INTEGRATION)"; do \
		$(BIN)/python -m pytest $$part $(PYTEST_ARGS) && found=true || [ $$? -eq 5 ] || exit 1; \
	done; \
	$$found

unit: $(INSTALLED) ## the unit tests alone, which need no broker
	$(BIN)/python -m pytest $(UNIT) $(PYTEST_ARGS)

lint: $(INSTALLED) ## ruff: rules and format
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(INSTALLED) ## mypy, strict
	$(BIN)/mypy

smoke: $(INSTALLED) ## the few tests that prove each real broker works
	$(BIN)/python -m pytest integration -m smoke $(PYTEST_ARGS)

soak: $(INSTALLED) ## kill processes at many more random moments than `test` does; half an hour
	SHIELD_SOAK=1 $(BIN)/python -m pytest integration -m soak -s $(PYTEST_ARGS)

bench: $(INSTALLED) ## the benchmarks, side by side with bare clients (BENCH_ARGS="NAME --json")
	@$(BIN)/python -m benchmarks $(BENCH_ARGS)

brokers: $(INSTALLED) ## start real brokers and keep them until Ctrl-C (BROKERS="kafka redis")
	@$(BIN)/python -m integration.brokers $(BROKERS)

clean: ## remove .venv and everything that was built or cached here
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
