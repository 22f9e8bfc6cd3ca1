"""Jobs that differ by their seed, on a GPU also by their unit, are fitted in one pass."""

import json
from dataclasses import replace

import pandas as pd
import pytest

from bench.jobs.fits import fit_stack
from bench.jobs.job import run_stack
from bench.jobs.stacked import Stack
from bench.keep.archive import results as archived
from bench.keep.store import Store, gather
from bench.plan import choose_methods, choose_tasks, make_plan
from bench.plan.cost import Estimate
from bench.plan.cross import _beside
from bench.plan.order import stacks
from bench.records import Result
from bench.studies.replay import SAME, replay
from methods.base import Method
from methods.errors import CannotFit
from tasks import load_task

TASK = "reembedding/pancancer-sim"
SMALL = ("--tasks", TASK, "--preset", "smoke", "--draws", "1")
TOGETHER = """
import os
import numpy as np
from methods import register_method
from methods.base import Method


class Mean(Method):
    tags = frozenset({"planted"})

    def fit(self, data, seed):
        if seed == 1 and os.environ.get("FATAL"):
            os._exit(9)
        self.seed = seed
        return self

    @classmethod
    def fit_stacked(cls, methods, datasets, seeds):
        errors = []
        for method, data, seed in zip(methods, datasets, seeds, strict=True):
            method.fit(data, seed)
            errors.append(FloatingPointError("planted") if seed == 2 else None)
        return errors

    def embed(self, data):
        first = self.seed % 10
        return np.asarray(data.X)[:, first : first + 2]

    def state(self):
        return {"seed": self.seed}

    def restore(self, state):
        self.seed = state["seed"]


@register_method
class Fine(Mean):
    name = "fine"
    stackable = True
"""


def jobs_of(methods, n_seeds=3, plugins=()):
    specs, plugins = choose_methods(methods, "smoke", [], plugins)
    plan = make_plan(specs, choose_tasks(TASK), "smoke", n_seeds, plugins, {})
    return [job for job in plan.jobs if job.unit == "draw0/cancer0"]


