"""Tuning: known answers, the same budget for all, nothing of the held-out unit, and going on after a stop."""

import json

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from bench.jobs.executors.inline import InlineExecutor
from bench.jobs.runner import run_jobs
from bench.keep.store import Store
from bench.plan import choose_methods, choose_own_tasks, choose_tasks, make_plan
from bench.plan.cost import Estimate
from bench.studies.tune import choose, jobs_of, skill, studies_of, trials_of
from methods import METHODS
from metrics import METRICS
from tasks import TASKS
from tasks.simulate.ifn import IFN

TASK = "unseen-cell-type/ifn-sim"
#: Its skill over the inner units is best near a strength of 1; above 1.5 it fails.
SHIFT = """
from dataclasses import dataclass

import numpy as np

from methods import register_method
from methods.base import Method, column, control, searched


@register_method
class Shift(Method):
    name = "shift"
    tags = frozenset({"planted"})

    @dataclass(frozen=True)
    class Config:
        strength: float = searched(0.0, 0.0, 2.0)

    def fit(self, data, seed):
        if self.config.strength > 1.5:
            raise RuntimeError("planted")
        environments, x = column(data, "environment"), np.asarray(data.X)
        start = x[environments == control(data)].mean(axis=0)
        self.shifts = {name: x[environments == name].mean(axis=0) - start for name in np.unique(environments)}
        return self

    def predict(self, data, target_environment):
        return np.asarray(data.X) + self.config.strength * self.shifts[target_environment]


@register_method
class Chooser(Shift):
    name = "chooser"

    @dataclass(frozen=True)
    class Config:
        strengths: tuple[float, ...] = searched((0.0, 0.0), choices=((0.0, 0.0), (1.0, 0.0)))

        @property
        def strength(self):
            return self.strengths[0]


@register_method
class Broken(Shift):
    name = "broken"

    def fit(self, data, seed):
        raise ArithmeticError("always")


@register_method
class Fixed(Shift):
    name = "fixed"

    @dataclass(frozen=True)
    class Config:
        strength: float = 0.5
"""


class Stopping(InlineExecutor):
    """Is interrupted before it runs one more job than it may."""

    def __init__(self, may=10**9):
        self.may, self.ran = may, []

    def run(self, jobs, store, on_start, on_done):
        for job in jobs:
            if len(self.ran) == self.may:
                raise KeyboardInterrupt
            super().run([job], store, on_start, on_done)
            self.ran.append(job)


def planned(plugin, names=None, own=None, methods="shift,fixed", folds=3):
    specs, plugins = choose_methods(methods, "smoke", [], [str(plugin)])
    plan = make_plan(specs, names or choose_tasks(TASK), "smoke", None, plugins, {}, own)
    studies, without = studies_of(plan, specs, folds, {})
    return plan, studies, without


def tuned(plan, studies, out, n_trials=8, executor=None):
    estimate = Estimate(pd.DataFrame({"status": []}).assign(job_id=[], started=[], finished=[]), plan.sizes)
    store, executor, console = Store(out), executor or Stopping(), Console(quiet=True)

    def run(jobs):
        return run_jobs(jobs, store, executor, lambda: estimate, console)

    chosen, lacking = choose(studies, n_trials, run, lambda text: None)
    assert not lacking
    return chosen


def of_one(out, study, job):
    """Results of a job's configuration on the inner units of a study."""
    return [Store(out).read(one.id) for one in study.jobs(job.config)[1:]]


@pytest.fixture(scope="module")
def shift(tmp_path_factory):
    """The plugin's file: one for all tests, as a method is registered once a process."""
    file = tmp_path_factory.mktemp("plugin") / "shift.py"
    file.write_text(SHIFT)
    return file


