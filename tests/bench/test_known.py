"""Times of another machine, scaled to this one."""

from dataclasses import replace

import pandas as pd
import pytest

from bench.plan import choose_methods, choose_tasks, known, make_plan
from bench.plan.cost import AROUND, BETWEEN, KNOWN, Estimate
from tests.benchmarks.seconds import measured

TASK = "unseen-cell-type/ifn-sim"


@pytest.fixture
def job():
    plan = make_plan(choose_methods("vae", "default", [])[0], choose_tasks(TASK), "default", 1, (), {}, None, range(1))
    return replace(next(job for job in plan.jobs if job.name == "vae"), stack=())


@pytest.fixture
def twice_as_slow(monkeypatch):
    table = {"yardstick": 0.1, "seconds": {"default": {TASK: {"vae": 1.5, "vae@shift=regression": 2.0}}}}
    monkeypatch.setattr(known, "_table", lambda: table)
    monkeypatch.setattr(known, "yardstick", lambda n_workers: 0.2)
    known._slowness.cache_clear()
    yield
    known._slowness.cache_clear()


def test_seconds_are_scaled_by_the_yardstick(job, twice_as_slow):
    assert known.known_seconds(2)(job) == 3.0
    assert known.known_seconds(2)(replace(job, method="vae@shift=regression")) == 4.0
    estimate = Estimate(
        pd.DataFrame({"status": [], "job_id": [], "started": [], "finished": []}),
        {TASK: 1.0},
        None,
        known.known_seconds(1),
    )
    assert estimate.total([job], 1) == (pytest.approx(AROUND + BETWEEN + 3.0), KNOWN)


def test_other_settings_take_as_long_in_proportion_to_their_steps(job, twice_as_slow):
    wide = replace(job, method="vae@hidden=[8, 8]", config={**job.config, "hidden": (8, 8)})
    assert known.known_seconds(2)(wide) == 3.0
    longer = replace(job, method="vae@steps=5000", config={**job.config, "steps": 5 * job.config["steps"]})
    assert known.known_seconds(2)(longer) == pytest.approx(15.0)


def test_what_was_not_measured_is_not_known(job, twice_as_slow):
    assert known.known_seconds(2)(replace(job, method="pca", name="pca")) is None
    assert known.known_seconds(2)(replace(job, preset="paper")) is None
    assert known.known_seconds(2)(replace(job, own={"file": "x.h5ad"})) is None
    assert known.known_seconds(2)(replace(job, task="unseen-cell-type/kang")) is None


def test_the_table_that_is_shipped_knows_the_default_run():
    assert 1e-5 < known.yardstick(2) < 0.1
    vae = known._table()["seconds"]["default"][TASK]["vae"]
    assert 0.1 < vae < 60


def test_a_mean_is_of_jobs_that_were_begun():
    start = "2026-01-01T00:00:00+00:00"
    rows = pd.DataFrame(
        [
            ("a", "vae", start, "2026-01-01T00:00:04+00:00", 2),
            ("a", "vae", start, "2026-01-01T00:00:04+00:00", 2),
            ("b", "vae", start, "2026-01-01T00:00:01+00:00", 1),
            ("c", "vae", start, start, 1),
        ],
        columns=["job_id", "method", "started", "finished", "n_stacked"],
    ).assign(preset="default", task=TASK)
    assert measured(rows) == {"default": {TASK: {"vae": 1.5}}}
