# Two commands for a fresh machine with Python 3.10 or newer: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
DECLARED := pyproject.toml constraints.txt

.PHONY: demo test coverage check docs format clean

demo: $(VENV)/.installed
	$(BIN)/dskd-compress run --out runs/demo
	@echo "Report: $(CURDIR)/runs/demo/report.html"

test: check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

# Apart from `test`: watching every line takes time.
coverage: check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal --cov --cov-report=term-missing:skip-covered

check: $(VENV)/.installed-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The variable silences what the theme says of itself.
docs: $(VENV)/.installed-test
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "Documentation: $(CURDIR)/build/docs/index.html"

format: $(VENV)/.installed-test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The stamps are newer than what they were made from: a second run installs nothing.
$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'

$(VENV)/.installed: $(DECLARED) | $(VENV)/bin/python
	$(INSTALL) --editable '.[train,onnx]'
	touch $@

$(VENV)/.installed-test: $(DECLARED) | $(VENV)/bin/python
	$(INSTALL) --editable '.[train,onnx,quant]' --group test
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) runs build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .coverage
