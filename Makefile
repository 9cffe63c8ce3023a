.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help demo test check docs torture format clean
help: ## Show what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

.venv/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: .venv/installed ## Set up, and run the main job on 5,000 digits (three to six minutes)
	$(BIN)/selfsup demo

test: .venv/installed ## Set up, and run the tests
	$(BIN)/python -m pytest

check: .venv/installed ## Lint, types, the site and tests with coverage
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build
	$(BIN)/python -m pytest --cov --cov-report=term:skip-covered --cov-fail-under=90

docs: .venv/installed ## Build the documentation site into site/; open site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

TIMES ?= 200
FILES ?= 10000
MINUTES ?= 10
torture: .venv/installed ## Kill, fill disks, break files: TIMES=200 FILES=10000 MINUTES=10 (docs/reliability.md)
	cd tests && ../$(BIN)/python -m torture.kill --times $(TIMES)
	cd tests && ../$(BIN)/python -m torture.disk --times $(TIMES)
	cd tests && ../$(BIN)/python -m torture.ranks
	cd tests && ../$(BIN)/python -m torture.long
	cd tests && ../$(BIN)/python -m torture.files --count $(FILES)
	cd tests && ../$(BIN)/python -m torture.fuzz --minutes $(MINUTES)

format: .venv/installed ## Format, fix what can be fixed, write the generated pages
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	for page in survey cli korean; do $(BIN)/python docs/$$page.py || exit 1; done

clean: ## Remove what was installed and cached here
	rm -rf .venv site .pytest_cache .mypy_cache .ruff_cache .coverage
