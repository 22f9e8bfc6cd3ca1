"""Tuning: the same configurations for every unit, and the choice among them without ever seeing the held-out unit.

For each method, task and held-out unit there is one study. A trial is a configuration from the method's search space,
scored on other units that are left out one at a time (:meth:`tasks.base.Task.inner`), by the logarithm of its error,
as in the leaderboard; shares of the floor's error make metrics comparable. The first trial is the default, so that
what is chosen is no worse there; the others fill the search space and depend on the method alone, so that units whose
cells are in no fit share the fits of a trial.

Trials are jobs like any others: each in a process of its own with its limits, kept on disk, so that an interrupted
tuning goes on where it was. What was chosen becomes rows of the run beside the default's.
"""

from __future__ import annotations

import shutil
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.text import Text

from bench.jobs.execute import Done, execute, executor_for, say_data, uri_of
from bench.jobs.progress import duration
from bench.jobs.runner import Interruptible, run_jobs
from bench.keep.store import Store
from bench.options import Options
from bench.plan import method_config
from bench.plan.cost import Estimate
from bench.records import ORACLE, TUNED, Job, MethodSpec, Plan, PlanError, Result, Status
from leaderboard.table import FLOOR
from methods import METHODS
from methods.base import Search
from methods.errors import ConfigError
from metrics import METRICS
from tasks import TASKS, load_task
from tasks.datasets.base import DataError

if TYPE_CHECKING:
    from tasks.base import Task

#: Directory of trials, in an out directory.
TUNING = "tuning"

Scores = Mapping[str, float | None]
RunJobs = Callable[[Iterable[Job]], Mapping[str, Result]]


@dataclass(frozen=True)
class Study:
    """The trials of one method on one task and held-out unit.

    Attributes
    ----------
    default, floor
        The jobs of method and floor on the unit, seed 0.
    spec
        The method, with what the user fixed.
    space
        The keys that can be changed.
    folds
        The inner units.
    """

    default: Job
    floor: Job
    spec: MethodSpec
    space: Mapping[str, Search]
    folds: tuple[str, ...]

    @property
    def title(self) -> str:
        """The study in words."""
        return f"{self.spec.label} · {self.default.task} · {self.default.unit}"

    def jobs(self, config: Mapping[str, Any] | str) -> list[Job]:
        """Return the jobs that score a configuration: on the held-out unit, then on the inner ones; none if refused."""
        if isinstance(config, str):
            return []
        on = ("", *self.folds)
        return [replace(self.default.alone(), config=dict(config), inner=fold).with_id() for fold in on]

    def floor_on(self, fold: str) -> Job:
        """Return the floor's job on an inner unit, or on the held-out one where it is empty."""
        return replace(self.floor, inner=fold).with_id()

    def configurations(self, n_trials: int) -> list[dict[str, Any] | str]:
        """Return the configuration of each trial, the default first, or why the method refuses it."""
        job = self.default
        task = load_task(job.task, job.preset, job.own, job.draw)
        found: list[dict[str, Any] | str] = []
        for changes in trials_of(self.spec.name, self.space, n_trials):
            try:
                found.append(method_config(self.spec.name, task, job.preset, {**self.spec.changes, **changes}))
            except ConfigError as error:
                found.append(str(error))
        return found


@dataclass(frozen=True)
class Trial:
    """A configuration that was tried, with its skill over the inner units and on the held-out one."""

    config: Mapping[str, Any]
    inside: float
    held_out: float


@dataclass(frozen=True)
class Chosen:
    """The outcome of a study: two configurations, and why trials failed."""

    study: Study
    tuned: Mapping[str, Any]
    oracle: Mapping[str, Any]
    failed: tuple[str, ...]


def trials_of(method: str, space: Mapping[str, Search], n_trials: int) -> list[dict[str, Any]]:
    """Return what each trial changes: nothing in the first, then the points of a Sobol sequence over the space.

    More trials begin with the same ones as fewer.
    """
    from scipy.stats import qmc

    # as many points as a power of two: a sequence is balanced at those
    sampler = qmc.Sobol(len(space), seed=zlib.crc32(method.encode()))
    points = sampler.random_base2(max(n_trials - 1, 1).bit_length())[: n_trials - 1]
    default = METHODS[method].configure()
    return [
        {},
        *(
            {key: _at(space[key], x, type(getattr(default, key))) for key, x in zip(space, point, strict=True)}
            for point in points
        ),
    ]


def _at(search: Search, share: float, kind: type) -> Any:
    """Return the value that lies at ``share`` of the way through a range, to two digits; of choices one."""
    if search.choices:
        return search.choices[int(share * len(search.choices))]
    low, high = np.log([search.low, search.high]) if search.log else (search.low, search.high)
    value = low + share * (high - low)
    return kind(float(f"{np.exp(value) if search.log else value:.2g}"))