def test_the_best_on_the_inner_units_is_chosen_with_the_same_budget_for_all(shift, tmp_path):
    plan, studies, without = planned(shift)
    assert without == {"fixed": "nothing to tune"}
    assert [study.default.unit for study in studies] == ["draw0/type1", "draw0/type4"]
    executor = Stopping()
    chosen = tuned(plan, studies, tmp_path, n_trials=12, executor=executor)
    tried = {
        unit: {job.config["strength"] for job in executor.ran if job.method == "shift" and job.unit == unit}
        for unit in ("draw0/type1", "draw0/type4")
    }
    assert tried["draw0/type1"] == tried["draw0/type4"]
    assert len(tried["draw0/type1"]) == 12
    assert 0.0 in tried["draw0/type1"]  # the default
    for one in chosen:
        assert set(one.study.folds).isdisjoint({one.study.default.unit})
        assert one.tuned["strength"] == pytest.approx(1, abs=0.2)
        jobs = {job.config["strength"]: job for job in executor.ran if job.method == "shift" and job.inner}
        errors = {
            strength: np.mean([np.log(1 - result.scores["skill"]) for result in of_one(tmp_path, one.study, job)])
            for strength, job in jobs.items()
            if strength <= 1.5
        }
        assert one.tuned["strength"] == min(errors, key=errors.get)
        assert len(one.failed) == sum(strength > 1.5 for strength in tried["draw0/type1"]) > 0
        assert all("RuntimeError: planted" in reason for reason in one.failed)


def test_a_study_in_which_nothing_ends_well_says_why(inside, shift, tmp_path):
    done = inside("tune", "--methods", "shift,broken", "--plugin", shift, "--tasks", TASK, "--preset", "smoke",
               "--trials", 2, "--folds", 1, "--out", "out")  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr  # its default fails too
    assert "trial 2 of 2: 2 done, 2 failed" in done.stdout
    assert (
        "not tuned  broken · unseen-cell-type/ifn-sim · draw0/type1: no trial ended well; the first: inner unit"
        in done.stdout
    )
    assert "failed ArithmeticError: always" in done.stdout
    rows = pd.read_parquet(tmp_path / "out" / "results.parquet")
    assert {"shift@tuned", "broken"} <= set(rows["method"])
    assert "broken@tuned" not in set(rows["method"])


def test_what_was_chosen_becomes_rows_and_the_oracle_is_no_method(inside, shift, tmp_path):
    done = inside("tune", "--methods", "shift,fixed", "--plugin", shift, "--tasks", TASK, "--preset", "smoke",
               "--trials", 6, "--out", "out")  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "not tuned  fixed: nothing to tune" in done.stdout
    assert "Tuning without the held-out unit leaves 0." in done.stdout
    rows = pd.read_parquet(tmp_path / "out" / "results.parquet")
    roles = rows.groupby("method")["role"].first()
    assert roles.to_dict() == {
        "shift": "method", "shift@tuned": "method", "shift@oracle": "oracle", "fixed": "method",
        "floor": "reference", "baseline": "reference", "structure": "reference", "ceiling": "reference",
    }  # fmt: skip
    skill = rows[rows["metric"] == "skill"].pivot_table(index="unit", columns="method", values="value")
    assert (skill["shift@oracle"] >= skill["shift@tuned"]).all()
    assert (skill["shift@oracle"] >= skill["shift"]).all()
    assert (skill["shift@tuned"] > skill["shift"]).all()
    board = pd.read_csv(tmp_path / "out" / "leaderboard.csv").set_index("method")
    assert np.isnan(board.loc["shift@oracle", "rank_low"])
    assert board.loc["shift@tuned", "relative_error"] < board.loc["shift", "relative_error"]
    strength = json.loads(rows[rows["method"] == "shift@tuned"]["config"].iloc[0])["strength"]
    assert f"--set shift.strength={strength}" in rows[rows["method"] == "shift@tuned"]["replay"].iloc[0]
    job = rows[rows["method"] == "shift@tuned"]["job_id"].iloc[0]
    assert "agrees" in inside("replay", job, "--out", "out").stdout

    again = inside("tune", "--methods", "shift,fixed", "--plugin", shift, "--tasks", TASK, "--preset", "smoke",
                "--trials", 6, "--out", "out")  # fmt: skip
    assert "nothing to run: every job has its result" in again.stdout
    # two trials failed, and their jobs are tried again, as those of a run are
    assert "2 studies of 6 trials, 16 jobs to run" in again.stdout


