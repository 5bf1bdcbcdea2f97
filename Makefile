# make run    the main job, end to end on this machine
# make test   the test suite
# make lint   ruff and strict types
# make bench  every figure beside its target
# make soak   a steady load while everything is restarted: ARGS="--minutes 60"
# make docs   write docs/reference.md from the code
# make site   the documentation site, in site/
# make sbom   what the lock contains: CycloneDX and a table of licences, in dist/
# make lock   resolve requirements.lock anew from pyproject.toml

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest
# One more than there are cores, as tests wait for servers to start; at most 4.
WORKERS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN); echo $$((n < 3 ? n + 1 : 4)))
UV := VIRTUAL_ENV=$(CURDIR)/$(VENV) UV_NO_PROGRESS=1 $(BIN)/uv
ARGS ?=
# A directory of the site for each version: make site SITE_VERSION=0.1
SITE_VERSION ?=

.DEFAULT_GOAL := help
.PHONY: help install run test lint bench soak docs site sbom lock clean

help:
	@sed -n '/^# /!q;s/^# //p' $(firstword $(MAKEFILE_LIST))

install: $(VENV)/.compiled
	@$(BIN)/python -m compileall -q malearn flows serving expectations >/dev/null || true

# pip brings uv, uv brings the rest: the same versions, checked against the same hashes, in seconds.
$(VENV)/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else "malearn needs Python 3.11, 3.12 or 3.13, this is %d.%d: try make PYTHON=python3.12" % v)'
	@echo "Installing into $(VENV) …" >&2
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(sed -n 's/^\(uv==[^ ]*\).*/\1/p' requirements.lock)"
	@$(UV) pip sync --quiet --require-hashes requirements.lock
	@$(UV) pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

# Every command and server imports thousands of modules: from bytecode in half of the time. Python
# writes it at the first import, but not where PYTHONDONTWRITEBYTECODE is set, as in many images.
$(VENV)/.compiled: $(VENV)/.installed
	@$(BIN)/python -m compileall -q -j 0 \
	  -x '/(tests|pip|plotly|debugpy|mypyc?|ray/(data|rllib|serve|train|tune))/' $(VENV)/lib >/dev/null 2>&1 || true
	@touch $@

run: install
	@$(BIN)/malearn run $(ARGS)

# Whole files go to one worker: what a file's tests share (servers, models) is made once.
# What failed runs once more by itself when all others are done. What passes then depends on its
# neighbours or on how busy the machine is: a fault of that test, named at the end, to be mended.
test: install
	@$(PYTEST) --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS) || \
	  { [ $$? -eq 1 ] || exit 1; \
	    echo "What failed, once more and by itself:"; \
	    $(PYTEST) --last-failed --last-failed-no-failures none $(ARGS) && \
	    echo "FLAKY: what is listed as FAILED above passed the second time. Please mend it."; }

lint: install
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench: install
	@$(BIN)/python -m benchmarks $(ARGS)

soak: install
	@$(BIN)/python -m benchmarks.soak $(ARGS)

docs: install
	@$(BIN)/python docs/reference.py

site: install
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --clean --site-dir site/$(SITE_VERSION)

sbom: install
	@$(BIN)/python docs/licences.py dist

lock: install
	@$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --all-extras --no-header \
	  --upgrade pyproject.toml --output-file requirements.lock

clean:
	rm -rf $(VENV) .malearn data site dist .pytest_cache .mypy_cache .ruff_cache
	find mlruns -mindepth 1 ! -name .gitkeep -delete
