# make demo: set up and run the main job on the embedded phantom with the bundled weights
# make test: set up and run all the tests
# make fuzz, make chaos: damaged files, killed runs; make release-check: all of this in a fresh clone
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# one thread a test process: the tests run side by side. A test process that dies ends the run:
# with --dist loadfile, pytest-xdist 3.8 may wait for ever after it has replaced one
THREADS := OMP_NUM_THREADS=1 ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS=1

.PHONY: demo test bench lint fuzz chaos release-check clean

demo: $(VENV)/.library
	$(BIN)/python -m DRAMLesionLib phantom --seed 7 --output demo-output/phantom
	$(BIN)/python -m DRAMLesionLib segment demo-output/phantom/ct.nii.gz --output demo-output/result --maps
	@echo "The report: demo-output/result/report.html"

test: $(VENV)/.development
	$(THREADS) $(BIN)/python -m pytest -n $(or $(JOBS),auto) --dist loadfile --max-worker-restart 0

bench: $(VENV)/.benchmarks
	$(BIN)/python -m Testing.benchmarks $(if $(ONLY),--only $(ONLY))

fuzz: $(VENV)/.development
	$(THREADS) $(BIN)/python -m Testing.fuzz --count $(or $(COUNT),10000) --seed $(or $(SEED),0) --jobs $(or $(JOBS),1)

chaos: $(VENV)/.development
	$(THREADS) $(BIN)/python -m Testing.chaos --kills $(or $(KILLS),100) --seed $(or $(SEED),0)

release-check: $(VENV)/.development
	$(BIN)/python -m Testing.release

lint: $(VENV)/.development
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) demo-output bench.json

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.library: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable .
	touch $@

$(VENV)/.development: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable ".[training,test,lint]"
	touch $@ $(VENV)/.library

$(VENV)/.benchmarks: $(VENV)/.development
	$(PIP) --editable ".[training,test,bench]"
	touch $@
