"""What a run does around its cells grows with their number; measured at 10,000 in tests/faults/test_scale.py."""

from collections import Counter

import pytest
from rich.console import Console

import bench.keep.store
from bench import execute as execution
from bench.run.job import result_of
from bench.plan import choose_methods, choose_tasks, make_plan
from bench.keep.store import Store


class Nothing:
    """An executor whose cells do nothing, and a tracker that logs nothing."""

    name = error = ""

    def run(self, cells, store, on_start, on_done):
        for cell in cells:
            on_start(cell)
            result = result_of(cell, "ok", "", scores={"displacement": 0.5, "knn_recall": 0.25})
            store.write(result)
            on_done(cell, result)

    def log(self, result):
        pass

    def finish(self, status, files, tags):
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
        counts[function.__name__] += 1
        return function(*arguments, **options)

    return counted


def execute(directory, n_methods):
    doses = ",".join(str(number) for number in range(1, n_methods + 1))
    specs, plugins = choose_methods(f"random-projection@n_latent={doses}", "smoke", [])
    plan = make_plan(specs, choose_tasks("reembedding/pancancer-sim"), "smoke", 1, plugins, {})
    nothing = Nothing()
    execution.execute(plan, Store(directory), nothing, nothing, 1, Console(quiet=True), "command")
    return len(plan.jobs)


def test_each_result_is_written_once_and_read_a_few_times(tmp_path, counted):
    for number, n_methods in enumerate((5, 50)):
        counted.clear()
        n_cells = execute(tmp_path / str(number), n_methods)
        assert counted["write_sealed"] == n_cells + 1  # the plan
        assert counted["read_sealed"] <= 2 * n_cells + 1
        counted.clear()
        execute(tmp_path / str(number), n_methods)
        assert counted["write_sealed"] == 1
        assert counted["read_sealed"] <= 2 * n_cells + 1
