# Two commands on a fresh machine (python3.11 with venv, make): `make demo`, `make test`.
PYTHON ?= python3.11
BIN := .venv/bin

.PHONY: demo test oldest figures lint clean

demo: .venv/installed
	$(BIN)/infomin demo

test: .venv/installed
	$(BIN)/python -m pytest --cov --cov-report=term:skip-covered --cov-fail-under=90

# Set up once; again when the dependencies change.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $@

# The tests with the oldest versions that pyproject.toml allows. What checks the code itself is left out: it wants the newest tools.
OLD := .venv-oldest
oldest:
	$(PYTHON) -m venv $(OLD)
	sed -n '/^dependencies/,/^.project.scripts/p' pyproject.toml | grep -oE '"[a-z-]+(\[[a-z]+\])?>=[0-9.]+' \
	  | sed -E 's/"|\[[a-z]+\]//g; s/>=/==/' > $(OLD)/constraints.txt
	$(OLD)/bin/python -m pip install --quiet --disable-pip-version-check --constraint $(OLD)/constraints.txt --editable ".[dev]"
	$(OLD)/bin/python -m pytest --ignore tests/test_contracts.py

lint: .venv/installed
	$(BIN)/ruff format . && $(BIN)/ruff check --fix . && $(BIN)/mypy && $(BIN)/lint-imports

# The committed figures, each from its own command; an hour and a quarter on two cores, and cut short it goes on.
FIGURES := u_curve known_nats color_spaces patch_distance frequency crop_area color_jitter augmentations learned_views moving_mnist verdict
SHOWN := color:lab,color:ydbdr,frequency:2,patch:64,crop:0.2,crop:0.2+color:lab,jitter:1,aug:simclr,aug:infomin,jigsaw:3
figures: .venv/installed
	for name in $(FIGURES); do $(BIN)/python experiments/$$name.py --save experiments/figures || exit 1; done
	$(BIN)/infomin views --draws 1 --out experiments/figures/views.png --show $(SHOWN)
	$(BIN)/python experiments/speed.py
	$(BIN)/python experiments/speed_flow.py --save true
	$(BIN)/python experiments/speed_clips.py --save true

clean:
	rm -rf .venv $(OLD) runs build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .coverage
