# The four words of the project. `make demo` and `make test` are all a newcomer needs.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

.PHONY: demo test check bench clean

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev,demo]'
	touch $@

demo: $(VENV)/.installed          ## index real files of every kind, search them, draw the result (DIR=folder adds yours)
	$(BIN)/sightline demo --out demo $(if $(DIR),--dir '$(DIR)')

test: $(VENV)/.installed          ## every test, warnings are errors
	$(BIN)/python -m pytest

check: $(VENV)/.installed         ## style, types, contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/contract

bench: $(VENV)/.installed         ## Sightline beside plain transformers on this machine
	$(BIN)/python bench/embed.py
	$(BIN)/python bench/rerank.py

clean:
	rm -rf $(VENV) demo .bench .pytest_cache .mypy_cache .ruff_cache
