# Two commands need nothing but Python 3.11+ and make: `make run` and `make test`.
.DEFAULT_GOAL := help
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)
BIN := .venv/bin
# Where it is set, every process compiles all that it imports anew: 4 s of each run of the tests.
unexport PYTHONDONTWRITEBYTECODE
UV := $(BIN)/uv --quiet --no-progress
INSTALL := $(UV) pip install --python $(BIN)/python --require-hashes --compile-bytecode
COMPILE := $(UV) pip compile --universal --python-version 3.11 --generate-hashes --custom-compile-command 'make lock'
# The bounds of optional packages, from the lines of requirements.txt that begin with `#NAME `.
OPTION = sed -n -E 's/^\#($(1)) //p' requirements.txt

MIGRATIONS := $(sort $(wildcard migrations/*.sql))
# Those that run outside of a transaction.
ALONE := $(shell grep -l '^-- transactional: false' migrations/*.sql)
# What a migration must not do, and its rollback is there for.
TAKEN_BACK := ban-drop-table,ban-drop-view,ban-drop-function,ban-drop-column
# An index is dropped, where a try before left it, and made; "if not exists" would keep an invalid one.
MADE_ANEW := $(TAKEN_BACK),prefer-robust-stmts

.PHONY: help run dev test test-fast bench lint format check lock

help: ## say what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

# uv installs in seconds what takes pip minutes. pip installs uv alone, checked against the lock as all else is.
$(BIN)/uv:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv .venv
	@echo "Installing into .venv: less than a minute."
	@sed -n '/^uv==/,/[^\]$$/p' requirements-dev.lock | \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r /dev/stdin

.venv/run-installed: requirements.lock requirements-embedded.lock | $(BIN)/uv
	$(INSTALL) -r requirements.lock -r requirements-embedded.lock
	touch $@

.venv/dev-installed: requirements-dev.lock | $(BIN)/uv
	$(INSTALL) -r requirements-dev.lock
	touch .venv/run-installed $@

run: .venv/run-installed ## run the service on http://127.0.0.1:8000
	$(BIN)/python -m service

dev: .venv/dev-installed ## run the service, and again after each change of its files
	$(BIN)/watchfiles --sigint-timeout 15 '$(BIN)/python -m service' service sql migrations

# Each process keeps to its part of the files, so that what a file shares is made once, and helps the other at the end.
TEST := $(BIN)/python -m pytest -n 2 --dist worksteal

test-fast: .venv/dev-installed ## run the tests of units, statements and the API, without coverage
	$(TEST) tests/unit tests/sql tests/api

test: .venv/dev-installed ## run every test, with coverage
	$(TEST) --cov=service tests/

# The twins have packages of their own, which neither the service nor its tests need.
.bench/venv/installed: tests/benchmarks/requirements.txt requirements.lock | $(BIN)/uv
	$(UV) venv --clear --python $(BIN)/python .bench/venv
	$(UV) pip install --python .bench/venv/bin/python --compile-bytecode -c requirements.lock -r $<
	touch $@

bench: .venv/dev-installed .bench/venv/installed ## compare the service with other stacks; BENCH="--only get,post --write"
	$(BIN)/python -m tests.benchmarks $(BENCH)

lint: .venv/dev-installed ## look for mistakes without running anything
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/sqlfluff lint --disable-progress-bar sql
	$(BIN)/squawk --assume-in-transaction $(filter-out $(ALONE) %.rollback.sql,$(MIGRATIONS))
	$(BIN)/squawk --assume-in-transaction --exclude=$(TAKEN_BACK) $(filter-out $(ALONE:.sql=.rollback.sql),$(filter %.rollback.sql,$(MIGRATIONS)))
	$(if $(ALONE),$(BIN)/squawk --exclude=$(MADE_ANEW) $(ALONE) $(ALONE:.sql=.rollback.sql))

format: .venv/dev-installed ## put the sources into their form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/sqlfluff fix --disable-progress-bar sql

check: lint test ## all that a change must pass

lock: | $(BIN)/uv ## renew the locks within the bounds of requirements*.txt; UPGRADE=--upgrade takes the newest releases
	$(COMPILE) $(UPGRADE) requirements.txt -o requirements.lock
	$(call OPTION,embedded) | $(COMPILE) $(UPGRADE) - -c requirements.lock -o requirements-embedded.lock
	$(call OPTION,s3) | $(COMPILE) $(UPGRADE) - -c requirements.lock -o requirements-s3.lock
	$(call OPTION,embedded|s3) | $(COMPILE) $(UPGRADE) requirements-dev.txt - \
		-c requirements.lock -c requirements-embedded.lock -c requirements-s3.lock -o requirements-dev.lock