def studies_of(
    plan: Plan, specs: Sequence[MethodSpec], n_folds: int, index: dict[str, Any]
) -> tuple[list[Study], dict[str, str]]:
    """Return the studies of a plan, and which methods or tasks have none, and why.

    Parameters
    ----------
    plan
        From :func:`bench.plan.make_plan`.
    specs
        Its methods.
    n_folds
        Inner units of a study at most; the same ones for every method.
    index
        Facts about tasks, as for :func:`bench.plan.make_plan`; new ones are added in place.
    """
    by_label = {spec.label: spec for spec in specs}
    floors = {(job.task, job.unit): job for job in plan.jobs if job.role == "reference" and job.method == FLOOR}
    found, without = list[Study](), dict[str, str]()
    tasks: dict[tuple[str, int | None], Task] = {}
    for job in plan.jobs:
        if job.method not in by_label or job.skip or job.seed:  # a reference, or a variant that the task asks for
            continue
        at = job.task, job.draw
        if at not in tasks:
            tasks[at] = load_task(job.task, job.preset, job.own, job.draw)
        task, spec = tasks[at], by_label[job.method]
        fixed = {*spec.changes, *task.settings}
        space = {key: search for key, search in METHODS[spec.name].search_space().items() if key not in fixed}
        if not space:
            without[job.method] = "nothing to tune"
            continue
        try:
            folds = _folds(task, job, n_folds, index)
        except DataError as error:
            without[job.task] = str(error)
            continue
        found.append(Study(job, floors[job.task, job.unit], spec, space, folds))
    return found, without


def _folds(task: Task, job: Job, n_folds: int, index: dict[str, Any]) -> tuple[str, ...]:
    """Return the inner units of a held-out one, or as many of them as are asked for, the same for all methods."""
    key = f"inner {job.task} {job.preset} {job.unit} {job.task_digest} {job.data_digest}"
    if key not in index:
        index[key] = task.inner(job.held_out).units()
    rng = np.random.default_rng(zlib.crc32(job.task.encode()))  # alike for all units, which may then share fits
    return tuple(str(unit) for unit in rng.permutation(index[key])[:n_folds])


def jobs_of(studies: Sequence[Study], n_trials: int) -> list[Job]:
    """Return the jobs of all trials."""
    return [job for study in studies for config in study.configurations(n_trials) for job in study.jobs(config)]


def choose(
    studies: Sequence[Study], n_trials: int, run: RunJobs, after_trial: Callable[[str], None]
) -> tuple[list[Chosen], dict[str, str]]:
    """Carry out the trials, the first one of all studies, then the second of all, and choose from them.

    Each configuration is scored on the held-out unit too, for the oracle alone. This happens while the trial's fits
    are on disk: where no unit is ever in training, the score needs the same fits.

    Parameters
    ----------
    run
        Returns the results of jobs by id, running those that have none.
    after_trial
        Called after each trial of all studies, with a sentence that says how they ended.

    Returns
    -------
    tuple
        What was chosen, and the titles of studies in which nothing can be, with the reason.
    """
    floors, lacking = dict[str, list[Scores]](), dict[str, str]()
    results = run(study.floor_on(fold) for study in studies for fold in ("", *study.folds))
    for study in studies:
        found = [results[study.floor_on(fold).id] for fold in ("", *study.folds)]
        floors[study.title] = [result.scores for result in found]
        if bad := [result for result in found if result.status != Status.OK]:
            lacking[study.title] = f"{FLOOR} on unit {bad[0].job.inner or study.default.unit}: {_why(bad[0])}"
    able = [study for study in studies if study.title not in lacking]
    tried: dict[str, list[Trial]] = {study.title: [] for study in able}
    failed: dict[str, list[str]] = {study.title: [] for study in able}
    configurations = {study.title: study.configurations(n_trials) for study in able}
    for number in range(n_trials):
        results = run(job for study in able for job in study.jobs(configurations[study.title][number]))
        ends = Counter[str]()
        for study in able:
            trial = _trial(study, configurations[study.title][number], results, floors[study.title])
            if isinstance(trial, str):
                failed[study.title].append(trial)
            else:
                tried[study.title].append(trial)
            ends["failed" if isinstance(trial, str) else "done"] += 1
        after_trial(f"trial {number + 1} of {n_trials}: " + ", ".join(f"{n} {how}" for how, n in ends.items()))
    chosen = []
    for study in able:
        if trials := tried[study.title]:
            # the earlier one of equals
            tuned = max(trials, key=lambda trial: trial.inside)
            oracle = max(trials, key=lambda trial: trial.held_out)
            chosen.append(Chosen(study, tuned.config, oracle.config, tuple(failed[study.title])))
        else:
            lacking[study.title] = f"no trial ended well; the first: {failed[study.title][0]}"
    return chosen, lacking


