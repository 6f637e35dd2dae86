# Two commands do all the set-up: `make serve` runs the service, `make test` passes the tests.
# `make help` lists the rest.

PYTHON ?= python3
VENV := .venv
VENV_BENCH := .venv-bench
BIN := $(VENV)/bin
# Where `make serve` keeps its database; without it PASSBOOK_DATABASE says, or data/passbook.db.
DATABASE ?=
# How many tests run at the same time.
WORKERS ?= 2
# What `make coverage` measures: files of tests, or the whole suite.
TESTS ?=

.DEFAULT_GOAL := help
.PHONY: help serve test check matrix coverage lint container faults faults-long mutants fuzz stateful bench bench-full bench-docs openapi docs audit licences sbom lock lock-bench clean

help: ## Show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

# A Debian without python3-venv gets it here, where this can be done without asking.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("Passbook needs Python 3.11 or newer; say make PYTHON=...") if sys.version_info < (3, 11) else None'
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -q && apt-get install -y -q python3-venv && $(PYTHON) -m venv $(VENV); \
	  else echo "Install Python's venv module first (on Debian: apt-get install python3-venv)."; exit 1; fi; }

$(VENV)/.installed: requirements.lock pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	@echo "$(CURDIR)" > "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/passbook.pth"
	@printf '#!/bin/sh\nexec "%s" -m service.cli "$$@"\n' "$(CURDIR)/$(BIN)/python" > $(BIN)/passbook && chmod +x $(BIN)/passbook
	@touch $@

$(VENV)/.installed-dev: requirements-dev.lock $(VENV)/.installed
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

serve: $(VENV)/.installed ## Run the service: PASSBOOK_… say how, DATABASE=file where; else 127.0.0.1:8000 and data/passbook.db
	$(BIN)/passbook serve $(if $(DATABASE),--database "$(DATABASE)")

# The documents' commands are run by the tests as they stand, with curl; processes are killed at system
# calls by strace, and their clock is set by libfaketime; the image is built by buildah, on a base by mmdebstrap; a file
# system of their own, which ext4's tools make, is frozen.
TOOLS := curl strace faketime buildah mmdebstrap mount
$(VENV)/.tools: Makefile | $(BIN)/python
	@for tool in $(TOOLS); do command -v $$tool >/dev/null || missing="$$missing $$tool"; done; \
	  command -v mkfs.ext4 >/dev/null || missing="$$missing e2fsprogs"; \
	  [ -z "$$missing" ] || { [ "$$(id -u)" = 0 ] && apt-get update -q \
	    && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $$missing; } \
	  || { echo "Install$$missing first (on Debian: apt-get install$$missing)."; exit 1; }
	@[ "$$(id -u)" = 0 ] || echo "Not root: tests/test_container.py will fail, for only root can make the image's chroot."
	@touch $@

# The alerts of docs/ops are checked by Prometheus's own tool: of its package the one file, so that no server is installed.
$(BIN)/promtool: | $(BIN)/python
	@if command -v promtool >/dev/null; then ln -sf "$$(command -v promtool)" $@; else \
	  cd $(BIN) && { apt-get download -q prometheus || { apt-get update -q && apt-get download -q prometheus; }; } \
	  && dpkg-deb --fsys-tarfile prometheus_*.deb | tar -xO ./usr/bin/promtool > promtool.new \
	  && chmod +x promtool.new && mv promtool.new promtool && rm prometheus_*.deb; fi \
	  || { echo "Install promtool first (on Debian it is in the package prometheus)."; exit 1; }

# The page at /docs is shown to a real browser: the smallest that Debian has, about 100 MB to download.
$(VENV)/.browser: | $(BIN)/python
	@for name in chromium-headless-shell chromium chromium-shell google-chrome; do command -v $$name >/dev/null && found=1; done; \
	  [ -n "$$found" ] || { [ "$$(id -u)" = 0 ] && apt-get update -q && \
	    apt-get install -y -q --no-install-recommends chromium-headless-shell; } \
	  || { echo "Install a Chromium first (on Debian: apt-get install chromium-headless-shell)."; exit 1; }
	@touch $@

