# Every target sets up what it needs: a fresh machine has only Python, make and node.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PACKAGE := $(VENV)/.package
READY := $(VENV)/.ready
COMPILED := $(VENV)/.compiled
GUIDES := $(VENV)/.guides
# Thousands of processes start in the tests. Where this is set, as in many containers, each compiles all its modules.
unexport PYTHONDONTWRITEBYTECODE
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check
# More than processors: the tests wait for other processes, and for time to pass, for more than half of their time.
WORKERS := $(shell $(PYTHON) -c "import os; print(3 * (os.cpu_count() or 1))")
ELSEWHERE := -m "not long and not guides" --ignore tests/proxies --ignore tests/ray --ignore tests/dask --ignore tests/website --ignore tests/recipes \
	--ignore tests/test_notebooks.py --ignore tests/test_web_frameworks.py
PROGRAMS := build/programs
RECIPES := build/recipes
# The newest that Node 20 runs.
INSPECTOR := 0.15.0

.PHONY: help demo test lint types types-linux types-pyright types-programs types-others unit coverage mutants docs test-docs test-newer \
	test-lowest test-long test-browser test-proxies test-inspector test-frameworks test-ray test-dask test-recipes fuzz soak bench format clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

# The package alone, so that the demo need not wait for the tools.
$(PACKAGE): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP_INSTALL) --editable '.[simulator]'
	touch $@

$(READY): $(PACKAGE)
	$(BIN)/python $(PIP_INSTALL) --upgrade 'pip>=25.1'
	$(BIN)/python $(PIP_INSTALL) --no-compile --editable '.[simulator,cli,mcp,otel]' --group dev
	touch $@

# Beside the checks of style and types. What does not compile is no module that is imported here.
$(COMPILED): $(READY)
	$(BIN)/python -W ignore -m compileall -qq $(VENV)/lib || true
	touch $@

# What the programs of the guides use. Most of it is large, and nothing else needs it.
$(GUIDES): $(READY)
	$(BIN)/python $(PIP_INSTALL) --group guides
	touch $@

demo: $(PACKAGE)  ## run real code against the embedded simulator
	$(BIN)/python examples/quickstart.py

test: $(READY)  ## lint, type-check and test everything, and with UNIT=coverage measure which branches the tests reach
	$(MAKE) --jobs 2 --output-sync=target lint types $(COMPILED)
	$(MAKE) $(or $(UNIT),unit)

lint: $(READY)  ## check the style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: types-linux types-pyright  ## check the types: the two that follow

types-linux: $(READY)  ## check them for Linux
	$(BIN)/mypy

types-pyright: $(READY)  ## check them with pyright
	$(BIN)/pyright --warnings

types-programs: $(GUIDES)  ## check those of the programs in the docs
	$(BIN)/python -m tests.support.programs $(PROGRAMS)
	$(BIN)/mypy $(PROGRAMS)
	$(BIN)/pyright --warnings $(PROGRAMS)

types-others: $(READY)  ## check them for macOS and Windows
	$(BIN)/mypy --platform darwin --cache-dir .mypy_cache/darwin
	$(BIN)/mypy --platform win32 --cache-dir .mypy_cache/win32 enclave enclave_pytest tests/typing

unit: $(COMPILED)  ## run the tests
	$(BIN)/python -m pytest --numprocesses $(WORKERS) $(ELSEWHERE)

coverage: $(COMPILED)  ## measure which branches the tests reach, and hold the floor
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest --numprocesses $(WORKERS) $(ELSEWHERE)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

mutants: $(READY)  ## change MODULES at random, COUNT (30) times from SEED (0), and list what no test in TESTS (tests) notices
	$(BIN)/python -m tests.mutants $(or $(MODULES),enclave) --count $(or $(COUNT),30) --seed $(or $(SEED),0) \
		--tests $(or $(TESTS),tests)

docs: $(READY)  ## build the guides and the reference into site/, where a warning is an error
	$(BIN)/python $(PIP_INSTALL) --group docs
	NO_MKDOCS_2_WARNING=1 PATH="$(BIN):$$PATH" $(BIN)/mkdocs build --strict

test-docs: docs types-programs $(COMPILED)  ## run the programs of the docs, and check the built site, also in Chromium, which it installs where it may
	.ci/apt-get chromium
	$(BIN)/python -m pytest --numprocesses $(WORKERS) $(ELSEWHERE) -m guides
	$(BIN)/python -m pytest tests/website