def test_a_stopped_tuning_goes_on_to_the_same_choice(shift, tmp_path):
    plan, studies, _ = planned(shift)
    whole = tuned(plan, studies, tmp_path / "whole")
    executor = Stopping()
    for may in (3, 9, 14):
        plan, studies, _ = planned(shift)
        executor.may = may
        with pytest.raises(KeyboardInterrupt):
            tuned(plan, studies, tmp_path / "parts", executor=executor)
    executor.may = 10**9
    plan, studies, _ = planned(shift)
    parts = tuned(plan, studies, tmp_path / "parts", executor=executor)
    assert [(one.tuned, one.oracle, one.failed) for one in parts] == [
        (one.tuned, one.oracle, one.failed) for one in whole
    ]
    assert len({job.id for job in executor.ran}) == len(executor.ran)  # nothing was run twice


def test_more_trials_later_go_on_from_the_earlier_ones(shift, tmp_path):
    plan, studies, _ = planned(shift)
    at_once = tuned(plan, studies, tmp_path / "whole", n_trials=8)
    plan, studies, _ = planned(shift)
    tuned(plan, studies, tmp_path / "parts", n_trials=3)
    plan, studies, _ = planned(shift)
    later = tuned(plan, studies, tmp_path / "parts", n_trials=8)
    assert [one.tuned for one in later] == [one.tuned for one in at_once]


def test_the_choice_does_not_depend_on_the_held_out_jobs(shift, tmp_path):
    found = []
    for name in ("true", "altered"):
        data = IFN.make("smoke")
        data.X, data.uns = data.layers.pop("counts"), {}
        if name == "altered":
            held_out = (data.obs["cell_type"] == "type1").to_numpy()
            data.X[held_out] = 5 * data.X[held_out][:, ::-1]
        (tmp_path / name).mkdir()
        data.write_h5ad(tmp_path / name / "mine.h5ad")
        columns = {"condition": "condition", "cell_type": "cell_type", "control": "control"}
        names, own = choose_own_tasks("unseen-cell-type", str(tmp_path / name / "mine.h5ad"), columns, 0)
        plan, studies, _ = planned(shift, names, own)
        (study,) = (study for study in studies if study.default.unit == "type1")
        executor = Stopping()
        (chosen,) = tuned(plan, [study], tmp_path / name / "out", executor=executor)
        store = Store(tmp_path / name / "out")
        values = [(job.config, store.read(job.id).scores) for job in executor.ran if job.inner]
        found.append((chosen.tuned, values, chosen.oracle))
    assert found[0][:2] == found[1][:2]
    assert found[0][2] != found[1][2]  # the oracle does see them


@pytest.mark.parametrize("task", ["reembedding/pancancer-sim", "unseen-perturbation/doubles-sim", TASK,
                                  "few-shot-perturbation/sparse-shift", "unseen-cell-type/digits"])  # fmt: skip
def test_the_default_ood_tasks_can_be_nested(task):
    specs, plugins = choose_methods("dhsic-vae,trvae,svae-plus", "default", [])
    plan = make_plan(specs, [task], "smoke", 1, plugins, {})
    studies, without = studies_of(plan, specs, 3, {})
    assert studies
    assert not without
    for study in studies:
        assert study.folds
        assert study.default.unit not in study.folds
        assert not set(study.space) & {"n_latent"}
    assert len(jobs_of(studies, 2)) == 2 * sum(1 + len(study.folds) for study in studies)


def test_every_trial_counts_in_the_estimate(shift):
    plan, studies, _ = planned(shift)
    estimate = Estimate(pd.DataFrame({"status": []}).assign(job_id=[], started=[], finished=[]), plan.sizes)
    one, ten = (estimate.left(jobs_of(studies, trials), 1) for trials in (1, 10))
    assert ten == pytest.approx(10 * one)


def test_choices_are_searched_and_come_back_as_they_were(shift, tmp_path):
    plan, studies, _ = planned(shift, methods="chooser")
    chosen = tuned(plan, studies, tmp_path, n_trials=6)
    assert [one.tuned["strengths"] for one in chosen] == [[1.0, 0.0]] * 2
    assert all(one.study.configurations(1) == [one.study.default.config] for one in chosen)


def test_trials_fill_the_space_and_fewer_are_the_first_of_more():
    space = METHODS["umap"].search_space()
    trials = trials_of("umap", space, 33)
    assert trials[0] == {}
    assert trials_of("umap", space, 7) == trials[:7]
    assert trials_of("umap", space, 1) == [{}]
    neighbours = np.array([trial["n_neighbors"] for trial in trials[1:]])
    assert neighbours.dtype == int
    # 32 points of a Sobol sequence have one in every 32nd of the logarithm's range, up to rounding to two digits
    shares = (np.sort(np.log(neighbours)) - np.log(5)) / np.log(20)
    assert shares == pytest.approx((np.arange(32) + 0.5) / 32, abs=0.05)


