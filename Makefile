# Two commands: `make demo` and `make test`. Each sets up everything it needs, once.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH := 2.13.0+cpu
UV := 0.13.9
# Processes that share the tests, file by file: what a module makes once is made once. (By groups they would
# not: pytest-xdist 3.8 cannot tell pytest 9.2 which test is of which.)
TEST_PROCESSES ?= 2
PYTEST = $(BIN)/pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder
INSTALLED := $(VENV)/.installed
RELEASE_TOOLS := .venv-release
VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"$$/\1/p' src/diffractory/__init__.py)
# Workers are many and single-threaded: threads of a BLAS would only fight over the cores.
export OMP_NUM_THREADS ?= 1
export OPENBLAS_NUM_THREADS ?= 1
# Commands and workers start by the hundred: what Python has compiled is kept, here, whatever the shell says.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install demo test test-slurm test-shared coverage browser lint docs lock notebooks dist check-dist sbom audit clean

help:
	@echo "make demo   set up and run the whole road on embedded crystals (a few minutes)"
	@echo "make test   set up and run every check and test"
	@echo "make coverage   the tests once more, counting which lines they run"
	@echo "make lint   ruff, mypy, import-linter"
	@echo "make docs   build the documentation: docs/_build/html/index.html"
	@echo "make lock   resolve requirements.lock anew from pyproject.toml"
	@echo "make notebooks   execute the notebooks and store them with their pictures"
	@echo "make dist        build wheel and sdist, and test both"
	@echo "make check-dist  install the wheel alone, as a user would, and run the demo from it"
	@echo "make sbom        list the locked packages as CycloneDX JSON (needs the network once)"
	@echo "make audit       look for known vulnerabilities in the lock file (needs the network)"
	@echo "make clean  remove the environment, caches and the demo's output"

install: $(INSTALLED)

$(INSTALLED): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@# --no-deps: the lock file is complete. Left to resolve again, pip asks for the newest pydantic[email], which has no hash.
	@# uv takes a quarter of pip's time; pip knows mirrors and certificates that uv may not.
	{ $(BIN)/python -m pip install --quiet --disable-pip-version-check "uv==$(UV)" \
		&& $(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --no-deps --require-hashes \
			-r requirements.lock; } \
		|| $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	$(BIN)/python -m pip check --disable-pip-version-check
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@# LightGBM needs GNU's OpenMP, which wheels do not bring along.
	@ldconfig -p | grep -q 'libgomp\.so\.1' || { apt-get update -qq && apt-get install -y -qq libgomp1; } \
		|| echo "NOTE: libgomp is missing: boosted models cannot be trained (Debian: apt install libgomp1)"
	touch $(INSTALLED)

demo: $(INSTALLED)
	$(BIN)/diffractory demo --out demo

lint: $(INSTALLED)
	$(BIN)/ruff check src tests benchmarks docs notebooks
	$(BIN)/ruff format --check src tests benchmarks docs notebooks
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(INSTALLED)
	$(BIN)/python -m sphinx -q -b html -W --keep-going docs docs/_build/html

# The GPU engine is tested on PyTorch's CPU build, which is optional: 200 MB, and not on PyPI itself.
$(VENV)/.torch: $(INSTALLED)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "torch==$(TORCH)" && touch $@ \
		|| echo "NOTE: PyTorch $(TORCH) was not found; the GPU engine is NOT tested (see CONTRIBUTING)"

# Pages are tested in a real browser, where there is one or root can install it.
browser:
	@command -v chromium >/dev/null || { apt-get update -qq && apt-get install -y -qq chromium >/dev/null; } \
		|| echo "NOTE: chromium is missing; HTML pages are NOT tested in a browser (Debian: apt install chromium)"

# Beside the other checks, which leave cores idle.
kernels-%: $(INSTALLED)
	$(BIN)/python tests/warm_kernels.py $*

test: $(INSTALLED)
	$(MAKE) -j $(TEST_PROCESSES) --output-sync kernels-lattices kernels-simulate lint $(VENV)/.torch browser
	$(MAKE) -j 2 test-slurm test-shared

# What waits for SLURM's jobs leaves half of the machine to the rest, which gives way to it.
test-slurm: $(INSTALLED)
	$(BIN)/pytest tests/slurm

test-shared: $(INSTALLED)
	nice -n 10 $(PYTEST) --ignore=tests/slurm

# Apart from `make test`, which has to be quick: counting lines takes its time.
coverage: $(VENV)/.torch browser
	$(BIN)/pytest tests/slurm --cov --cov-report=
	$(PYTEST) --ignore=tests/slurm --cov --cov-append --cov-report=term:skip-covered --cov-fail-under=95

lock: $(INSTALLED)
	$(BIN)/python -m pip install --quiet "uv==$(UV)"
	$(BIN)/uv pip compile pyproject.toml --extra dev --generate-hashes --no-emit-index-url \
		--no-emit-find-links --python-version 3.11 --output-file requirements.lock

notebooks: $(INSTALLED)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python notebooks/execute.py

dist: $(INSTALLED)
	rm -rf dist
	$(BIN)/python -m build --no-isolation --outdir dist
	$(BIN)/pytest -q tests/release
	@ls -l dist

# As a user has it: an environment of its own, dependencies as pip finds them, no checkout in sight.
check-dist: dist
	rm -rf build/check-dist
	$(PYTHON) -m venv build/check-dist/venv
	build/check-dist/venv/bin/python -m pip install --quiet --disable-pip-version-check dist/*.whl
	cd build/check-dist && env -u PYTHONPATH venv/bin/diffractory --version
	cd build/check-dist && env -u PYTHONPATH venv/bin/diffractory doctor
	cd build/check-dist && env -u PYTHONPATH venv/bin/diffractory demo --out demo

# Tools of a release need libraries of their own, which must not enter the locked environment.
$(RELEASE_TOOLS):
	$(PYTHON) -m venv $@
	$@/bin/python -m pip install --quiet --disable-pip-version-check "cyclonedx-bom>=7,<8" "pip-audit>=2.9,<3"

sbom: $(RELEASE_TOOLS)
	mkdir -p dist
	$(RELEASE_TOOLS)/bin/cyclonedx-py requirements requirements.lock --pyproject pyproject.toml \
		--output-reproducible --of JSON -o dist/diffractory-$(VERSION).cdx.json

# --strict: a package that could not be asked about is an error, not "no known vulnerabilities".
audit: $(RELEASE_TOOLS)
	$(RELEASE_TOOLS)/bin/pip-audit --strict --disable-pip --require-hashes -r requirements.lock

clean:
	rm -rf $(VENV) $(RELEASE_TOOLS) build dist demo docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
