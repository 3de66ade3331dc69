# `make demo` and `make test` set up everything they need in .venv; both are quick when run again.
# PYTHON=python3.12 chooses the interpreter, ARGS="..." goes to the demo or to pytest.
PYTHON ?= python3
export PYTHON
BIN := .venv/bin

# The targets share one .venv.
.NOTPARALLEL:
.PHONY: help demo test chaos conformance bench-loop lint types format clean
help:
	@echo 'make demo    the main job on this machine, about a minute (ARGS="--seconds 30 --out DIR")'
	@echo 'make test    lint, types and all tests (ARGS="-k name" chooses tests)'
	@echo 'make chaos   kills everything at random for 50 rounds (CHAOS_ROUNDS=200 CHAOS_SEED=7)'
	@echo 'make conformance  our samplers against those of diffusers, whole trajectories (sets up .venv-peers, some minutes)'
	@echo 'make bench-loop   what a step costs beside its network, next to diffusers; images and windows a second'
	@echo 'make lint    ruff: rules and formatting'
	@echo 'make types   mypy'
	@echo 'make format  lets ruff format and mend what it can'
	@echo 'make clean   removes .venv and everything built'

demo:
	@./setup.sh demo
	$(BIN)/denoised demo $(ARGS)

test: lint types
	$(BIN)/python -m pytest $(ARGS)

CHAOS_ROUNDS ?= 50
chaos:
	@./setup.sh test
	CHAOS_ROUNDS=$(CHAOS_ROUNDS) $(BIN)/python -m pytest tests/chaos $(ARGS)

# What we are compared with lives in an environment of its own: torch and diffusers are no part of the project.
# TORCH_INDEX has the builds for the CPU alone; without it the same version comes from PyPI, with gigabytes for GPUs.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
PEERS := .venv-peers/bin
.venv-peers/ready: setup.py
	$(PYTHON) -m venv .venv-peers
	$(PEERS)/pip install -q --disable-pip-version-check --retries 1 --extra-index-url $(TORCH_INDEX) "torch==2.13.0"
	$(PEERS)/pip install -q --disable-pip-version-check -e ".[onnx,peers]"
	touch $@

conformance: .venv-peers/ready
	$(PEERS)/python bench/conformance.py

bench-loop: .venv-peers/ready
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(PEERS)/python bench/loop.py $(ARGS)

lint:
	@./setup.sh test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types:
	@./setup.sh test
	MYPYPATH=.venv/types $(BIN)/mypy -p denoised

format:
	@./setup.sh test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .venv-peers build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache demo-out
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