test: $(VENV)/.installed-dev $(VENV)/.tools $(VENV)/.browser $(BIN)/promtool lint ## Everything: lint, types, contract, fuzzing, real wrangler, tests
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

# What a save asks: no server, no command, no browser, no wrangler (tests/outside.py tells those by their text).
FAST := -m "not outside and not long" -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder --durations 5
check: $(VENV)/.installed-dev lint ## For every save: lint, types, and the tests that start no process and take no second
	$(BIN)/python -m pytest $(FAST)

# The fast part on each Python that pyproject.toml promises, and once on the SQLite of the standard library, which serves where
# pysqlite3 has no wheel. A Python that is not found fails it. The whole suite is run by `make test`, on one.
MATRIX := 3.11 3.12 3.13 sqlite
matrix: $(MATRIX:%=$(VENV)-%/.ran) ## The fast part on every promised Python, and on the standard library's SQLite

$(VENV)-%/.ran: requirements.lock requirements-dev.lock FORCE
	$(if $(filter sqlite,$*),$(PYTHON),python$*) -m venv $(VENV)-$*
	$(VENV)-$*/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock -r requirements-dev.lock
	$(if $(filter sqlite,$*),$(VENV)-$*/bin/python -m pip uninstall -q -y pysqlite3)
	$(VENV)-$*/bin/python -m pytest $(FAST) -p no:cacheprovider
	@touch $@
.PHONY: FORCE
FORCE:

# Commands, the service and its writing process are measured too (pyproject.toml). A test that counts or times what a process
# does may fail here: that is told, and what was run is told all the same.
coverage: $(VENV)/.installed-dev $(VENV)/.tools $(VENV)/.browser $(BIN)/promtool ## What of service/ the tests never run, by lines and branches; TESTS=… runs only those
	rm -rf build/coverage && mkdir -p build/coverage
	-$(BIN)/python -m coverage run -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(TESTS)
	$(BIN)/python -m coverage combine -q
	$(BIN)/python -m coverage html -q
	$(BIN)/python -m coverage report | tee build/coverage/never-run.txt
	@echo "build/coverage/never-run.txt lists it, build/coverage/html/index.html shows it."

lint: $(VENV)/.installed-dev ## ruff and mypy --strict
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

container: $(VENV)/.installed-dev $(VENV)/.tools ## Build the image, run it, and print its size and the time that it takes to start
	$(BIN)/python -m pytest -s tests/test_container.py

faults: $(VENV)/.installed-dev $(VENV)/.tools ## Every fault of the plan in ten minutes; writes tests/faults/REPORT.md
	$(BIN)/python -m tests.faults.suite --minutes 10

faults-long: $(VENV)/.installed-dev $(VENV)/.tools ## The same with every kill point of a migration and many more rounds, in two hours
	$(BIN)/python -m tests.faults.suite --minutes 120 --report build/faults-long.md

mutants: $(VENV)/.installed-dev $(VENV)/.tools $(VENV)/.browser $(BIN)/promtool ## Put wrong code into copies, fault by fault; writes tests/mutants/REPORT.md
	$(BIN)/python -m tests.mutants.suite

fuzz: $(VENV)/.installed-dev ## A long schemathesis run (the tests have a short one)
	PASSBOOK_FUZZ_EXAMPLES=1000 $(BIN)/python -m pytest tests/contract/test_schemathesis.py -s

stateful: $(VENV)/.installed-dev ## A long random run of the ledger against its model (the tests have a short one)
	PASSBOOK_STATEFUL_EXAMPLES=1000 PASSBOOK_STATEFUL_STEPS=50 $(BIN)/python -m pytest tests/stateful -s -k test_the_service

