# Every target makes .venv when it is absent, and installs the tested versions.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check bench slow clean

.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: .venv/installed ## the main job on embedded real data
	$(BIN)/captum-ablate demo

test: .venv/installed ## the whole suite, without the slow replications
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

slow: .venv/installed ## what the suite leaves out
	$(BIN)/python -m pytest -m slow

check: .venv/installed ## format, lint, types and the direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/installed ## our time as a ratio to the plain hook loop
	$(BIN)/python -m benchmarks.curves

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
