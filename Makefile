# Two commands do everything on a machine that has Python 3.11-3.13 and make:
#   make demo    sets up, runs the whole loop on bundled data, prints where its report is
#   make test    sets up, checks, runs all tests
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.ready
COMPILED := $(VENV)/.compiled
TEST_PROCESSES ?= 2
# Debian's names of what runs need (libraries that OpenCV loads) and what tests need besides;
# installed only where we may (root, apt-get) and where they are missing.
DEBIAN_RUN  := libgl1 libglib2.0-0
DEBIAN_TEST := chromium iproute2 prometheus
# A gRPC client in another language, for tests.
CONFORMANCE := tests/conformance
NODE_STAMP  := $(CONFORMANCE)/node_modules/.ready

define debian
	@missing=; for p in $(1); do dpkg -s $$p >/dev/null 2>&1 || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	  elif [ "$(2)" = test ]; then echo "Not installed:$$missing. Tests that need them will be skipped with a reason." >&2; fi; \
	fi
endef

.PHONY: setup debian-run debian-test debian-node node-test demo test style lint audit check bench contracts docs clean

setup: debian-run $(STAMP) $(COMPILED)

debian-run:
	$(call debian,$(DEBIAN_RUN),run)

debian-test:
	$(call debian,$(DEBIAN_TEST),test)
	@command -v npm >/dev/null || $(MAKE) --no-print-directory debian-node

# Not by the list above: Node may be here from elsewhere than Debian.
debian-node:
	$(call debian,nodejs npm,test)

node-test: debian-test
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory $(NODE_STAMP); fi

$(NODE_STAMP): $(CONFORMANCE)/package.json $(CONFORMANCE)/package-lock.json
	@npm ci --prefix $(CONFORMANCE) --ignore-scripts --no-audit --no-fund --silent
	@touch $@

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	  || { echo "OnModel needs Python 3.11 to 3.13; set PYTHON=python3.11" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip --upgrade >/dev/null
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt -e '.[dev,ultralytics]'
	@touch $@

# What is imported is compiled once (uv, unlike pip, leaves that out): where PYTHONDONTWRITEBYTECODE is set, every process
# would compile all of torch and diffusers again, which takes as long as importing them. Some packages bring
# templates that are no Python; they do not compile, and nothing needs them to.
$(COMPILED): $(STAMP)
	@$(BIN)/python -m compileall -q -j 0 $(VENV)/lib/python3.*/site-packages services >/dev/null 2>&1 || true
	@touch $@

demo: setup
	@$(BIN)/onmodel demo

style: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

lint: style
	@$(BIN)/pyright

# Not a part of `test`: what is published about a dependency tomorrow must not fail today's code.
audit: setup
	@$(BIN)/python scripts/audit.py $(BIN)/uvx

check: lint audit

# Two at a time, a file each: most tests that start a cluster wait half their time. One thread each, since two
# processes with two threads each are slower on two cores; and where a trial takes all cores by itself, its threads
# sleep while they wait for each other: with more threads than cores they would spin in each other's way (six steps
# of training on two busy cores: 9 s so, 84 to 104 s else). Types are checked beside the first tests: by itself that
# takes minutes of one core.
test: setup debian-test node-test style
	@$(BIN)/pyright & types=$$!; \
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE \
	  $(BIN)/pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder; tests=$$?; \
	wait $$types || { echo "make test: types are wrong; pyright's lines stand above, or run make lint" >&2; exit 1; }; \
	exit $$tests

# Every benchmark prints `name | value | target | met`; ratios against a peer or a limit, taken in one run.
bench: setup
	@set -e; for f in tests/benchmarks/bench_*.py; do $(BIN)/python $$f; done

contracts: setup
	@$(BIN)/python scripts/generate_contracts.py

# Reading it needs no server but for the search: `python -m http.server --directory site`.
docs: setup
	@$(BIN)/python scripts/build_docs.py

clean:
	rm -rf $(VENV) build dist site