test-newer:  ## run the tests on every newer Python that this machine has
	.ci/test-newer --numprocesses $(WORKERS) $(ELSEWHERE)

test-lowest:  ## run the tests on the oldest releases that we support
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python $(PIP_INSTALL) --upgrade 'pip>=25.1'
	.venv-lowest/bin/python $(PIP_INSTALL) --editable '.[simulator,cli]' --group test --constraint tests/lowest-pins.txt
	.venv-lowest/bin/python -m pytest --numprocesses $(WORKERS) --deselect tests/test_benchmarks.py $(ELSEWHERE)

test-long: $(READY)  ## run the tests that take half a minute each
	$(BIN)/python -m pytest --numprocesses auto $(ELSEWHERE) -m long

test-browser: $(READY)  ## run the tests that need Chromium, which it installs where it may
	.ci/apt-get chromium
	$(BIN)/python -m pytest $(ELSEWHERE) -m browser

test-proxies: $(READY)  ## read streams through nginx and HAProxy, which it installs where it may, about 2 minutes
	.ci/apt-get nginx haproxy
	$(BIN)/python -m pytest --numprocesses $(WORKERS) tests/proxies

test-inspector: $(READY)  ## call the tools of enclave-mcp with the MCP Inspector, which it gets from npm
	if command -v npm >/dev/null; then npm install --silent --no-audit --no-fund --no-save --prefix build/inspector \
		@modelcontextprotocol/inspector@$(INSPECTOR); fi
	$(BIN)/python -m pytest tests/mcp/test_inspector.py

test-frameworks: $(GUIDES)  ## run notebooks in a kernel, and programs of Flask, Django, Celery and gunicorn
	$(BIN)/python -m pytest tests/test_notebooks.py tests/test_web_frameworks.py

test-ray:  ## kill workers, drivers and nodes of a real Ray, which it installs (290 MB), about 10 minutes
	$(PYTHON) -m venv .venv-ray
	.venv-ray/bin/python $(PIP_INSTALL) --upgrade 'pip>=25.1'
	.venv-ray/bin/python $(PIP_INSTALL) --editable '.[simulator,ray]' --group test
	.venv-ray/bin/python -m pytest tests/ray

test-dask:  ## kill workers and drivers of a real Dask, which it installs (60 MB), about 2 minutes
	$(PYTHON) -m venv .venv-dask
	.venv-dask/bin/python $(PIP_INSTALL) --upgrade 'pip>=25.1'
	.venv-dask/bin/python $(PIP_INSTALL) --editable '.[simulator]' --group dask
	.venv-dask/bin/python -m pytest tests/dask

test-recipes:  ## run the recipes of the docs with their frameworks, which it installs (210 MB), about 5 minutes
	$(PYTHON) -m venv .venv-recipes
	.venv-recipes/bin/python $(PIP_INSTALL) --upgrade 'pip>=25.1'
	.venv-recipes/bin/python $(PIP_INSTALL) --editable '.[simulator]' --group recipes
	.venv-recipes/bin/python -m tests.support.programs $(RECIPES) docs/recipes/
	.venv-recipes/bin/mypy --cache-dir .mypy_cache/recipes $(RECIPES)
	.venv-recipes/bin/pyright --warnings --project tests/recipes
	.venv-recipes/bin/python -m pytest --numprocesses $(WORKERS) tests/recipes

fuzz: $(READY)  ## feed mutated responses to the decoders, FUZZ_SECONDS (60) long
	$(BIN)/python $(PIP_INSTALL) --group fuzz
	mkdir -p .fuzz
	$(BIN)/python fuzz/fuzz_responses.py -max_total_time=$${FUZZ_SECONDS:-60} -artifact_prefix=.fuzz/ \
		.fuzz fuzz/seeds tests/hostile/corpus

soak: $(READY)  ## hundreds of sessions under random faults, and hundreds of runs that are cut, two minutes
	$(BIN)/python -m benchmarks soak
	$(BIN)/python -m benchmarks cuts

bench: $(READY)  ## measure ours against other clients, less than half an hour
	$(BIN)/python $(PIP_INSTALL) --group bench
	if command -v npm >/dev/null; then npm ci --silent --no-audit --no-fund --prefix benchmarks/node; fi
	$(BIN)/python -m benchmarks --write-readme

format: $(READY)  ## apply the formatter and the safe fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## remove what the other targets made
	rm -rf $(VENV) .venv-* .coverage .coverage.* .fuzz site .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
