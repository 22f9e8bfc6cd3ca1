"""Processor time and memory of planning, gathering, the leaderboard and MLflow against the number of cells.

Results are made up and not run: what is measured is the program around the cells. ``make faults`` prints the table.
"""

import json
import subprocess
import sys

import pytest

from tests.bench.conftest import ROOT, process_environment

pytestmark = pytest.mark.timeout(3600)
SIZES = (1000, 3000, 10000)

MEASURE = """
import json, resource, sys, time
from pathlib import Path
from bench.jobs.job import result_of
from bench.plan import choose_methods, choose_tasks, make_plan
from bench.keep.boards import write_leaderboard
from bench.keep.store import Store
from bench.keep.tracking import Tracker, default_uri

n_cells, out = int(sys.argv[1]), Path("out")
seconds, megabytes, clock = {}, {}, 0.0


def begin():
    global clock
    clock = time.process_time()


def end(what):
    seconds[what] = round(time.process_time() - clock, 2)
    megabytes[what] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


# 2 units, 3 controls: 2 · n_seeds cells a row
n_seeds = 20
n_methods = n_cells // (2 * n_seeds) - 3
doses = ",".join(str(number) for number in range(1, n_methods + 1))
store = Store(out)
make_plan(*(choose_methods("pca", "smoke", [])[:1]), choose_tasks("reembedding/pancancer-sim"), "smoke", 1, (), {})
begin()
specs, plugins = choose_methods(f"random-projection@n_latent={doses}", "smoke", [])
plan = make_plan(specs, choose_tasks("reembedding/pancancer-sim"), "smoke", n_seeds, plugins, {})
assert len(plan.jobs) == n_cells, len(plan.jobs)
end("plan")
begin()
for number, cell in enumerate(plan.jobs):
    scores = {name: (number * prime % 1000) / 1000 for name, prime in
              (("displacement", 7919), ("knn_recall", 104729), ("trustworthiness", 1299709), ("continuity", 15485863))}
    curves = {"loss": [1.0 / (1 + epoch) for epoch in range(20)]}
    store.write(result_of(cell, "ok", "", scores=scores, curves=curves, fit_seconds=0.1, handed=(200, 50)))
end("write results")
begin()
todo = [cell for job in plan.jobs if store.finished(job.id) is None]
assert not todo
end("read results")
begin()
gathered = store.gather()
end("gather")
begin()
write_leaderboard([gathered], out, ["header"])
end("leaderboard")
tracker = Tracker(default_uri(out), store, plan.invocation, "scale", "scale")
begin()
for job in plan.jobs:
    tracker.log(store.read(job.id))
tracker.finish("FINISHED", [], {})
assert not tracker.error, tracker.error
end("MLflow")
begin()
tracker = Tracker(default_uri(out), store, plan.invocation, "scale", "scale")
for job in plan.jobs:
    tracker.log(store.read(job.id))
tracker.finish("FINISHED", [], {})
end("MLflow, nothing new")
print(json.dumps([seconds, megabytes]))
"""


def measured(directory, n_cells):
    directory.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(n_cells)],
        cwd=directory,
        env=process_environment(directory, BENCH_CACHE_DIR=str(directory / "cache"), PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_time_and_memory_grow_linearly(tmp_path):
    found = {n_cells: measured(tmp_path / str(n_cells), n_cells) for n_cells in SIZES}
    steps = list(found[SIZES[0]][0])
    print("\nprocessor seconds (peak MB so far)\n" + "jobs".ljust(22) + "".join(f"{n:>18,}" for n in SIZES))
    for step in steps:
        print(step.ljust(22) + "".join(f"{found[n][0][step]:>10.2f} ({found[n][1][step]:>5})" for n in SIZES))
    for step in steps:
        few, many = found[SIZES[0]][0][step], found[SIZES[-1]][0][step]
        assert many <= max(1.0, few) * 2 * SIZES[-1] / SIZES[0], step