def _trial(
    study: Study, config: Mapping[str, Any] | str, results: Mapping[str, Result], floors: Sequence[Scores]
) -> Trial | str:
    """Return how a configuration did, or why its trial failed."""
    if isinstance(config, str):
        return config
    held_out, *inner = (results[job.id] for job in study.jobs(config))
    if bad := [result for result in inner if result.status != Status.OK]:
        return f"inner unit {bad[0].job.inner}: {_why(bad[0])}"
    inside = skill(study.default.task, [result.scores for result in inner], floors[1:])
    if not np.isfinite(inside):
        return "a primary metric has no value on an inner unit"
    there = skill(study.default.task, [held_out.scores], floors[:1])
    return Trial(config, inside, there if np.isfinite(there) else -np.inf)


def _why(result: Result) -> str:
    return f"{result.status} {result.reason}"


def tune(options: Options, n_trials: int, n_folds: int, console: Console, dry_run: bool = False) -> Done:
    """Tune the methods of a request, then run them at their defaults, tuned, and as oracles.

    Parameters
    ----------
    options
        The request; its executor carries out the trials too.
    n_trials
        Number of trials of each study.
    n_folds
        Inner units of a study at most.
    console
        Console for progress.
    dry_run
        Only say how much there is to do.

    Raises
    ------
    bench.records.PlanError, bench.keep.store.StoreError, bench.jobs.executors.ExecutorError, tasks.datasets.DataError
        It cannot be done as it is asked for; nothing has been run.
    """
    chosen = options.chosen  # first: what cannot be chosen makes no directory
    store = Store(options.out)
    with store.lock():
        index = store.index()
        plan = options.plan(index)
        say_data(plan, chosen.own, console)
        studies, without = studies_of(plan, chosen.methods, n_folds, index)
        store.write_index(index)
        for name, reason in without.items():
            console.print(Text(f"not tuned  {name}: {reason}"), style="yellow", soft_wrap=True)
        if not studies:
            raise PlanError("nothing can be tuned here; see above")
        trials = Store(store.out / TUNING)
        tried = trials.gather().rows
        estimate = Estimate(tried if len(tried) else store.gather().rows, plan.sizes)
        jobs = [job for job in jobs_of(studies, n_trials) if trials.finished(job.id) is None]
        seconds, basis = estimate.total(jobs, options.n_workers)
        text = f"{len(studies)} studies of {n_trials} trials, {len(jobs)} jobs to run, about {duration(seconds)} "
        console.print(Text(f"{text}({options.n_workers} at a time; {basis})"), soft_wrap=True)
        if dry_run:
            return Done(plan, store, uri_of(options), None)
        executor = executor_for(options, plan.sizes, lambda: estimate, console)

        def run(jobs: Iterable[Job]) -> Mapping[str, Result]:
            return run_jobs(jobs, trials, executor, lambda: estimate, console)

        def after_trial(text: str) -> None:
            shutil.rmtree(trials.fits, ignore_errors=True)  # no later trial has the same configurations
            console.print(Text(text), soft_wrap=True)

        with Interruptible():
            outcomes, lacking = choose(studies, n_trials, run, after_trial)
        for study, reason in lacking.items():
            console.print(Text(f"not tuned  {study}: {reason}"), style="red", soft_wrap=True)
        plan = replace(plan, jobs=(*plan.jobs, *tuned_jobs(plan, outcomes)))
        title = f"{options.methods} tuned × {options.tasks} ({options.preset})"
        return execute(plan, store, executor, options, console, title)


def tuned_jobs(plan: Plan, chosen: Sequence[Chosen]) -> list[Job]:
    """Return the jobs of tuned methods and of oracles, for every seed of the plan."""
    by_place = {(one.study.default.method, one.study.default.task, one.study.default.unit): one for one in chosen}
    jobs = []
    for job in plan.jobs:
        one = by_place.get((job.method, job.task, job.unit)) if job.role == "method" else None
        if one is not None:
            job = replace(job, stack_units=())  # each unit has a configuration of its own
            tuned = replace(job, method=job.method + TUNED, config=dict(one.tuned))
            oracle = replace(job, role="oracle", method=job.method + ORACLE, config=dict(one.oracle))
            jobs += [tuned.with_id(), oracle.with_id()]
    return jobs


def skill(task: str, scores: Sequence[Scores], floors: Sequence[Scores]) -> float:
    """Return −log of a method's error over the first units, as a share of the floor's; NaN where a value is missing.

    The geometric mean over units; where the task needs both of its primary metrics, of the one in which it is worse,
    else over the metrics too. An error counts as a thousandth of the floor's at least.
    """
    cls = TASKS[task.partition("/")[0]]
    pairs = list(zip(scores, floors, strict=False))
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = [
            [np.divide(_error(metric, one), _error(metric, floor)) for metric in cls.primary] for one, floor in pairs
        ]
        logs = np.log(np.maximum(shares, 1e-3)).mean(axis=0)
    return -float(logs.max() if cls.two_sided else logs.mean())


def _error(metric: str, scores: Scores) -> float:
    """Return the distance of a value from the best possible one; NaN where it is missing."""
    info, value = METRICS[metric].info, scores.get(metric)
    return float("nan") if value is None else abs(value - (info.high if info.better == "higher" else info.low))
