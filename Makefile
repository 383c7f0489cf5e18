# Two commands on a fresh machine (python3.11 with venv, make): `make demo`, `make test`.
PYTHON ?= python3.11
BIN := .venv/bin

.PHONY: demo test figures lint clean

demo: .venv/installed
	$(BIN)/infomin demo

test: .venv/installed
	$(BIN)/python -m pytest --cov --cov-report=term:skip-covered --cov-fail-under=90

# Set up once; again when the dependencies change.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $@

lint: .venv/installed
	$(BIN)/ruff format . && $(BIN)/ruff check --fix . && $(BIN)/mypy && $(BIN)/lint-imports

# The committed figures, each from its own command; minutes on two cores.
figures: .venv/installed
	$(BIN)/python experiments/u_curve.py --save experiments/figures
	$(BIN)/python experiments/color_spaces.py --save experiments/figures
	$(BIN)/python experiments/known_nats.py --save experiments/figures
	$(BIN)/python experiments/speed.py

clean:
	rm -rf .venv runs build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .coverage
