# Two commands do everything: `make demo` and `make test`. Both install into .venv first.
PYTHON ?= python3
BIN := .venv/bin
DEMO := demo

.PHONY: install demo check test lint docs clean

install: .venv/.installed

.venv/.installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv .venv || { echo "needs Python >= 3.11 with venv (Debian: apt install python3-venv)"; exit 1; }
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test,dev]'
	touch $@

# The main job on the embedded data: a teacher, its maps, the nine methods with two seeds, a short search, report and viewer.
demo: install
	$(BIN)/tiekd run ablations/runs/teacher.yaml --store $(DEMO)/store
	$(BIN)/tiekd teacher export ablations/runs/teacher.yaml --store $(DEMO)/store --out $(DEMO)/maps
	$(BIN)/tiekd ablate ablations/studies/debug.yaml --store $(DEMO)/store --set teacher.maps=$(DEMO)/maps
	$(BIN)/tiekd search ablations/studies/dpm.yaml --store $(DEMO)/store --set teacher.maps=$(DEMO)/maps
	$(BIN)/tiekd measure $(DEMO)/store --study debug
	$(BIN)/tiekd view $(DEMO)/store --out $(DEMO)/viewer --study debug
	$(BIN)/tiekd report $(DEMO)/store --out $(DEMO)/report --viewer $(DEMO)/viewer

# All tests, two files at a time and in order, since tests of clusters wait more than they work.
test: install
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

# The quick check before a commit: under 3 minutes. It leaves out the tests that start a Ray cluster.
check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 -m "not cluster"

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell
	$(BIN)/shellcheck --severity=warning .ci/run ablations/cluster/slurm.sh
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# The documentation site, at http://127.0.0.1:8000.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

clean:
	rm -rf .venv $(DEMO) site build *.egg-info
