# Every target does its own set-up: a fresh machine needs Python 3.11+ and make, nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Old pips read the first variable, new ones the second, for the packages that they build.
PIP_ENV := PIP_CONSTRAINT=$(CURDIR)/constraints.txt PIP_BUILD_CONSTRAINT=$(CURDIR)/constraints.txt
# pip's progress on a terminal; in a log, what goes wrong alone.
PIP_SHOWS := --disable-pip-version-check $(shell test -t 2 || echo --quiet)
VENV3 := .venv-visdom3

.PHONY: venv test check demo bench clean

venv: $(VENV)/.done

$(VENV)/.done: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "flexrec needs Python 3.11 or newer; pass PYTHON=python3.11")'
	@echo "installing into $(VENV), with torch and all that the tests need: some minutes, once"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP_ENV) $(BIN)/python -m pip install $(PIP_SHOWS) --editable ".[dev]"
	@touch $@

test: venv
	$(BIN)/python -m pytest -n 2
	@$(MAKE) --no-print-directory test-visdom3
	@$(BIN)/python tools/left_out.py

# The viewing side against visdom 0.3, which needs Python 3.12, and without torch.
.PHONY: test-visdom3
test-visdom3:
	@new=$$($(PYTHON) tools/find_python.py 3.12) || exit 0; \
	$(MAKE) --no-print-directory $(VENV3)/.done PYTHON3="$$new" && \
	$(VENV3)/bin/python -m pytest -n 2 -m viewing

$(VENV3)/.done: pyproject.toml constraints.txt
	$(PYTHON3) -m venv $(VENV3)
	$(PIP_ENV) $(VENV3)/bin/python -m pip install $(PIP_SHOWS) --editable ".[html,browser,test]"
	@touch $@

# The oldest versions that pyproject.toml promises, without torch.
.PHONY: test-oldest
test-oldest: .venv-oldest/.done
	.venv-oldest/bin/python -m pytest -n 2 -W default::DeprecationWarning -m viewing

.venv-oldest/.done: pyproject.toml oldest.txt
	$(PYTHON) -m venv .venv-oldest
	PIP_CONSTRAINT=$(CURDIR)/oldest.txt PIP_BUILD_CONSTRAINT=$(CURDIR)/constraints.txt .venv-oldest/bin/python -m pip install $(PIP_SHOWS) --editable ".[fast,html,test]"
	@touch $@

# The pages in a real browser. As root on Debian it is installed; screenshots go to build/.
.PHONY: browser browser-test screenshots
browser:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core; \
	else echo "no Chromium found, and only root can install it: apt-get install chromium"; fi

browser-test: venv browser
	$(BIN)/python -m pytest tests/e2e/test_browser.py

# The pictures that README shows, of the demo's recording.
screenshots: demo browser
	$(BIN)/python tools/screenshots.py

# Which lines the tests run, in the tests' own process; lines of torch's hooks may be missed.
.PHONY: coverage
coverage: venv
	$(BIN)/python -m pytest -n 2 --cov=recorder --cov=replay --cov=cli --cov-report=term-missing:skip-covered

# Pages and pictures of every plot type and preset, to be looked at, in build/gallery.
.PHONY: gallery
gallery: venv browser
	$(BIN)/python tools/gallery.py

check: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m mypy

# The property tests, with examples that no run has tried before.
.PHONY: search
search: venv
	$(BIN)/python -m pytest -n 2 --hypothesis-profile=search

# What must never be lost: thousands of kills, failing writes, full disks, losses of power; hours.
.PHONY: soak
soak: venv
	$(BIN)/python benchmarks/reliability.py soak

demo: venv
	$(BIN)/python examples/demo.py

bench: venv
	$(BIN)/python benchmarks/suite.py

clean:
	rm -rf .venv .venv-oldest .venv-visdom3 demo build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
