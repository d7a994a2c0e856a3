# The two commands of the README are `make demo` and `make test`; both install what they need.
PYTHON ?= python3
# On Linux, `pip install torch` may download several GB of CUDA packages that nothing here needs. To get
# the CPU build: make demo PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu"
PIP_FLAGS ?=
BIN := .venv/bin
READY := .venv/.installed

.PHONY: help install demo test coverage check docs picture notebooks bench peers paper race ablation reliability simulate transfer clean

help: ## list these commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

install: $(READY) ## make .venv, with every extra that the tests need

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet $(PIP_FLAGS) --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet $(PIP_FLAGS) --constraint constraints.txt --editable '.[test]'
	@touch $(READY)

demo: $(READY) ## tune the paper's world from end to end; leaves demo/study.db and demo/report.html
	$(BIN)/hyperzero demo

# With bytecode kept, also where the environment switches that off: the processes, and the hundred
# that tests start, would compile the package and its tests again, each of them.
# Neighbouring tests start in one process, so that what they share is made once; an idle one takes
# tests from the others. Some tests wait for a disk, a browser or a clock while others compute.
WORKERS ?= 3
TESTS = PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal
test: $(READY) ## run every test in three processes (WORKERS=2: in two), with warnings as errors
	$(TESTS)

coverage: $(READY) ## run every test and report the lines that were not run
	$(TESTS) --cov --cov-report=term

check: $(READY) ## check style (ruff) and types (mypy)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(READY) ## build the documentation into build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict -d build/site

SHOT = --headless --no-sandbox --disable-gpu --hide-scrollbars --virtual-time-budget=5000 --window-size=1280,900
picture: $(READY) ## draw the README's picture of the report (needs chromium)
	$(BIN)/hyperzero demo --out build/picture
	chromium $(SHOT) --screenshot=docs/images/report.png "file://$(CURDIR)/build/picture/report.html"

