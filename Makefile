# Two commands need nothing but Python 3.11+ and make: `make run` and `make test`.
.DEFAULT_GOAL := help
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)
BIN := .venv/bin

MIGRATIONS := $(sort $(wildcard migrations/*.sql))
# Those that run outside of a transaction.
ALONE := $(shell grep -l '^-- transactional: false' migrations/*.sql)
# What a migration must not do, and its rollback is there for.
TAKEN_BACK := ban-drop-table,ban-drop-view,ban-drop-function,ban-drop-column
# An index is dropped, where a try before left it, and made; "if not exists" would keep an invalid one.
MADE_ANEW := $(TAKEN_BACK),prefer-robust-stmts

.PHONY: help run test lint format check

help: ## say what can be made
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/'

.venv/installed: requirements.txt requirements-dev.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv .venv
	@echo "Installing into .venv: a minute or two."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

run: .venv/installed ## run the service on http://127.0.0.1:8000
	$(BIN)/python -m service

test: .venv/installed ## run every test, with coverage
	$(BIN)/python -m pytest -n 2 --cov=service tests/

lint: .venv/installed ## look for mistakes without running anything
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/sqlfluff lint --disable-progress-bar sql
	$(BIN)/squawk --assume-in-transaction $(filter-out $(ALONE) %.rollback.sql,$(MIGRATIONS))
	$(BIN)/squawk --assume-in-transaction --exclude=$(TAKEN_BACK) $(filter-out $(ALONE:.sql=.rollback.sql),$(filter %.rollback.sql,$(MIGRATIONS)))
	$(if $(ALONE),$(BIN)/squawk --exclude=$(MADE_ANEW) $(ALONE) $(ALONE:.sql=.rollback.sql))

format: .venv/installed ## put the sources into their form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/sqlfluff fix --disable-progress-bar sql

check: lint test ## all that a change must pass
