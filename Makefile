# Two commands do everything: `make demo` and `make test`. Both install into .venv first.
PYTHON ?= python3
BIN := .venv/bin
DEMO := demo

.PHONY: install lock demo check test test-lowest lint docs clean

install: .venv/.installed

.venv/.installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv || { echo "needs Python >= 3.11 with venv (Debian: apt install python3-venv)"; exit 1; }
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test,dev]'
	touch $@

# Renew the lock: the newest versions that setup.cfg allows. Run the tests before you commit it.
lock:
	rm -rf .venv-lock
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/pip install --quiet --disable-pip-version-check --editable '.[test,dev]'
	{ echo "# The versions that 'make install' installs, made by 'make lock'."; \
	  .venv-lock/bin/pip freeze --all --exclude pip --exclude-editable; } > .venv-lock/constraints.txt
	mv .venv-lock/constraints.txt constraints.txt
	rm -rf .venv-lock

# The main job on the embedded data: a teacher and the nine methods with two seeds, a short search, viewer and report.
demo: install
	$(BIN)/tiekd ablate ablations/studies/debug.yaml --store $(DEMO)/store
	$(BIN)/tiekd search ablations/studies/dpm.yaml --store $(DEMO)/store
	$(BIN)/tiekd measure $(DEMO)/store --study debug
	$(BIN)/tiekd view $(DEMO)/store --out $(DEMO)/viewer --study debug
	$(BIN)/tiekd report $(DEMO)/store --out $(DEMO)/report --viewer $(DEMO)/viewer

# All tests, three files at a time and in order, since tests of clusters wait more than they work.
test: install
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder --durations 20

# The tests that start no Ray cluster, with the lowest versions that setup.cfg allows. Needs Python 3.11.
test-lowest: .venv-lowest/.installed
	OMP_NUM_THREADS=1 .venv-lowest/bin/pytest -n 2 -m "not cluster"

.venv-lowest/.installed: setup.cfg pyproject.toml tests/support/lowest.py
	$(PYTHON) -m venv .venv-lowest
	$(PYTHON) tests/support/lowest.py > .venv-lowest/constraints.txt
	.venv-lowest/bin/pip install --quiet --disable-pip-version-check --constraint .venv-lowest/constraints.txt --editable '.[test]'
	touch $@

# The quick check before a commit: under 3 minutes. It leaves out the tests that start a Ray cluster, and the slow ones.
check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 -m "not cluster and not slow"

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell
	$(BIN)/shellcheck --severity=warning .ci/run ablations/cluster/slurm.sh ablations/cluster/slurm-array.sh
	$(BIN)/hadolint ablations/cluster/Dockerfile
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# The documentation site, at http://127.0.0.1:8000.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

clean:
	rm -rf .venv .venv-lock .venv-lowest $(DEMO) site build *.egg-info
