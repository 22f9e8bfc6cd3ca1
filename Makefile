# Everything a fresh machine with Python 3.11, 3.12 or 3.13 and make needs; a second call of any target starts at once.
# PYTHON=python3.13 takes another one than 3.11, which the suite is tested with.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
# The methods of `make run`; METHODS=all runs every one.
METHODS ?= baseline,vae,beta-vae,gamma-vae,trvae,dhsic-vae,svae-plus,multigroup-vi
# The minutes of `make run`, which makes whole draws of the simulators until they are used; a second call makes more.
MINUTES ?= 8

.PHONY: env run test check docs benchmark faults defaults lock latest clean

env: $(VENV)/.ready

# The lock pins every package, for Python 3.11 torch's CPU build among them; the project itself is installed in place.
$(VENV)/.ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

run: env
	$(BIN)/python -m bench run --methods $(METHODS) --tasks ood --minutes $(MINUTES) $(ARGS)

# Three workers on two cores: many tests wait, for limits, servers and schedulers.
test: env
	$(BIN)/python -m pytest -n 3 --dist worksteal $(ARGS)

check: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m tests.house --check

# The documentation, into build/site: pages that need no network, and a link that leads nowhere is an error.
docs: env
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build $(ARGS)

# Time and memory against peers and limits: one table, and an error where a target is missed. Best on an idle machine.
# ARGS=--main-job times the default run from nothing too, ARGS=--benchmark-json=FILE keeps every measurement.
benchmark: env
	$(BIN)/python -m pytest tests/benchmarks --timeout 0 $(ARGS)

# Kills, corrupt files, full disks, memory hogs, a bad tracking server, 10,000 cells and every method twice: half an hour;
# prints figures.
faults: env
	$(BIN)/python -m pytest tests/faults -s $(ARGS)

# Ask whether other defaults would serve the networks better, on development draws: an hour. ARGS names some of them.
defaults: env
	$(BIN)/python -m tests.defaults build/defaults $(ARGS)

# Resolve the newest versions anew in a throw-away environment and pin them.
lock:
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/pip install --quiet torch==2.13.0
	build/lock/bin/pip install --quiet '.[dev]' 'setuptools>=77' wheel
	( echo '# Exact versions that the suite is tested with; made by `make lock`.'; \
	  build/lock/bin/pip freeze --all --exclude disentanglement-ood-bench --exclude pip | sed 's/+cpu$$//' ) > requirements.lock
	rm -rf build/lock

# The newest of everything but torch, in a throw-away environment: a smoke run and the fast tests. ARGS is pytest's.
latest:
	rm -rf build/latest && $(PYTHON) -m venv build/latest
	grep '^torch==' requirements.lock > build/latest/torch.txt
	build/latest/bin/pip install --quiet --constraint build/latest/torch.txt '.[dev]'
	build/latest/bin/python -m bench run --methods all --tasks ood --preset smoke --seeds 1 --out build/latest/runs
	build/latest/bin/python -m pytest -n 2 -m 'not slow' \
	  tests/contract tests/leaderboard tests/methods tests/metrics tests/tasks $(ARGS)

clean:
	rm -rf build .pytest_cache .mypy_cache .ruff_cache
