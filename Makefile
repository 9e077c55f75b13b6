# Two commands: `make demo` and `make test`. Each sets up everything it needs, once.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH := 2.13.0+cpu
INSTALLED := $(VENV)/.installed
# Workers are many and single-threaded: threads of a BLAS would only fight over the cores.
export OMP_NUM_THREADS ?= 1
export OPENBLAS_NUM_THREADS ?= 1

.PHONY: help install demo test lint docs lock clean

help:
	@echo "make demo   set up and run the whole road on embedded crystals (about two minutes)"
	@echo "make test   set up and run every check and test"
	@echo "make lint   ruff, mypy, import-linter"
	@echo "make docs   build the documentation: docs/_build/html/index.html"
	@echo "make lock   resolve requirements.lock anew from pyproject.toml"
	@echo "make clean  remove the environment, caches and the demo's output"

install: $(INSTALLED)

$(INSTALLED): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@# LightGBM needs GNU's OpenMP, which wheels do not bring along.
	@ldconfig -p | grep -q 'libgomp\.so\.1' || { apt-get update -qq && apt-get install -y -qq libgomp1; } \
		|| echo "NOTE: libgomp is missing: boosted models cannot be trained (Debian: apt install libgomp1)"
	touch $(INSTALLED)

demo: $(INSTALLED)
	$(BIN)/diffractory demo --out demo

lint: $(INSTALLED)
	$(BIN)/ruff check src tests benchmarks docs
	$(BIN)/ruff format --check src tests benchmarks docs
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(INSTALLED)
	$(BIN)/python -m sphinx -q -b html -W --keep-going docs docs/_build/html

# The GPU engine is tested on PyTorch's CPU build, which is optional: 200 MB, and not on PyPI itself.
$(VENV)/.torch: $(INSTALLED)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "torch==$(TORCH)" && touch $@ \
		|| echo "NOTE: PyTorch $(TORCH) was not found; the GPU engine is NOT tested (see CONTRIBUTING)"

test: lint $(VENV)/.torch
	$(BIN)/pytest --cov --cov-report=term:skip-covered --cov-fail-under=90

lock: $(INSTALLED)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --extra dev --generate-hashes --no-emit-index-url \
		--no-emit-find-links --python-version 3.11 --output-file requirements.lock

clean:
	rm -rf $(VENV) demo docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
