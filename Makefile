# make demo        the whole pipeline on three stand-in models, offline, on a CPU: about seven minutes
# make test        every check: lint, types, docs, unit tests, workflow tests
# make test-fast   lint and quick unit tests: about three minutes
# make standins    trains the demo's three models anew: about five minutes
# make faults      interrupts, damages and fills up a small study in every stage: about half an hour
# All set themselves up on first use. See README.md for everything else.

PYTHON ?= python3
CORES ?= all
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export PYTHONHASHSEED := 0

.PHONY: help demo real paper test test-fast faults standins lint format lock docs clean

help:
	@sed -n '1,6s/^# \{0,1\}//p' Makefile

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "Setting up $(VENV): the packages of requirements.lock, once"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@touch $@

demo: $(READY)
	$(BIN)/snakemake --cores $(CORES) --configfile config/demo.yaml
	@echo; cat results/demo/tables/main/perplexity.md results/demo/tables/main/zero_shot.md
	@echo; echo "Tables, figures and report: results/demo/ (start with report.pdf)"

real: $(READY)
	$(BIN)/snakemake --cores $(CORES) --configfile config/real.yaml

paper: $(READY)
	$(BIN)/snakemake --cores $(CORES)

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder

test-fast: lint
	$(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder \
	  -m "not (workflow or hub or cluster or real or faults or slow)"

# Rewrites benchmarks/results/faults.json and the table of docs/reliability.md.
faults: $(READY)
	DASS_FAULTS=1 $(BIN)/python -m pytest tests/faults
	$(BIN)/python benchmarks/tables.py

# Trains the demo's three models anew, and holds what they know.
standins: $(READY)
	$(BIN)/python -m dass.standins
	DASS_STANDINS=1 $(BIN)/python -m pytest tests/unit/standins

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/snakemake --lint --configfile config/demo.yaml
	$(BIN)/mkdocs build --quiet --strict

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile rules

lock: $(READY)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --universal --python-version 3.11 --upgrade --no-header \
	  --annotation-style line requirements.in | grep -vE '^(nvidia|cuda|triton)-?' > requirements.lock.part
	mv requirements.lock.part requirements.lock
	$(BIN)/python envs/pins.py

docs: $(READY)
	$(BIN)/python -m dass.config --write
	$(BIN)/mkdocs build --quiet --strict
	@echo "The documentation as a site: site/index.html"

# What the demo made, and its logs; other studies keep theirs.
clean:
	rm -rf results/demo resources/standins resources/models/standin-*
	rm -rf logs/*/demo logs/*/demo.log logs/benchmarks/*/demo logs/benchmarks/*/demo.tsv
	rm -rf logs/toy_corpus logs/train_standin logs/benchmarks/toy_corpus logs/benchmarks/train_standin
