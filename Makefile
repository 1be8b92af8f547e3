# The commands of pylon-oidc. `make` without a target prints this list.
.DEFAULT_GOAL := help
.PHONY: help run test lint bench apps lock

PIP_TOOLS := pip-tools==7.6.2
# ARGS goes to pytest or to the benchmark: make test ARGS='-k issuer -x'
ARGS ?=
# Tests run on every usable core plus two, because many of them wait for a server.
JOBS ?= $(shell expr 2 + "$$(nproc 2>/dev/null || echo 2)")
# Always keep bytecode: the tests start hundreds of interpreters.
test: export PYTHONDONTWRITEBYTECODE =

help: ## Print this list
	@sed -n 's/^\([a-z]*\):.*## /make \1	/p' Makefile | expand -t 13

run: ## Start it in dev mode on http://localhost:4321, and print four lines to paste
	@bin/venv run
	@exec deploy/dev-run

test: ## Install what the tests need, then check the code and run them all
	@tests/support/packages
	@bin/venv test & python=$$!; tests/js/install && bench/peers/install; npm=$$?; wait $$python && exit $$npm
	@$(MAKE) --no-print-directory lint & lint=$$!; .venv/bin/python -m apps --install; apps=$$?; wait $$lint && exit $$apps
	@PATH="$$PATH:/usr/sbin" .venv/bin/python -m pytest -n $(JOBS) --dist worksteal $(ARGS)

lint: ## Check style, types and the direction of imports
	@bin/venv test
	@.venv/bin/ruff check --quiet .
	@.venv/bin/ruff format --check --quiet .
	@.venv/bin/mypy --no-error-summary
	@.venv/bin/lint-imports > .venv/lint-imports.txt || { cat .venv/lint-imports.txt; exit 1; }

bench: ## Measure it next to its peers, and write bench/results/
	@bench/packages
	@bin/venv test
	@PATH="$$PATH:/usr/sbin" .venv/bin/python -m bench $(ARGS)

apps: ## Sign in to it from well-known applications, and print the results
	@tests/support/packages
	@bin/venv test
	@tests/js/install
	@PATH="$$PATH:/usr/sbin" .venv/bin/python -m apps $(ARGS)

# Versions stay the same unless you upgrade them: make lock UPGRADE=--upgrade
COMPILE = CUSTOM_COMPILE_COMMAND="make lock" .venv/bin/python -m piptools compile --quiet --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host --strip-extras --allow-unsafe --no-annotate \
	$(UPGRADE)

lock: ## Write the lock files again, from pyproject.toml and tests/js/package.json
	@bin/venv test
	@.venv/bin/python -m pip --disable-pip-version-check --quiet install $(PIP_TOOLS)
	$(COMPILE) --output-file=requirements.txt pyproject.toml
	$(COMPILE) --output-file=requirements/test.txt --extra=test --constraint=requirements.txt pyproject.toml
	$(COMPILE) --output-file=requirements/granian.txt --constraint=requirements/test.txt requirements/granian.in
	$(COMPILE) --output-file=requirements/build.txt --constraint=requirements/test.txt requirements/build.in
	@tests/js/lock
	@apps/js/lock
	$(foreach name,$(basename $(notdir $(wildcard apps/python/*.in))),$(COMPILE) --output-file=apps/python/$(name).txt apps/python/$(name).in;)
	@bench/peers/lock
	$(foreach name,$(basename $(notdir $(wildcard bench/peers/python/*.in))),$(COMPILE) --output-file=bench/peers/python/$(name).txt bench/peers/python/$(name).in;)
