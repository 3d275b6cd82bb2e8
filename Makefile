# Every target sets up what it needs: a fresh machine has only Python, make and node.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help demo test lint types unit docs test-lowest test-proxies fuzz soak bench format clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(READY): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[simulator,cli,mcp,otel]' --group dev
	touch $@

demo: $(READY)  ## run real code against the embedded simulator
	$(BIN)/python examples/quickstart.py

test: lint types unit  ## lint, type-check and test everything

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy
	$(BIN)/pyright --warnings

unit: $(READY)
	$(BIN)/python -m pytest --numprocesses auto --ignore tests/proxies

bench: $(READY)  ## measure ours against other clients, about 20 minutes
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group bench
	if command -v npm >/dev/null; then npm ci --silent --no-audit --no-fund --prefix benchmarks/node; fi
	$(BIN)/python -m benchmarks --write-readme

docs: $(READY)  ## build the guides and the reference into site/
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group docs
	NO_MKDOCS_2_WARNING=1 PATH="$(BIN):$$PATH" $(BIN)/mkdocs build

fuzz: $(READY)  ## feed mutated responses to the decoders, FUZZ_SECONDS (60) long
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group fuzz
	mkdir -p .fuzz
	$(BIN)/python fuzz/fuzz_responses.py -max_total_time=$${FUZZ_SECONDS:-60} -artifact_prefix=.fuzz/ \
		.fuzz fuzz/seeds tests/hostile/corpus

soak: $(READY)  ## hundreds of sessions under random faults, a minute
	$(BIN)/python -m benchmarks soak

test-lowest:  ## run the tests on the oldest releases that we support
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[simulator,cli]' --group test \
		--constraint tests/lowest-pins.txt
	.venv-lowest/bin/python -m pytest --numprocesses auto --deselect tests/test_benchmarks.py --ignore tests/proxies

test-proxies: $(READY)  ## read streams through nginx and HAProxy, which it installs where it may, about 2 minutes
	if test "$$(id -u)" = 0 && command -v apt-get >/dev/null && ! { command -v nginx && command -v haproxy; } >/dev/null; then \
		apt-get update --quiet=2 && apt-get install --quiet=2 --no-install-recommends nginx haproxy; fi
	$(BIN)/python -m pytest --numprocesses auto tests/proxies

format: $(READY)  ## apply the formatter and the safe fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## remove what the other targets made
	rm -rf $(VENV) .venv-lowest .fuzz site .mypy_cache .ruff_cache .pytest_cache .hypothesis dist
