.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
# A module's tests stay together: what they share is set up once.
PYTEST := $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes

help: ## List what make can do
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: .venv/run .env ## Set everything up and serve on http://localhost:8000
	@exec $(BIN)/flask --app wsgi serve

example: .venv/run .env ## The same, and examples/nextjs in front of it on http://localhost:3000 (wants Node.js and npm)
	@exec $(BIN)/python examples/run.py

test: .venv/installed ## Run all tests (make test ARGS="-k etag" for some)
ifdef ARGS
	@$(PYTEST) $(ARGS)
else
	@# 5: there are none, as on a database of your own.
	@code=0; $(PYTEST) -m "not timed" || code=1; $(PYTEST) -m timed || [ $$? -eq 5 ] || code=1; exit $$code
endif

cover: .venv/installed ## Run the tests that are not timed, and tell which lines none of them reaches
	@$(PYTEST) -m "not timed" --cov --cov-report=term --cov-fail-under=95 $(ARGS)

chaos: .venv/installed ## Faults under load: is anything lost? (wants Debian's postgresql and pgbouncer)
	@$(BIN)/python -m tests.support.chaos

fuzz: .venv/installed ## Run the tests with random input for some minutes, with other input each time
	@FUZZ=1 $(BIN)/python -m pytest tests/api/test_schemathesis.py tests/api/test_two_users.py -o faulthandler_timeout=0 $(ARGS)

bench: .venv/installed ## Measure how fast it is, and how that grows; draws into benchmarks/ (takes long)
	@$(BIN)/python -m benchmarks $(ARGS)

check: .venv/installed ## Lint, types, import rules
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

audit: .venv/installed ## Look for known vulnerabilities in the pinned dependencies (asks PyPI)
	@$(BIN)/python -m tests.support.advisories requirements.txt requirements-run.txt requirements-granian.txt requirements-dev.txt

sbom: .venv/installed ## Write what the image has of Python packages, with their licences, into sbom.json (CycloneDX)
	@$(PYTHON) -m venv --clear --without-pip .venv/image
	@$(BIN)/python -m pip --python .venv/image install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	@$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible -o sbom.json .venv/image

lock: .venv/installed ## Pin the newest dependencies anew
	@for name in requirements requirements-run requirements-granian requirements-dev; do \
		$(BIN)/pip-compile -q --upgrade --generate-hashes --allow-unsafe --strip-extras --no-header \
			--no-emit-index-url --no-emit-find-links --no-emit-trusted-host -o $$name.txt $$name.in; done

clean: ## Remove what make has set up: .venv, and the bundled database with its data
	rm -rf .venv "$$(readlink -m instance/elsewhere)" instance

.venv/run: requirements.txt requirements-run.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	@echo "Setting up .venv (some ten seconds, once)"
	@$(PYTHON) -m venv .venv
	@$(INSTALL) -r requirements.txt -r requirements-run.txt
	@touch $@

.venv/installed: .venv/run requirements-dev.txt
	@echo "Installing what tests and checks need (about half a minute, once)"
	@$(INSTALL) -r requirements.txt -r requirements-run.txt -r requirements-dev.txt
	@touch $@

# A secret of its own for every clone: nothing that a production system would accept lies in the repository.
.env:
	@umask 077; sed "s|^BETTER_AUTH_SECRET=.*|BETTER_AUTH_SECRET=$$($(PYTHON) -c 'import secrets; print(secrets.token_urlsafe(32))')|" .env.example > .env

.PHONY: help run example test cover fuzz chaos bench check audit sbom lock clean
