# Every target makes .venv when it is absent, and installs the tested versions. The oldest ones, after `make clean`:
# make test PYTHON=python3.10 CONSTRAINTS=constraints-oldest.txt
PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
BIN := .venv/bin

.PHONY: demo test examples slow check bench bench-parts bench-rivals zoo clean

.venv/installed: pyproject.toml $(CONSTRAINTS)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '.[dev]'
	touch $@

demo: .venv/installed ## the main job on embedded real data
	$(BIN)/captum-ablate demo

test: .venv/installed ## the whole suite, without the slow replications
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

examples: .venv/installed ## those of README, docs and docstrings; part of the suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest README.md docs tests/test_examples.py

slow: .venv/installed ## what the suite leaves out
	$(BIN)/python -m pytest -m slow

check: .venv/installed ## format, lint, types and the direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/installed ## our time as a ratio to the plain hook loop, and to Captum's for single units
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.curves
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.comparisons
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.small
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.units
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.shapley
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.growth
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.memory

bench-parts: .venv/installed ## absolute times of the parts, to compare commits
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest benchmarks/test_parts.py --benchmark-columns=min,median,rounds

# The rivals' environment sees the packages of .venv and adds its own, so that torch is installed once.
.venv-rivals/installed: benchmarks/rivals-requirements.txt $(CONSTRAINTS) .venv/installed
	test -x .venv-rivals/bin/python || $(BIN)/python -m venv .venv-rivals
	$(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))" \
	  > "$$(.venv-rivals/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/ours.pth"
	.venv-rivals/bin/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) \
	  -r benchmarks/rivals-requirements.txt
	touch $@

bench-rivals: .venv-rivals/installed ## our time and every rival's as ratios to the plain hook loop
	OMP_NUM_THREADS=1 .venv-rivals/bin/python -m benchmarks.rivals

zoo: .venv/installed ## every classification network of torchvision against plain hooks; goes on where it was
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.zoo

clean:
	rm -rf .venv .venv-rivals .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist
