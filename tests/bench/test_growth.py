"""What a run does around its cells grows with their number; measured at 10,000 in tests/faults/test_scale.py."""

from collections import Counter
from pathlib import Path

import pytest
from rich.console import Console

import bench.keep.store
from bench.jobs import execute as execution
from bench.jobs.job import result_of
from bench.keep.store import Store
from bench.options import Options
from bench.plan import choose_methods, choose_tasks, make_plan
from bench.records import Status


class Nothing:
    """An executor whose jobs do nothing, and a tracker that logs nothing."""

    name = error = ""
    n_workers = 1

    def run(self, jobs, store, on_start, on_done):
        for job in jobs:
            on_start(job)
            result = result_of(job, Status.OK, "", scores={"displacement": 0.5, "knn_recall": 0.25})
            store.write(result)
            on_done(result)

    def log(self, result):
        pass

    def finish(self, status, files, tags, board):
        pass


@pytest.fixture
def counted(monkeypatch):
    """How often results are read and written."""
    counts = Counter()
    for name in ("read_sealed", "write_sealed"):
        monkeypatch.setattr(bench.keep.store, name, counting(getattr(bench.keep.store, name), counts))
    return counts


def counting(function, counts):
    def counted(*arguments, **options):
        what_runs_now = any(isinstance(one, Path) and one.name == "now.json" for one in arguments)
        counts[function.__name__] += not what_runs_now  # it is no result
        return function(*arguments, **options)

    return counted


def execute(directory, n_methods, monkeypatch):
    doses = ",".join(str(number) for number in range(1, n_methods + 1))
    specs, plugins = choose_methods(f"random-projection@n_latent={doses}", "smoke", [])
    plan = make_plan(specs, choose_tasks("reembedding/pancancer-sim"), "smoke", 1, plugins, {})
    monkeypatch.setattr(execution, "Tracker", lambda *about: Nothing())
    execution.execute(plan, Store(directory), Nothing(), Options(out=directory), Console(quiet=True))
    return len(plan.jobs)


def test_each_result_is_written_once_and_read_a_few_times(tmp_path, counted, monkeypatch):
    for number, n_methods in enumerate((5, 50)):
        counted.clear()
        n_jobs = execute(tmp_path / str(number), n_methods, monkeypatch)
        assert counted["write_sealed"] == n_jobs + 1  # the plan
        assert counted["read_sealed"] <= 2 * n_jobs + 1
        counted.clear()
        execute(tmp_path / str(number), n_methods, monkeypatch)
        assert counted["write_sealed"] == 1
        assert counted["read_sealed"] <= 2 * n_jobs + 1
