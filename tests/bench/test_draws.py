"""Draws of simulated data: how jobs name them, which are run, and how many in a given time."""

import io

import pandas as pd
import pytest
from rich.console import Console

from bench.jobs.execute import carry_out
from bench.options import Options, read_draws
from bench.records import PlanError
from tasks import load_task

TASKS = "unseen-cell-type/ifn-sim,factors/factor-images"


@pytest.mark.parametrize(
    ("text", "draws"), [("3", range(3)), ("1000:1004", range(1000, 1004)), ("1", range(1)), ("7:8", range(7, 8))]
)
def test_draws_are_read(text, draws):
    assert read_draws(text) == draws


@pytest.mark.parametrize("text", ["0", "-1", "5:5", "7:3", "a", "1:2:3", ":", "-2:3", ""])
def test_other_texts_are_refused(text):
    with pytest.raises(PlanError, match="--draws"):
        read_draws(text)


def test_units_are_named_by_their_draw_and_tasks_know_it():
    plan = Options(methods="pca", tasks=TASKS, preset="smoke", draws=range(1000, 1002)).plan({})
    jobs = [job for job in plan.jobs if job.task.startswith("unseen") and job.method == "pca"]
    units = load_task("unseen-cell-type/ifn-sim", "smoke").units()
    assert [job.unit for job in jobs] == [f"draw{draw}/{unit}" for draw in (1000, 1001) for unit in units]
    assert [job.held_out for job in jobs] == units * 2
    assert {job.draw for job in jobs} == {1000, 1001}
    whole = [job for job in plan.jobs if job.task.startswith("factors") and job.method == "pca"]
    assert [(job.unit, job.held_out) for job in whole] == [("draw1000", "draw1000"), ("draw1001", "draw1001")]
    first, second = (load_task("factors/factor-images", "smoke", draw=draw) for draw in (1000, 1001))
    assert (first.data.X != second.data.X).any()


def test_without_a_wish_the_preset_decides():
    plan = Options(methods="pca", tasks="unseen-cell-type/ifn-sim", preset="smoke").plan({})
    task = load_task("unseen-cell-type/ifn-sim", "smoke")
    assert {job.draw for job in plan.jobs} == set(range(task.n_draws))


def run(out, **options):
    chosen = {"methods": "pca", "tasks": "factors/factor-images", "preset": "smoke", "executor": "inline"}
    console = Console(file=io.StringIO(), width=200)
    done = carry_out(Options(**chosen | {"out": out} | options), console)
    return done, console.file.getvalue()


@pytest.mark.slow
def test_a_run_of_some_minutes_makes_whole_draws_and_a_longer_one_goes_on(tmp_path):
    done, said = run(tmp_path, spend=1e-6)
    assert {job.draw for job in done.plan.jobs} == {0}  # one draw is run however little time there is
    assert "draw 0 ran" in said
    done, _ = run(tmp_path, spend=10.0, draws=range(3))
    assert {job.draw for job in done.plan.jobs} == {0, 1, 2}
    rows = pd.read_parquet(tmp_path / "results.parquet")
    assert rows.groupby("draw")["job_id"].nunique().tolist() == [5, 5, 5]
    first = rows.drop_duplicates("job_id").groupby("draw")["started"].min()
    assert list(first) == sorted(first)
    again, _ = run(tmp_path, draws=range(3))
    assert again.outcome.counts["ok"] == 15
    assert len(pd.read_parquet(tmp_path / "results.parquet")) == len(rows)
