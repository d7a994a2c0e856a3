# The two commands of the README are `make demo` and `make test`; both install what they need.
PYTHON ?= python3
# A plain `pip install torch` on Linux may pull several GB of CUDA packages that nothing here needs.
# Where your index offers a CPU build of torch, name it: make demo PIP_FLAGS="--extra-index-url URL"
PIP_FLAGS ?=
BIN := .venv/bin
READY := .venv/.installed

.PHONY: help install demo test check bench race clean

help: ## what can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

install: $(READY) ## the environment in .venv, with every extra that the tests need

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet $(PIP_FLAGS) --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet $(PIP_FLAGS) --constraint constraints.txt --editable '.[test]'
	@touch $(READY)

demo: $(READY) ## tune the paper's world from end to end; leaves demo/study.db and demo/report.html
	$(BIN)/hyperzero demo

test: $(READY) ## every test, warnings as errors, with coverage
	$(BIN)/python -m pytest --cov --cov-report=term

check: $(READY) ## ruff and strict types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY) ## run the benchmarks (raw JSON under bench/results) and redraw the README's tables
	$(BIN)/python -m bench.quality.appendix_a
	$(BIN)/python -m bench.quality.calibration
	$(BIN)/python -m bench.tables

race: $(READY) ## race against peers (installs them; hours) and redraw the README's tables
	$(BIN)/python -m pip install --quiet $(PIP_FLAGS) --constraint constraints.txt --editable '.[peers]'
	$(BIN)/python -m bench.quality.race.run --dims 2 --worlds 16 \
		--contenders hyperzero,hyperzero_paper,random,optuna_tpe,scbo,qlognei
	$(BIN)/python -m bench.quality.race.table
	$(BIN)/python -m bench.tables

clean: ## remove what the commands above made
	rm -rf .venv demo build dist *.egg-info .coverage
