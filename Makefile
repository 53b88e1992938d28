# SPDX-License-Identifier: Apache-2.0
# A fresh machine needs Python 3.11 or newer with pip and venv, and make. Everything else comes from the hashed locks.

PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
UV     := $(VENV)/bin/uv
LOCKS  := requirements/bootstrap.txt requirements/main.txt requirements/dev.txt
CODE   := src tests tools benchmarks

# Two workers: the tests start real proxies, and more of them than cores makes their timings worthless.
WORKERS ?= 2
# A file stays on one worker, for its fixtures start processes; the heavy shelves come first, so that the end is even.
PYTEST  := $(PY) -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
# A version younger than this is not taken into a lock: time for others to find what is wrong with it.
COOLDOWN ?= 7 days

export UV_SYSTEM_CERTS ?= 1
export UV_LINK_MODE ?= copy
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Tests and demo start many Python processes; without cached bytecode each costs a second more.
unexport PYTHONDONTWRITEBYTECODE

COMPILE = $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
          --no-emit-index-url --no-header --no-annotate --exclude-newer "$(COOLDOWN)"
LOCK_ADDRESSES = ! grep -nE '://|--index|--find-links|--trusted-host' requirements/*.txt

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

# --- the environment -------------------------------------------------------------------------------------------

$(VENV)/.base: requirements/bootstrap.txt
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed, e.g.: make PYTHON=python3.11 $(MAKECMDGOALS)")'
	@$(PYTHON) -m venv --clear $(VENV)
	@$(PY) -m pip install --quiet --require-hashes -r requirements/bootstrap.txt
	@touch $@

# uv is the fast way; pip is the way for a machine whose mirror only pip knows. Both refuse a wrong hash.
$(VENV)/.locked: $(VENV)/.base $(LOCKS)
	@$(UV) pip sync --quiet --python $(PY) --require-hashes $(LOCKS) 2>$(VENV)/uv.log \
	  || { echo "uv could not install the locks (see $(VENV)/uv.log); falling back to pip"; \
	       $(PY) -m pip install --quiet --require-hashes $(foreach lock,$(LOCKS),-r $(lock)); }
	@rm -f $(VENV)/.ready
	@touch $@

$(VENV)/.ready: $(VENV)/.locked pyproject.toml
	@$(PY) -m pip install --quiet --no-deps --no-build-isolation --no-index --editable .
	@touch $@

.PHONY: setup
setup: $(VENV)/.ready ## Make .venv from the hashed locks (the other targets do this by themselves)

# --- see it work -----------------------------------------------------------------------------------------------

.PHONY: demo
demo: $(VENV)/.ready ## Guided tour: real services, real attacks, expected against seen
	@$(PY) -m everyhop demo

# --- test ------------------------------------------------------------------------------------------------------

.PHONY: test
test: $(VENV)/.ready ## The tests, except those marked long, slow or bench
	$(PYTEST) -m "not long and not slow and not bench" tests

.PHONY: test-long
test-long: $(VENV)/.ready ## The long tests: whole matrices of attempts and points, and every guide
	$(PYTEST) -m "long and not slow and not bench" tests

.PHONY: test-all
test-all: $(VENV)/.ready peers ## Every test but the benchmarks, with branch coverage; installs missing peers when root
	$(PYTEST) -m "not bench" --cov --cov-report=term:skip-covered tests

.PHONY: integration
integration: $(VENV)/.ready ## Only the tests against real proxies, databases and peers
	$(PYTEST) -m "not bench" tests/integration

.PHONY: peers
peers:
	@sh tools/install_peers.sh

# --- check: `make -k check` goes on after the first failure ------------------------------------------------------

.PHONY: check check-format check-lint check-types check-imports check-locks check-docs
check: check-format check-lint check-types check-imports check-locks check-docs ## Format, lint, types, import map, locks and documents

check-format: $(VENV)/.ready
	$(PY) -m ruff format --check $(CODE)

check-lint: $(VENV)/.ready
	$(PY) -m ruff check $(CODE)

check-types: $(VENV)/.ready
	$(PY) -m mypy

check-imports: $(VENV)/.ready
	@$(PY) $(VENV)/bin/lint-imports --no-logo

check-locks:
	@$(LOCK_ADDRESSES)

check-docs: $(VENV)/.ready
	@$(PY) tools/check_docs.py

.PHONY: fix
fix: $(VENV)/.ready ## Apply the formatter and the safe lint fixes (PATHS=src/everyhop/core for one room)
	$(PY) -m ruff check --fix $(or $(PATHS),$(CODE))
	$(PY) -m ruff format $(or $(PATHS),$(CODE))

# --- measure ---------------------------------------------------------------------------------------------------

.PHONY: bench
bench: $(VENV)/.ready ## Run the benchmarks and compare each with its bar
	@$(PY) benchmarks/run.py

# --- maintain --------------------------------------------------------------------------------------------------

.PHONY: lock
lock: $(VENV)/.base ## Write the hashed locks again from pyproject.toml
	$(COMPILE) requirements/bootstrap.in -o requirements/bootstrap.txt
	$(COMPILE) --all-extras --constraints requirements/bootstrap.txt pyproject.toml -o requirements/main.txt
	$(COMPILE) --group dev --constraints requirements/bootstrap.txt --constraints requirements/main.txt -o requirements/dev.txt
	@$(LOCK_ADDRESSES)

.PHONY: clean
clean: ## Remove the environment, caches and build products
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage .coverage.* htmlcov build dist
	find src tests tools benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
