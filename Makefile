# Every verb sets up what it needs: Python ≥ 3.11 with pip and venv is enough. Nothing outside of this directory changes.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Files of tests that run side by side: the tests wait more than they compute.
JOBS ?= 3

.DEFAULT_GOAL := help
.PHONY: help setup demo cluster test check fmt bench docs fuzz dist clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-7s %s\n", $$1, $$2}' Makefile

setup: $(STAMP) ## make .venv and install the project with its tools

demo: $(STAMP) ## run the example worker with an embedded orchestrator
	$(BIN)/worker demo

cluster: $(STAMP) ## run two orchestrators, three workers, Redis, S3 (ARGS="--jobs 2000 --faults")
	@$(BIN)/python -m cluster $(ARGS)

test: $(STAMP) ## run all tests (ARGS="tests/config -k url" for some)
	$(BIN)/pytest $(if $(ARGS),$(ARGS),-n $(JOBS) --dist loadfile)

check: $(STAMP) ## formatting, lint, types, layers, generated documents
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/python scripts/generate_docs.py --check

fmt: $(STAMP) ## format the code and fix what lint can fix
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

docs: $(STAMP) ## write the generated documents and build the site in build/site
	$(BIN)/python scripts/generate_docs.py
	$(BIN)/python -c "import material, mkdocstrings_handlers.python" 2>/dev/null || \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	$(BIN)/python scripts/check_site.py

bench: $(STAMP) ## run the benchmarks (ARGS="--quick", ARGS="slots-50 idle")
	$(BIN)/python -m bench $(ARGS)

fuzz: $(STAMP) ## fuzz what reads bytes from outside (ARGS="task uris --seconds 300")
	$(BIN)/python -c "import atheris" 2>/dev/null || $(BIN)/python -m pip install --quiet --editable '.[fuzz]'
	$(BIN)/python -m fuzz $(ARGS)

# The same commit gives the same bytes: times in the archives are the commit's.
dist: $(STAMP) ## build the wheel, the sdist and their list of parts (SBOM) into dist/
	rm -rf dist
	SOURCE_DATE_EPOCH="$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct)}" $(BIN)/python -m build --outdir dist
	$(BIN)/twine check --strict dist/*
	$(BIN)/python scripts/write_sbom.py dist
	@cd dist && sha256sum *

clean: ## remove .venv, caches and build results
	rm -rf $(VENV) .cache .hypothesis .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build dist demo-output
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# The interpreter is checked first: pip's own message about requires-python does not say what to do.
$(STAMP): pyproject.toml
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "This project needs Python 3.11 or newer; '$(PYTHON)' is missing or older." >&2; \
		echo "Name another one: make PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV) || { \
		echo "The virtual environment could not be made (on Debian and Ubuntu: apt install python3-venv)." >&2; \
		rm -rf $(VENV); exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,pydantic,metrics,demo]'
	@touch $(STAMP)
