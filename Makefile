# Two commands do all the set-up: make demo, make test. Both install into .venv first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: install browser demo test nightly benchmarks pictures lint clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --editable '.[dev]'
	touch $@

demo: install
	$(BIN)/batchlight samples demo/dark
	$(BIN)/batchlight run --input demo/dark --output demo/enhanced
	@echo "before: demo/dark   after: demo/enhanced/classical   records: demo/enhanced/metadata"
	@echo "to look at: demo/enhanced/report.html"

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Reports are tested in Chromium, which is no Python package. Without it those tests are skipped.
browser:
	@command -v chromium chromium-browser google-chrome > /dev/null \
	|| (test "$$(id -u)" = 0 && apt-get -qq update && apt-get -qq install -y --no-install-recommends chromium) > /dev/null \
	|| echo "there is no Chromium, so the tests of the report's page will be skipped"

# By name, and not by the number of tests: files of few tests take the longest, and would be last.
test: lint browser
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

# Ten thousand damaged files through the real job, others each night; the wheel really installed, and
# a real Airflow with our DAG; minutes, for a scheduler.
# To repeat a night: make nightly SEED=20260131
SEED ?= $(shell date +%Y%m%d)

nightly: install
	BATCHLIGHT_MUTANTS=10000 BATCHLIGHT_MUTANTS_SEED=$(SEED) $(BIN)/pytest tests/images/test_fuzz.py
	BATCHLIGHT_INSTALL=1 $(BIN)/pytest --timeout 1800 tests/jobs/test_airflow.py tests/package/test_distribution.py

# Speed and memory, half an hour on a machine that does nothing else; PHOTOS is a folder to measure with.
PHOTOS ?=

benchmarks: install
	$(BIN)/python -m benchmarks $(PHOTOS)

# The pictures of the documents, from the samples. Needs tmux and Chromium.
pictures: install browser
	$(BIN)/python docs/make_pictures.py

clean:
	rm -rf $(VENV) demo dist build