notebooks: $(READY) ## run the notebooks at full budget, in place (minutes)
	$(BIN)/jupyter execute --inplace notebooks/*.ipynb

SPEED = streaming moments paths marginals selection fits round
TIME = $(BIN)/python -m pytest bench/speed/bench_$$one.py -q --benchmark-quiet --benchmark-disable-gc
bench: peers ## measure calibration and speed (an hour on a quiet machine); redraw the tables
	$(BIN)/python -m bench.quality.calibration
	$(BIN)/python -m bench.quality.launches
	$(BIN)/python -m bench.quality.reliability
	$(BIN)/python -m bench.quality.misprints
	$(BIN)/python -m bench.speed.import_time
	$(BIN)/python -m bench.speed.surrogates
	$(BIN)/python -m bench.quality.surrogates surfaces
	for one in $(SPEED); do $(TIME) --benchmark-json=bench/results/speed_$$one.json || exit 1; done
	$(BIN)/python -m bench.speed.growth
	$(BIN)/python -m bench.speed.breakdown
	$(BIN)/python -m bench.speed.serve
	$(BIN)/python -m bench.speed.asks
	$(BIN)/python -m bench.device.launches
	$(BIN)/python -m bench.device.price
	$(BIN)/python -m bench.tables

.PHONY: cuda-wheels cuda cuda-tables
cuda-wheels: $(READY) ## download the wheels that a machine with a GPU and a bare PyTorch lacks
	$(BIN)/python -m bench.device.wheels build/wheels

cuda: $(READY) ## measure on a GPU, in eight minutes at most; redraw the tables
	$(BIN)/python -m bench.cuda
	$(BIN)/python -m bench.tables

cuda-tables: $(READY) ## redraw the tables, after bench.cuda has run elsewhere
	$(BIN)/python -m bench.tables

RUN = $(BIN)/python -m bench.quality.race.run --workers 2
SMALL = @initial_candidates=9
peers: $(READY) # install the libraries that the benchmarks compare with
	$(BIN)/python -m pip install --quiet $(PIP_FLAGS) --constraint constraints.txt --editable '.[peers]'

paper: peers ## run the paper's experiments (2 hours, resumes where it was stopped); redraw their figures
	$(RUN) --world paper --worlds 50 --contenders hyperzero,hyperzero_sync,hyperzero_raw
	$(RUN) --world paper --worlds 50 --contenders hyperzero_paper_own,hyperzero_paper_sync,hyperzero_paper_raw
	$(RUN) --world paper --worlds 8 --contenders skopt,skopt_unconstrained
	$(RUN) --world paper --worlds 20 --contenders hyperzero_paper_own --traffic 10
	$(RUN) --world paper --worlds 50 --contenders hyperzero --traffic 0.1
	$(RUN) --world paper --worlds 30 --contenders hyperzero$(SMALL),hyperzero$(SMALL)@proposal_probability=0
	$(RUN) --world paper --worlds 30 --contenders hyperzero_paper_own$(SMALL),hyperzero_paper_own$(SMALL)@proposal_probability=0
	for delay in 0 6 12; do $(RUN) --world paper_delay_$$delay --worlds 30 --contenders hyperzero || exit 1; done
	$(RUN) --dims 4 --worlds 30 --contenders hyperzero,qlognei
	$(BIN)/python -m bench.quality.paper_figures
	$(BIN)/python -m bench.tables

CHEAP = hyperzero,hyperzero_paper,random,optuna_tpe
RACERS = $(CHEAP),qlognei
race: peers ## race against peers (hours, resumes where it was stopped); redraw the tables
	$(RUN) --dims 2 --worlds 30 --contenders $(RACERS),scbo,optuna_gp,ax_thompson,ax_ebts
	$(RUN) --dims 2 --worlds 12 --contenders skopt
	$(RUN) --dims 2 --worlds 12 --contenders ax_default
	$(RUN) --dims 2 --worlds 30 --contenders $(RACERS) --traffic 0.1
	$(RUN) --dims 4 --worlds 30 --contenders $(RACERS)
	$(RUN) --dims 4 --worlds 30 --contenders $(CHEAP) --traffic 0.1
	$(RUN) --dims 8 --worlds 8 --contenders $(RACERS)
	$(RUN) --dims 2 --worlds 12 --contenders $(CHEAP) --traffic 0.01
	for world in drift tails neural five infeasible replay; do \
		$(RUN) --world $$world --worlds 12 --contenders hyperzero,random,optuna_tpe || exit 1; done
	$(BIN)/python -m bench.quality.surrogates race --workers 2
	$(BIN)/python -m bench.quality.race.limit
	$(BIN)/python -m bench.quality.race.table
	$(BIN)/python -m bench.tables

OFF = evidence=own@draws=marginal draws=marginal shared_control=false weights=users \
	control_share=0.1 verification_share=0 calibrate=false num_starts=0 caution=0 caution=1.5 \
	max_share=1@max_share_rise=1 anchor=false retire_after=null start=near \
	max_untested_share=1@max_untested_total=1@max_risky_total=1@max_risk=1
ablation: $(READY) ## run the default with one feature off at a time (half an hour)
	$(RUN) --dims 2 --worlds 16 --contenders hyperzero
	for off in $(OFF); do $(RUN) --dims 2 --worlds 16 --contenders hyperzero@$$off || exit 1; done
	$(BIN)/python -m bench.quality.race.table
	$(BIN)/python -m bench.tables

reliability: $(READY) ## measure false alarms, kill -9, hostile input, a year of rounds (two hours); redraw the tables
	$(BIN)/python -m bench.reliability.peeking
	$(BIN)/python -m bench.reliability.harms
	$(BIN)/python -m bench.reliability.thin
	$(BIN)/python -m bench.reliability.set_aside
	$(BIN)/python -m bench.reliability.drift_alarms
	$(BIN)/python -m bench.reliability.still_worlds
	$(BIN)/python -m bench.quality.exposure
	$(BIN)/python -m bench.quality.launches
	$(BIN)/python -m bench.reliability.kills
	$(BIN)/python -m bench.reliability.fuzz
	$(BIN)/python -m bench.reliability.load
	$(BIN)/python -m bench.reliability.year
	$(BIN)/python -m bench.tables

SEEDS ?= 10200
simulate: $(READY) ## simulate ten thousand studies in which everything goes wrong (half an hour; SEEDS=1000: fewer)
	$(BIN)/python -m bench.reliability.simulate --seeds $(SEEDS)
	$(BIN)/python -m bench.tables

WORLDS = --worlds 20:40 --dims 4 --share 0.98
BAD = reversed:3,shifted:3,shuffled:3,noise:3,one_good:10
FIRST = related:3@seed_first=true,reversed:3@seed_first=true
transfer: $(READY) ## race transfer against a cold start and peers, measure its cost and privacy (five hours); redraw the tables
	$(BIN)/python -m bench.transfer.run $(WORLDS) --traffic 4 --kinds cold,related:3,related:10,$(BAD),$(FIRST)
	$(BIN)/python -m bench.transfer.run $(WORLDS) --traffic 4 --kinds multitask/related:3,rgpe/related:3
	$(BIN)/python -m bench.transfer.run $(WORLDS) --traffic 1 --richer 10 --rounds 41 --kinds cold,related:3,related:10,reversed:3
	$(BIN)/python -m bench.transfer.run --family regions --worlds 0:20 --kinds cold,related:3,related:10,reversed:3,noise:3
	$(BIN)/python -m bench.transfer.cost
	$(BIN)/python -m bench.transfer.privacy
	$(BIN)/python -m bench.transfer.figure
	$(BIN)/python -m bench.tables

clean: ## remove what these commands made
	rm -rf .venv demo build dist *.egg-info .coverage
