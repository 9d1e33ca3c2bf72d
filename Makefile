# Every verb sets up what it needs: Python ≥ 3.11 with pip and venv is enough. Nothing outside of this directory changes.

PYTHON ?= python3
# An interpreter that was named gets an environment of its own (.venv-3.13): one is never taken for another.
ifeq ($(origin PYTHON),file)
VENV := .venv
else
VENV := .venv$(shell "$(PYTHON)" -c 'import sys; print("-%d.%d" % sys.version_info[:2] + sys.abiflags)' 2>/dev/null || echo -none)
endif
BIN := $(VENV)/bin
# Files of tests that run side by side: the tests wait more than they compute.
JOBS ?= 4

.DEFAULT_GOAL := help
.PHONY: help setup demo cluster simulate endure test coverage image check fmt bench docs fuzz mutation dist clean
# Two installations into one environment would be in each other's way.
.NOTPARALLEL:

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' Makefile

setup: $(addprefix $(VENV)/.,extra-dev group-check group-coverage group-dist group-docs group-examples group-mutation) ## make .venv and install all that the verbs need, except for fuzz

demo: $(VENV)/.extra-demo ## run the example worker with an embedded orchestrator
	$(BIN)/worker demo

cluster: $(VENV)/.extra-dev ## run two orchestrators, three workers, Redis, S3 (ARGS="--jobs 2000 --faults")
	@$(BIN)/python -m cluster $(ARGS)

test: $(VENV)/.extra-dev ## run all tests (ARGS="tests/config -k url" for some)
	$(BIN)/pytest $(if $(ARGS),$(ARGS),-n $(JOBS) --dist loadfile)

coverage: $(VENV)/.extra-dev $(VENV)/.group-coverage ## run all tests; fail when they reach too little of the code
	rm -f .coverage*
	$(BIN)/coverage run -m pytest -n $(JOBS) --dist loadfile
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

image: $(VENV)/.extra-dev ## build the container images with buildah, as root, and try them
	AVTOMATIKA_IMAGES=1 $(BIN)/pytest tests/deploy/test_image.py $(ARGS)

check: $(VENV)/.extra-dev $(VENV)/.group-check ## formatting, lint, types, layers, sizes, words, generated documents
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports
	$(BIN)/python scripts/check_structure.py
	$(BIN)/python scripts/check_words.py
	$(BIN)/python scripts/generate_docs.py --check
	$(BIN)/python scripts/render_diagrams.py --check

fmt: $(VENV)/.group-check ## format the code and fix what lint can fix
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

docs: $(VENV)/.extra-demo $(VENV)/.group-docs ## write the generated documents and build the site in build/site
	$(BIN)/python scripts/generate_docs.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	$(BIN)/python scripts/check_site.py

simulate: $(VENV)/.extra-dev ## run a worker in simulated worlds (ARGS="--seeds 10000", ARGS="--first 42 --seeds 1 --story")
	cd tests && "$(abspath $(BIN))/python" -m simulation $(ARGS)

endure: $(VENV)/.extra-dev ## kills and faults at every published orchestrator (ARGS="--minutes 3 --release 1.0b30")
	$(BIN)/python -m bench.endure $(ARGS)

bench: $(VENV)/.extra-demo ## run the benchmarks (ARGS="--quick", ARGS="slots-50 idle")
	$(BIN)/python -m bench $(ARGS)

fuzz: $(VENV)/.extra-demo $(VENV)/.group-fuzz ## fuzz what reads bytes from outside (ARGS="task uris --seconds 300")
	$(BIN)/python -m fuzz $(ARGS)

mutation: $(VENV)/.extra-dev $(VENV)/.group-mutation ## change the code, see whether tests notice (ARGS="protocol/replies --share 0.3")
	$(BIN)/python scripts/mutation.py $(ARGS)

# The same commit gives the same bytes: times in the archives are the commit's.
dist: $(VENV)/.group-dist ## build the wheel, the sdist and their list of parts (SBOM) into dist/
	rm -rf dist
	SOURCE_DATE_EPOCH="$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct)}" $(BIN)/python -m build --outdir dist
	$(BIN)/twine check --strict dist/*
	$(BIN)/python scripts/write_sbom.py dist
	@cd dist && sha256sum *

clean: ## remove the environments, caches and build results
	rm -rf .venv .venv-* .cache .hypothesis mutants .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .coverage* build dist demo-output
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# ---------------------------------------------------------------------------------------------- what verbs need
# The smallest extra is demo: docs, bench and fuzz need no more than the package itself.
# One stamp for each extra and each dependency group of pyproject.toml: a verb installs its own when it is first used,
# and again when pyproject.toml has changed.

PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check

$(VENV)/.extra-%: pyproject.toml $(BIN)/python
	$(PIP) --editable '.[$*]'
	@touch $@

# An interpreter's own pip may be older than groups.
$(VENV)/.group-%: pyproject.toml $(BIN)/python
	$(PIP) 'pip>=25.1'
	$(PIP) --group $*
	@touch $@

# The interpreter is checked first: pip's own message about requires-python does not say what to do.
$(BIN)/python:
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "This project needs Python 3.11 or newer; '$(PYTHON)' is missing or older." >&2; \
		echo "Name another one: make PYTHON=python3.12" >&2; exit 1; }
	@"$(PYTHON)" -m venv --clear $(VENV) || { \
		echo "The virtual environment could not be made (on Debian and Ubuntu: apt install python3-venv)." >&2; \
		rm -rf $(VENV); exit 1; }
