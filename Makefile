# Two commands do all the set-up: make demo, make test. Both install into .venv first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: install demo test nightly benchmarks lint clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --editable '.[dev]'
	touch $@

demo: install
	$(BIN)/batchlight samples demo/dark
	$(BIN)/batchlight run --input demo/dark --output demo/enhanced
	@echo "before: demo/dark   after: demo/enhanced/classical   records: demo/enhanced/metadata"

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test: lint
	$(BIN)/pytest -n 2 --dist loadfile

# Ten thousand damaged files through the real job, others each night; minutes, for a scheduler.
# To repeat a night: make nightly SEED=20260131
SEED ?= $(shell date +%Y%m%d)

nightly: install
	BATCHLIGHT_MUTANTS=10000 BATCHLIGHT_MUTANTS_SEED=$(SEED) $(BIN)/pytest tests/test_fuzz.py

# Speed and memory, half an hour on a machine that does nothing else; PHOTOS is a folder to measure with.
PHOTOS ?=

benchmarks: install
	$(BIN)/python -m benchmarks $(PHOTOS)

clean:
	rm -rf $(VENV) demo dist build