def test_the_plan_says_which_seeds_are_fitted_in_one_stack():
    jobs = {(job.method, job.seed): job for job in jobs_of("vae,gamma-vae,pca", n_seeds=11)}
    assert jobs["vae", 0].stack == jobs["vae", 7].stack == tuple(range(8))
    assert jobs["vae", 9].stack == (8, 9, 10)
    assert {job.stack for (method, _), job in jobs.items() if method != "vae"} == {()}
    (alone,) = [job for job in jobs_of("vae", n_seeds=1) if job.method == "vae"]
    assert alone.stack == ()
    assert alone.id == jobs["vae", 0].id
    by_stack = [[job.seed for job in one] for one in stacks([jobs["vae", i] for i in (0, 9, 3, 10)])]
    assert by_stack == [[0, 3], [9, 10]]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Three seeds of a network on one unit."""
    store = Store(tmp_path_factory.mktemp("made") / "out")
    jobs = [job for job in jobs_of("vae") if job.method == "vae"]
    for result in run_stack(jobs, store.fits):
        store.write(result)
    return store, jobs


def test_rows_are_as_if_run_alone_and_marked(made):
    store, jobs = made
    results = [store.read(job.id) for job in jobs]
    assert [result.status for result in results] == ["ok"] * 3
    # each seed has three fits, two with the unit; all cost the same share of their pass
    assert len({result.fit_seconds for result in results}) == 1
    assert set(store.gather().rows["n_stacked"]) == {3}
    for job, result in zip(jobs, results, strict=True):
        (alone,) = run_stack([replace(job, stack=())], None)
        assert alone.scores.keys() == result.scores.keys()
        assert alone.curves.keys() == result.curves.keys()
        first = [curve[0] for curve in alone.curves.values()]
        assert [curve[0] for curve in result.curves.values()] == pytest.approx(first, rel=1e-5)


def test_a_row_of_a_table_says_which_seeds_were_stacked(made):
    store, jobs = made
    store.gather()
    told = {result.job.id: result.job.stack for result in archived(store.parquet)}
    assert told == {job.id: (0, 1, 2) for job in jobs}
    row = next(archived(store.parquet))
    assert {verdict for *_, verdict in replay(row).scores.values()} == {SAME}
    rows = pd.read_parquet(store.parquet)
    file = store.out / "gpu.parquet"
    rows.assign(log="trained on a GPU: …", n_stacked=48).to_parquet(file)
    assert {result.job.stack for result in archived(file)} == {()}


def test_one_job_again_takes_part_in_the_same_pass(made):
    store, jobs = made
    before = store.read(jobs[1].id)
    done = replay(Result.from_json(json.loads(json.dumps(before.to_json()))))
    assert {verdict for *_, verdict in done.scores.values()} == {SAME}
    kept = len(list(store.fits.glob("*.safetensors")))
    (again,) = run_stack([jobs[1]], store.fits)
    assert again.scores == before.scores
    assert again.fit_seconds == before.fit_seconds
    assert len(list(store.fits.glob("*.safetensors"))) == kept == 9


@pytest.mark.slow
def test_processes_and_threads_give_the_same_bits_and_a_lost_result_comes_back(inside, tmp_path):
    run = ("run", "--methods", "trvae,pca", *SMALL, "--seeds", "2")
    assert inside(*run, "--out", "a", "--executor", "inline").returncode == 0
    assert inside(*run, "--out", "b", "--jobs", "2").returncode == 0
    first, second = (rows_of(tmp_path / name) for name in "ab")
    pd.testing.assert_series_equal(first["value"], second["value"])
    lost = first[(first["method"] == "trvae") & (first["seed"] == 1)].index.get_level_values("job_id")[0]
    (tmp_path / "b" / "jobs" / f"{lost}.json").unlink()
    for file in (tmp_path / "b" / "fits").glob("*.safetensors"):
        file.unlink()
    done = inside(*run, "--out", "b", "--jobs", "2")
    assert done.returncode == 0, done.stdout
    pd.testing.assert_series_equal(rows_of(tmp_path / "b")["value"], first["value"])


def rows_of(directory):
    return pd.read_parquet(directory / "results.parquet").set_index(["job_id", "metric"]).sort_index()


def test_a_failed_replica_fails_its_own_job(inside, tmp_path, plugin):
    file = plugin(TOGETHER)
    done = inside("run", "--methods", f"{file}:Fine", *SMALL, "--seeds", "3", "--out", "out")
    assert done.returncode == 1
    rows = rows_of(tmp_path / "out").query("method == 'fine'").drop_duplicates(["unit", "seed"])
    assert rows.groupby("seed")["status"].unique().map(list).to_dict() == {0: ["ok"], 1: ["ok"], 2: ["failed"]}
    assert set(rows.query("seed == 2")["reason"]) == {"FloatingPointError: planted"}


def test_when_the_process_of_a_pass_dies_each_job_is_run_alone(inside, tmp_path, plugin):
    file = plugin(TOGETHER)
    done = inside("run", "--methods", f"{file}:Fine", *SMALL, "--seeds", "2", "--out", "out", FATAL="1")
    assert done.returncode == 1
    rows = rows_of(tmp_path / "out").query("method == 'fine'").drop_duplicates(["unit", "seed"])
    assert rows.groupby("seed")["status"].unique().map(list).to_dict() == {0: ["ok"], 1: ["failed"]}
    assert set(rows["n_stacked"]) == {1}
    assert set(rows.query("seed == 1")["reason"].str.contains("ended with code 9")) == {True}


# --- units and draws, as on a GPU


def planned(stacked, methods="vae", preset="default", seeds=2, draws=(0, 3)):
    """Return the jobs of methods on two units (one at the preset smoke) of each draw."""
    specs, plugins = choose_methods(methods, preset, [])
    plan = make_plan(specs, choose_tasks(TASK), preset, seeds, plugins, {}, draws=draws, stacked=stacked)
    return [job for job in plan.jobs if job.role == "method"]


def test_units_of_a_draw_or_of_all_draws_go_into_one_stack():
    units = [f"draw{draw}/cancer{i}" for draw in (0, 3) for i in (0, 4)]
    by_seeds, by_units, by_draws = (planned(stacked) for stacked in ("seeds", "units", "draws"))
    assert [job.id for job in by_seeds] == [job.id for job in by_units] == [job.id for job in by_draws]
    assert {job.stack_units for job in by_seeds} == {()}
    assert {job.unit: job.stack_units for job in by_units} == {
        unit: tuple(units[:2]) if "draw0" in unit else tuple(units[2:]) for unit in units
    }
    assert {job.stack_units for job in by_draws} == {tuple(units)}
    assert [len(jobs) for jobs in stacks(by_draws)] == [8]
    assert [len(jobs) for jobs in stacks(by_units)] == [4, 4]
    (job, *_) = by_draws
    assert [sibling.id for sibling in job.stacked()] == [other.id for other in by_draws]
    places = [(draw, f"cancer{i}") for draw in (0, 3) for i in (0, 4)]
    assert [(sibling.draw, sibling.held_out) for sibling in job.stacked()[::2]] == places
    assert type(job).from_json(json.loads(json.dumps(Result(job=job, status="ok").to_json()))["job"]) == job
    assert job.n_stacked == 8
    assert job.alone().n_stacked == 1


def test_a_method_whose_fits_cannot_be_stacked_has_no_units_beside_it():
    assert {job.stack_units for job in planned("draws", methods="gamma-vae,pca")} == {()}


def test_memory_bounds_the_units_of_a_stack():
    jobs = planned("seeds", draws=range(40))
    most = [len(job.stack_units) * len(job.stack) for job in _beside(jobs, 0.01, True)]
    assert (max(most), len(set(most))) == (64, 2), "64 fits at most; 80 units of two seeds are 64, 64 and 32"
    assert {job.n_stacked for job in _beside(jobs, 10.0, True)} == {10}, "100 million values are 10 fits of 10"
    assert {job.n_stacked for job in _beside(jobs, 60.0, True)} == {2}
    assert {job.stack_units for job in _beside(jobs, 60.0, True)} == {()}


def test_what_is_left_of_a_stack_of_units_pays_for_all_of_it():
    jobs = planned("draws")
    estimate = Estimate(gather([]).rows, {TASK: 1.0}, known=lambda job: 3.0)
    assert estimate.costs(jobs) == {job.id: 3.0 for job in jobs}
    assert estimate.costs(jobs[:2]) == {job.id: 12.0 for job in jobs[:2]}


def test_jobs_of_other_units_and_draws_in_one_stack_are_as_if_run_alone(made):
    store, _ = made
    jobs = planned("draws", preset="smoke")
    results = list(run_stack(jobs, store.fits))
    assert [result.job.id for result in results] == [job.id for job in jobs]
    assert {result.status for result in results} == {"ok"}
    assert {row["n_stacked"] for result in results for row in result.rows("")} == {4}
    for result in results[::3]:
        (alone,) = run_stack([result.job.alone()], None)
        assert [curve[0] for curve in result.curves.values()] == pytest.approx(
            [curve[0] for curve in alone.curves.values()], rel=1e-5
        )
    (again,) = run_stack([jobs[2]], store.fits)
    assert again.scores == results[2].scores, "from disk, or the whole stack again"


def test_units_that_share_their_cells_are_one_fit(tmp_path):
    specs, plugins = choose_methods("vae", "smoke", [])
    plan = make_plan(specs, ["unseen-cell-type/ifn-sim"], "smoke", 1, plugins, {}, draws=[0], stacked="draws")
    jobs = [job for job in plan.jobs if job.method == "vae"]
    assert len(jobs) == 2
    results = list(run_stack(jobs, tmp_path))
    assert [result.status for result in results] == ["ok", "ok"]
    assert len(list(tmp_path.glob("*.safetensors"))) == 1
    assert results[0].curves == results[1].curves
    assert results[0].scores != results[1].scores
    assert [result.scores for result in run_stack(jobs, None)] == [result.scores for result in results]


def test_a_run_on_a_gpu_has_one_process_for_all_units(inside, tmp_path, monkeypatch):
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho NVIDIA A0\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    run = ("run", "--methods", "vae", "--tasks", TASK, "--preset", "smoke", "--executor", "inline")
    assert inside(*run, "--draws", "2", "--out", "draws").returncode == 0
    rows = rows_of(tmp_path / "draws").query("method == 'vae'").reset_index()
    assert (set(rows["n_stacked"]), rows["unit"].nunique()) == ({2}, 2)


# --- meeting


@pytest.fixture
def cells():
    return load_task(TASK, "smoke").data


class Recorded(Method):
    name = "recorded"

    def fit(self, data, seed):
        self.alone = (data, seed)
        return self


def test_jobs_meet_at_each_fit_and_one_that_ends_early_keeps_none_waiting():
    met = []
    stack = Stack(lambda requests: met.append([(one.data, one.seed) for one in requests]))

    def work(seed):
        fits = [stack.fit(Recorded(), f"data {i}", seed) for i in range(seed + 1)]
        if seed == 1:
            raise KeyError("planted")
        return len(fits)

    with pytest.raises(KeyError, match="planted"):
        stack.run([lambda seed=seed: work(seed) for seed in range(3)])
    assert met == [
        [("data 0", 0), ("data 0", 1), ("data 0", 2)],
        [("data 1", 1), ("data 1", 2)],
        [("data 2", 2)],
    ]


@pytest.mark.parametrize("error", [CannotFit, MemoryError])
def test_fits_that_cannot_be_made_in_one_stack_are_made_alone(error, cells):
    class Several(Recorded):
        @classmethod
        def fit_stacked(cls, methods, datasets, seeds):
            raise error

    stack = Stack(lambda requests: fit_stack(Several, {}, None, requests))
    works = [lambda seed=seed: stack.fit(Several(), cells, seed)[0].alone for seed in range(2)]
    assert stack.run(works) == [(cells, 0), (cells, 1)]


def test_other_errors_of_a_pass_are_not_hidden(cells):
    class Broken(Recorded):
        @classmethod
        def fit_stacked(cls, methods, datasets, seeds):
            raise ValueError("planted")

    stack = Stack(lambda requests: fit_stack(Broken, {}, None, requests))
    with pytest.raises(ValueError, match="planted"):
        stack.run([lambda: stack.fit(Broken(), cells, 0)])
