# The four words of the project. `make demo` and `make test` are all a newcomer needs.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
BENCH  ?= .bench
# run once more under python -O: no check of a file or caller may be an assert
SAFETY := tests/model/test_hostile.py tests/media/test_source.py tests/media/test_sniff.py tests/server/test_guard.py \
          tests/server/test_ssrf.py tests/server/test_files.py tests/server/test_limits.py tests/store/test_schema.py

.PHONY: demo test check audit sbom lowest bench torture fuzz clean

$(VENV)/.usable: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[demo,serve]'
	touch $@

$(VENV)/.installed: $(VENV)/.usable
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev,demo]'
	touch $@

$(BENCH)/.installed: pyproject.toml constraints.txt bench/peers.txt
	test -x $(BENCH)/bin/python || $(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python -m pip install -q --upgrade pip
	$(BENCH)/bin/python -m pip install -q -c constraints.txt -e . -r bench/peers.txt
	touch $@

demo: $(VENV)/.usable                     ## index real files of every kind, search them, draw the result (DIR=folder adds yours)
	$(BIN)/sightline demo --out demo $(if $(DIR),--dir '$(DIR)')

test: $(VENV)/.installed          ## every test, warnings are errors
	$(BIN)/python -m pytest

check: $(VENV)/.installed         ## style, types, contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/contract
	$(BIN)/python -O -W default -m pytest -W default $(SAFETY)
	$(BIN)/python .ci/audit.py

audit: $(VENV)/.installed         ## known weaknesses of everything installed, not only of what is pinned
	$(BIN)/python .ci/audit.py --all

sbom: $(VENV)/.installed          ## what is installed, as a CycloneDX file
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --of JSON -o sbom.json $(BIN)/python

lowest:                           ## the lowest versions allowed: a smoke suite on them (TAKE=torch where that one is too large)
	$(PYTHON) .ci/lowest.py .lowest $(if $(TAKE),--take $(TAKE))

bench: $(BENCH)/.installed        ## Sightline beside transformers and sentence-transformers on this machine (an hour)
	for dtype in float32 bfloat16; do for what in embed rerank; do \
	  $(BENCH)/bin/python -m bench.$$what --dtype $$dtype --repeats 2 --save || exit 1; done; done
	$(BENCH)/bin/python -m bench.embed --dtype int8 --repeats 6 --save
	$(BENCH)/bin/python -m bench.load --save
	$(BENCH)/bin/python -m bench.search --save
	$(BENCH)/bin/python -m bench.table --write

torture: $(VENV)/.installed       ## half an hour of kills, power cuts, full disks and hostile files; one table
	$(BIN)/python -m tests.torture --save

fuzz: $(VENV)/.installed          ## an hour of mutated files and words; what goes wrong is kept in .fuzz
	$(BIN)/python -m tests.torture.fuzz --minutes 60

clean:
	rm -rf $(VENV) .lowest .fuzz sbom.json demo .bench .pytest_cache .mypy_cache .ruff_cache
