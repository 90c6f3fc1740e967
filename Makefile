# `make demo` and `make test` do all their set-up themselves on a fresh machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed

.PHONY: demo reproduce test test-marked lint clean

demo: $(INSTALLED)  ## train the embedded default with MRT and show what it learned
	$(BIN)/python scripts/train_backtrack.py --algo mrt-rl --output-dir runs/demo --overwrite

reproduce: $(INSTALLED)  ## the paper in miniature: docs/results.md, about an hour
	$(BIN)/python scripts/reproduce.py

test: $(INSTALLED)  ## the fast tests
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 -m "not slow and not smollm2"

test-marked: $(INSTALLED) models/smollm2-135m-instruct  ## long properties, two processes, 4 bits, the real SmolLM2
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[qlora]'
	OMP_NUM_THREADS=2 $(BIN)/pytest -m "slow or smollm2"

lint: $(INSTALLED)  ## lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

models/smollm2-135m-instruct: | $(INSTALLED)
	$(BIN)/python scripts/fetch_smollm2.py --out $@

$(INSTALLED): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev,gguf]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
