# Every target does its own set-up: a fresh machine needs Python 3.11+ and make, nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Old pips read the first variable, new ones the second, for the packages that they build.
PIP_ENV := PIP_CONSTRAINT=$(CURDIR)/constraints.txt PIP_BUILD_CONSTRAINT=$(CURDIR)/constraints.txt
VENV3 := .venv-visdom3

.PHONY: venv test check demo bench clean

venv: $(VENV)/.done

$(VENV)/.done: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "flexrec needs Python 3.11 or newer; pass PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(PIP_ENV) $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	@touch $@

test: venv
	$(BIN)/python -m pytest
	@$(MAKE) --no-print-directory test-visdom3

# The viewing side against visdom 0.3, which needs Python 3.12, and without torch.
.PHONY: test-visdom3
test-visdom3:
	@new=$$($(PYTHON) tools/find_python.py 3.12) || { echo "no Python 3.12 or newer found: visdom 0.3 was not tested"; exit 0; }; \
	$(MAKE) --no-print-directory $(VENV3)/.done PYTHON3="$$new" && \
	$(VENV3)/bin/python -m pytest $(VIEWING_TESTS)

$(VENV3)/.done: pyproject.toml constraints.txt
	$(PYTHON3) -m venv $(VENV3)
	$(PIP_ENV) $(VENV3)/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[visdom,test]"
	@touch $@

check: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tools/typecheck.py

demo: venv
	$(BIN)/python examples/demo.py

bench: venv
	$(BIN)/python benchmarks/quick.py

clean:
	rm -rf .venv .venv-visdom3 demo build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