# Debian's package would make a cluster and start it when it is installed; the benchmarks start their own for a few minutes.
$(VENV_BENCH)/.tools: | $(VENV_BENCH)/.installed
	@command -v wrk >/dev/null && ls /usr/lib/postgresql/*/bin/pgbench >/dev/null 2>&1 \
	  || { [ "$$(id -u)" = 0 ] && apt-get update -q && apt-get install -y -q wrk postgresql-common \
	       && sed -i 's/^#\? *create_main_cluster *=.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf \
	       && apt-get install -y -q postgresql-15; } \
	  || { echo "Install wrk and PostgreSQL first (on Debian: apt-get install wrk postgresql-15)."; exit 1; }
	@touch $@

# What Passbook is measured beside: in an environment of its own, never in the service's.
$(VENV_BENCH)/.installed: requirements.lock tests/benchmarks/requirements.lock | $(BIN)/python
	$(BIN)/python -m venv $(VENV_BENCH)
	$(VENV_BENCH)/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	$(VENV_BENCH)/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r tests/benchmarks/requirements.lock
	@touch $@

bench: $(VENV)/.installed-dev $(VENV_BENCH)/.tools ## One table of ratios in some five minutes (docs/performance.md)
	$(BIN)/python -m tests.benchmarks.bench

bench-full: $(VENV)/.installed-dev $(VENV_BENCH)/.tools ## The same with ten million transactions: 45 minutes, 30 GB of disk
	$(BIN)/python -m tests.benchmarks.bench --full --json build/bench-full.json

bench-docs: $(VENV)/.installed-dev $(VENV_BENCH)/.installed ## The last runs of both into docs/performance.md, with plots
	$(BIN)/python -m tests.benchmarks.report $(wildcard build/bench.json) $(wildcard build/bench-full.json)
	$(VENV_BENCH)/bin/python -m tests.benchmarks.plots

openapi: $(VENV)/.installed ## Write openapi/openapi.json anew, for review
	$(BIN)/passbook openapi > openapi/openapi.json

docs: $(VENV)/.installed-dev $(VENV)/.tools ## Run the documents and write into them what their commands print, for review
	$(BIN)/passbook errors > docs/errors.md
	$(BIN)/python -m tests.documents

audit: $(VENV)/.installed-dev ## Ask for advisories about every locked package; what could not be asked is no pass
	$(BIN)/python -m tests.supply.audit

licences: $(VENV)/.installed-dev ## Write docs/ops/licences.md anew
	$(BIN)/python -m tests.supply.licences

sbom: $(VENV)/.installed-dev ## Write build/passbook.cdx.json, the bill of materials
	$(BIN)/python -m tests.supply.sbom

lock: $(VENV)/.installed-dev ## Resolve and hash-lock the requirements anew; then: make licences
	$(BIN)/pip-compile -q --upgrade --generate-hashes --allow-unsafe --no-emit-index-url --no-emit-trusted-host --no-emit-find-links \
	  --no-header --strip-extras -o requirements.lock pyproject.toml
	$(BIN)/pip-compile -q --upgrade --generate-hashes --allow-unsafe --no-emit-index-url --no-emit-trusted-host --no-emit-find-links \
	  --no-header --strip-extras --extra dev -c requirements.lock -o requirements-dev.lock pyproject.toml
	$(BIN)/pip-compile -q --upgrade --generate-hashes --allow-unsafe --no-emit-index-url --no-emit-trusted-host --no-emit-find-links \
	  --no-header --strip-extras --build-deps-for wheel --only-build-deps -c requirements-dev.lock -o requirements-build.lock pyproject.toml

lock-bench: $(VENV)/.installed-dev ## The same for what the benchmarks measure beside Passbook
	$(BIN)/pip-compile -q --upgrade --generate-hashes --allow-unsafe --no-emit-index-url --no-emit-trusted-host --no-emit-find-links \
	  --no-header --strip-extras -c requirements.lock -c requirements-dev.lock -o tests/benchmarks/requirements.lock tests/benchmarks/requirements.in

clean: ## Remove what make made, except data/
	rm -rf $(VENV) $(MATRIX:%=$(VENV)-%) $(VENV_BENCH) .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