def test_what_the_user_or_the_task_fixes_is_not_searched():
    specs, plugins = choose_methods("beta-vae@beta=2", "smoke", ["beta-vae.dropout=0.3"])
    plan = make_plan(specs, [TASK], "smoke", 1, plugins, {})
    studies, _ = studies_of(plan, specs, 3, {})
    assert set(studies[0].space) == {"learning_rate"}


def test_the_skill_is_minus_the_logarithm_of_the_share_of_the_floors_error():
    task = "unseen-cell-type/ifn-sim"
    floors = [{"skill": -3.0}, {"skill": -1.0}]
    half = [{"skill": -1.0}, {"skill": 0.0}]  # errors 2 of 4 and 1 of 2
    assert skill(task, half, floors) == pytest.approx(np.log(2))
    assert skill(task, floors, floors) == 0
    assert skill(task, half[:1], floors) == pytest.approx(np.log(2))
    assert skill(task, [{"skill": 1.0}], floors) == pytest.approx(np.log(1000))  # perfect
    assert np.isnan(skill(task, [{"skill": None}], floors))


def test_where_both_metrics_are_needed_the_worse_one_counts():
    task = "reembedding/pancancer-sim"
    first, second = TASKS["reembedding"].primary
    best = {name: METRICS[name].info.high if METRICS[name].info.better == "higher" else 0.0 for name in (first, second)}
    sign = {name: -1 if METRICS[name].info.better == "higher" else 1 for name in (first, second)}
    floor = {name: best[name] + sign[name] * 0.8 for name in (first, second)}
    one = {first: best[first] + sign[first] * 0.1, second: best[second] + sign[second] * 0.4}
    assert skill(task, [one], [floor]) == pytest.approx(np.log(2))


@pytest.mark.parametrize("name", sorted(METHODS))
def test_search_spaces_hold_the_default_and_nothing_that_is_refused(name):
    cls = METHODS[name]
    default = cls.configure()
    for key, search in cls.search_space().items():
        value = getattr(default, key)
        if search.choices:
            assert value in search.choices
            continue
        assert search.low <= value <= search.high
        assert search.low > 0 or not search.log
        for end in (search.low, search.high):
            cls.configure(**{key: type(value)(end)})


def test_bad_input_is_one_message(inside, tmp_path):
    done = inside("tune", "--methods", "pca", "--tasks", TASK, "--out", "out")
    assert done.returncode == 2
    assert "not tuned  pca: nothing to tune" in done.stdout
    assert "error: nothing can be tuned here" in done.stderr
    done = inside("tune", "--methods", "vae", "--tasks", "latent-recovery", "--preset", "smoke", "--out", "out")
    assert done.returncode == 2
    assert "latent-recovery cannot be nested" in done.stdout
    assert inside("tune", "--methods", "vae", "--tasks", TASK, "--trials", 0, "--out", "out").returncode == 2
    dry = inside("tune", "--methods", "vae", "--tasks", TASK, "--trials", 7, "--preset", "smoke", "--out", "out",
              "--dry-run")  # fmt: skip
    assert dry.returncode == 0
    assert "2 studies of 7 trials, 56 jobs to run" in dry.stdout  # each on three inner units and the held-out one
    assert not list((tmp_path / "out" / "jobs").iterdir())


def test_own_data_can_be_tuned_on(inside, shift, tmp_path):
    data = IFN.make("smoke")
    data.X, data.uns = data.layers.pop("counts"), {}
    data.write_h5ad(tmp_path / "mine.h5ad")
    done = inside("tune", "--methods", "shift", "--plugin", shift, "--tasks", "unseen-cell-type", "--data", "mine.h5ad",
               "--condition", "condition", "--cell-type", "cell_type", "--control", "control", "--trials", 3,
               "--folds", 1, "--preset", "smoke", "--out", "out")  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "shift@tuned" in (tmp_path / "out" / "leaderboard.csv").read_text()
