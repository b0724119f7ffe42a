# Ovis2.5 Ops.  `make help` lists what there is.  Every target sets itself up: there is no order
# to remember, and an interrupted one is finished by typing it again.

VENV ?= .venv
PORT ?= 5000
TEST_PROCESSES ?= 2
NEEDED_GB = 6
PYTHON ?=
BIN = $(VENV)/bin
STAMP = $(VENV)/.installed
STEPS = validate extract train evaluate register
CODE = flows tasks ovis_model benchmarks tests data/sample

SHELL = /bin/bash
.SHELLFLAGS = -eu -o pipefail -c
.ONESHELL:
.DEFAULT_GOAL = help

export PATH := $(abspath $(BIN)):$(PATH)
# The same list as tasks/environment.py, for the tools started by hand below.
export DO_NOT_TRACK ?= true
export MLFLOW_DISABLE_TELEMETRY ?= true
export PREFECT_SERVER_ANALYTICS_ENABLED ?= false
export GX_ANALYTICS_ENABLED ?= False
export DVC_NO_ANALYTICS ?= 1
export HF_HUB_OFFLINE ?= 1
export HF_HUB_DISABLE_TELEMETRY ?= 1
export TOKENIZERS_PARALLELISM ?= false
export OMP_WAIT_POLICY ?= PASSIVE
export PREFECT_HOME ?= $(CURDIR)/.prefect

.PHONY: help setup run test test-slow check bench-model bench-data bench-train $(STEPS) retrain schedule ui status lock clean

help: ## this list
	@grep -hE '^[-a-z $$()A-Z]+:.*## ' $(MAKEFILE_LIST) | sed -e 's/$$(STEPS)/$(STEPS)/' \
		| awk -F ':.*## ' '{printf "  %-44s %s\n", "make " $$1, $$2}'

run: $(STAMP) ## the whole pipeline on the data that params.yaml names, and its table
	@$(need_repository)
	started=$$SECONDS
	dvc repro
	ovis status --seconds $$((SECONDS - started))

test: $(STAMP) ## the tests that need no GPU, no network and no patience
	@$(need_repository)
	@# A test computes on one core, so two processes take half the time; a file stays in one.
	python -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder -m "not gpu and not network and not slow"

test-slow: $(STAMP) ## the few that take half a minute or more each
	@$(need_repository)
	python -m pytest -m "slow and not gpu and not network"

check: $(STAMP) ## lint, format, types, layers
	@ruff check $(CODE)
	ruff format --check $(CODE)
	mypy
	lint-imports

bench-model: $(STAMP) ## time and memory of the model's parts against stock ones; BENCH="--only P1" for some
	@python -m benchmarks model $(BENCH)

bench-data: $(STAMP) ## time and memory of reading, checking and decoding data, up to a million rows; BENCH as above
	@python -m benchmarks data $(BENCH)

bench-train: $(STAMP) ## whole trainings beside the official way of training, on a CPU; packing of a million samples
	@python -m benchmarks training $(BENCH)

$(STEPS): $(STAMP) ## one step, and whatever it depends on
	@$(need_repository)
	dvc repro $@

status: $(STAMP) ## what runs, what crashed, and the table of the last run
	@ovis status

retrain: $(STAMP) ## the same as a Prefect flow, once; starts a local server or uses a running one
	@$(need_repository)
	python -m flows retrain

schedule: $(STAMP) ## every flow, at the times of operations.yaml, as long as this runs; CRON="..." sets another
	@$(need_repository)
	python -m flows schedule

ui: $(STAMP) ## MLflow's pages on http://127.0.0.1:5000; PORT=... chooses another port
	@ovis ui --port $(PORT)

setup: $(STAMP) ## the virtual environment alone
	@echo "$(VENV) is ready: $$(python --version), torch $$(python -c \
		'from importlib.metadata import version; print(version("torch"))')"

lock: $(STAMP) ## write the versions installed here into requirements.lock
	@# Without the build of torch (+cpu, +cu130): pip chooses it on each machine.
	python -m pip freeze --exclude-editable | sed -E 's/\+[A-Za-z0-9.]+$$//' > requirements.lock.partial
	mv requirements.lock.partial requirements.lock

clean: ## remove what the pipeline made; the environment, caches and the registry stay
	@rm -rf data/validated data/extracted data/sample/digits data/sample/tiny-ovis2_5 \
		models/finetuned models/.resume .ovis/reproduced .ovis/heartbeats reports dvc_plots .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -name .venv -prune -o -name __pycache__ -type d -exec rm -rf {} +

# ---- setup ---------------------------------------------------------------------------------

# torch: requirements.lock says 2.13.0, and pip takes the build that this machine is set up for,
# a CPU wheel from its own find-links or the default build, which uses CUDA where there is some.
# The stamp is written last: an interrupted installation is taken up again.
$(STAMP): requirements.lock pyproject.toml
	@python=$$($(find_python))
	$(need_disk)
	[ -x $(BIN)/python ] || "$$python" -m venv $(VENV) || { rm -rf $(VENV); echo \
		"'$$python -m venv' does not work; on Debian and Ubuntu install python3.11-venv" >&2; exit 1; }
	echo "installing the locked packages into $(VENV) (about two minutes, once)"
	$(BIN)/python -m pip install -qq --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps -e .
	touch $@

define find_python
for python in $(PYTHON) python3.11 python3 python; do
	if "$$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
		command -v "$$python"; exit 0
	fi
done
echo "Python 3.11 is needed and none of$(if $(PYTHON), $(PYTHON),) python3.11, python3, python is one." \
	"Install it, or say where it is: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2
exit 1
endef

define need_disk
free_gb=$$(df -Pk $(dir $(abspath $(VENV))) | awk 'NR == 2 {print int($$4 / 1048576)}')
if [ "$$free_gb" -lt $(NEEDED_GB) ]; then
	echo "the environment and a run need $(NEEDED_GB) GB on this disk, $$free_gb GB are free:" \
		"make room, or put the environment elsewhere with VENV=/path" >&2
	exit 1
fi
endef

# An unpacked archive is no git repository.  DVC works there too once it is told so.
define need_repository
if ! git rev-parse --git-dir >/dev/null 2>&1; then
	dvc config --local core.no_scm true
	echo "no git repository here: DVC runs without one (dvc exp and dvc diff need 'git init')"
fi
endef
