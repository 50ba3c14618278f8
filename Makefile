# Everything runs in .venv, which these commands make themselves: a fresh clone needs Python >= 3.10 with pip, nothing else.
PYTHON ?= python3
BIN := .venv/bin
RUN := $(BIN)/python -m
# Nothing is compiled before it is imported: most of the 19,000 files of these libraries never are. torchao alone is, out
# of sight: Python warns of escapes in its docstrings when it compiles them, and where warnings are errors that is one.
INSTALL := install --quiet --disable-pip-version-check --no-compile -c constraints.txt
COMPILE := -W ignore -m compileall -q
.DEFAULT_GOAL := help

.PHONY: help demo study test check lint types imports docs plugins benchmarks clean

help:            ## show this list
	@grep -hE '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

.venv/demo.stamp: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip $(INSTALL) -e '.[demo]'
	$(BIN)/python $(COMPILE) .venv/lib/python*/site-packages/torchao
	@touch $@

.venv/dev.stamp: .venv/demo.stamp
	$(BIN)/pip $(INSTALL) -e '.[dev]'
	@touch $@

demo: .venv/demo.stamp          ## train a small ViT on real images, run recipes on it, compare: no download, no GPU
	$(BIN)/pah-opt demo --out out/demo

study: .venv/demo.stamp         ## the whole study at its smallest scale, in out/study: minutes on two cores
	$(BIN)/pah-opt study --scale tiny --out out/study

test: .venv/dev.stamp           ## run the tests
	OMP_NUM_THREADS=1 $(RUN) pytest -n 2 --dist worksteal  # one thread a worker: more would wait for one another

lint: .venv/dev.stamp           ## formatting and lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/dev.stamp          ## mypy --strict
	$(BIN)/mypy
	$(BIN)/mypy plugins/*/src/*

imports: .venv/dev.stamp        ## the directions of imports
	$(BIN)/lint-imports

docs: .venv/dev.stamp           ## the documentation site, in out/site; a warning fails it
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --site-dir out/site

# An environment of its own, with the library and its plugins from wheels: nothing of the checkout is on its path.
build/plugins/venv.stamp: pyproject.toml constraints.txt $(shell find src plugins -type f -not -name '*.pyc')
	rm -rf build/plugins
	$(PYTHON) -m venv build/plugins/venv
	build/plugins/venv/bin/pip wheel --quiet --disable-pip-version-check --no-deps -w build/plugins/wheels . ./plugins/*/
	build/plugins/venv/bin/pip $(INSTALL) build/plugins/wheels/*.whl accelerate hypothesis pytest pytest-xdist
	build/plugins/venv/bin/python $(COMPILE) build/plugins/venv/lib/python*/site-packages/torchao
	@touch $@

plugins: build/plugins/venv.stamp  ## build the wheels of library and plugins, install them in a clean environment, run the plugins' tests
	OMP_NUM_THREADS=1 build/plugins/venv/bin/python -m pytest -n 2 --dist worksteal plugins

check: lint types imports docs test plugins  ## most of what CI runs; demo and study are the rest

clean:           ## remove what these commands made
	rm -rf .venv out build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
