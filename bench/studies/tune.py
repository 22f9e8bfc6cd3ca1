"""Tuning: the same number of trials for every method, chosen without ever seeing the held-out unit.

For each method, task and held-out unit there is one study. A trial is a configuration from the method's search space,
scored on other units that are left out one at a time (:meth:`tasks.base.Task.inner`), by the logarithm of its error,
as in the leaderboard; shares of the floor's error make metrics comparable. A trial that is below the median of the
earlier ones after the same inner units is given up. The first trial is the default, which is never given up, so that
what is chosen is no worse there.

Trials are jobs like any others: each in a process of its own with its limits, kept on disk, so that an interrupted
tuning goes on where it was. What was chosen becomes rows of the run beside the default's.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.text import Text

from bench.jobs.execute import Done, execute, executor_for, say_data, uri_of
from bench.jobs.executors import Executor
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
    import optuna

    from tasks.base import Task

#: Directory of studies and trials, in an out directory.
TUNING = "tuning"
#: Trials before the sampler's model is used, the default one among them, and before one can be given up.
STARTUP = 5

Scores = Mapping[str, float | None]


@dataclass
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
        The inner units, in the order in which trials meet them.
    trials
        Optuna's study.
    floors
        Scores of the floor on each inner unit.
    lacking
        Why nothing can be chosen; empty where something can.
    """

    default: Job
    floor: Job
    spec: MethodSpec
    space: Mapping[str, Search]
    folds: tuple[str, ...]
    trials: Any = None
    floors: list[Scores] = field(default_factory=list)
    lacking: str = ""

    @property
    def name(self) -> str:
        """The key of the study: everything that its trials depend on."""
        job = self.default
        about = {
            "space": {key: repr(search) for key, search in self.space.items()},
            "config": job.config,
            "digests": [job.method_digest, job.task_digest, job.data_digest, job.task_version],
            "folds": self.folds,
        }
        digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:12]
        return f"{self.spec.label} · {job.task} · {job.unit} · {job.preset} · {digest}"

    def job(self, config: Mapping[str, Any], fold: str = "") -> Job:
        """Return the job that scores a configuration on an inner unit, or on the held-out one itself."""
        return replace(self.default, config=dict(config), inner=fold, stack=()).with_id()

    def floor_on(self, fold: str = "") -> Job:
        """Return the floor's job on an inner unit, or on the held-out one itself."""
        return replace(self.floor, inner=fold, stack=()).with_id()

    def config(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Return the default configuration with some values changed.

        Raises
        ------
        methods.base.ConfigError
            The method allows none such.
        """
        job = self.default
        task = load_task(job.task, job.preset, job.own, job.draw)
        return method_config(self.spec.name, task, job.preset, {**self.spec.changes, **changes})

    def ended(self) -> list[Any]:
        """Return the trials but those that were cut off."""
        return [
            trial
            for trial in self.trials.get_trials(deepcopy=False)
            if trial.state.is_finished() and (trial.state.name != "FAIL" or "failed" in trial.user_attrs)
        ]


@dataclass(frozen=True)
class Chosen:
    """The outcome of a study: two configurations, and how its trials ended."""

    study: Study
    tuned: Mapping[str, Any]
    oracle: Mapping[str, Any]
    ends: Mapping[str, int]


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
    rng = np.random.default_rng(zlib.crc32(f"{job.task} {job.unit}".encode()))
    return tuple(str(unit) for unit in rng.permutation(index[key])[:n_folds])


def jobs_of(studies: Sequence[Study], n_trials: int) -> list[Job]:
    """Return as many jobs as a tuning has at most, for the estimate of its time.

    The configurations of trials are not known yet: each is the default here, with its number in place of the seed.
    """
    return [
        replace(study.job(study.default.config, fold), seed=number).with_id()
        for number in range(n_trials)
        for study in studies
        for fold in ("", *study.folds)
    ]


class Tuning:
    """Carries out studies side by side: the first trial of all, then the second of all, and so on.

    Parameters
    ----------
    studies
        From :func:`studies_of`.
    out
        The out directory; studies and trials are in its ``tuning``.
    executor
        Where trials run.
    estimate
        Estimate of the time that jobs take.
    console
        Console for progress.
    """

    def __init__(
        self,
        studies: Sequence[Study],
        out: Path,
        executor: Executor,
        estimate: Estimate,
        console: Console,
    ):
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.studies, self.executor = list(studies), executor
        self.estimate, self.console = estimate, console
        self.store = Store(out / TUNING)
        storage = optuna.storages.RDBStorage(f"sqlite:///{self.store.out / 'studies.db'}")
        pruner = optuna.pruners.MedianPruner(n_startup_trials=STARTUP)
        for study in self.studies:
            study.trials = optuna.create_study(
                storage=storage, study_name=study.name, direction="maximize", pruner=pruner, load_if_exists=True
            )
            for trial in study.trials.get_trials(deepcopy=False, states=[optuna.trial.TrialState.RUNNING]):
                # cut off: the next one is the same again, as samplers are seeded by the number of trials that ended
                study.trials.tell(trial.number, state=optuna.trial.TrialState.FAIL)

    def run(self, n_trials: int) -> list[Chosen]:
        """Carry out what is left of so many trials, and choose.

        Each configuration is scored on the held-out unit too, for the oracle alone. This happens while the trial's fits
        are on disk: where no unit is ever in training, the score needs the same fits.
        """
        self._score_floors()
        able = [study for study in self.studies if not study.lacking]
        for number in range(n_trials):
            left = [study for study in able if len(study.ended()) <= number]
            if left:
                ends, jobs = self._trial(left, number)
                self._results(jobs)
                shutil.rmtree(self.store.fits, ignore_errors=True)  # no later trial has the same configurations
                self._say(f"trial {number + 1} of {n_trials}: " + ", ".join(f"{n} {how}" for how, n in ends.items()))
        chosen = self._choose(able)
        shutil.rmtree(self.store.fits, ignore_errors=True)
        return chosen

    def _score_floors(self) -> None:
        results = self._results(study.floor_on(fold) for study in self.studies for fold in study.folds)
        for study in self.studies:
            for fold in study.folds:
                result = results[study.floor_on(fold).id]
                if result.status != Status.OK:
                    study.lacking = f"{FLOOR} on inner unit {fold}: {result.status} {result.reason}"
                study.floors.append(result.scores)

    def _trial(self, studies: Sequence[Study], number: int) -> tuple[Counter[str], list[Job]]:
        """Make one trial of each study, inner unit by inner unit.

        Returns
        -------
        tuple
            How they ended, and of those that did not fail the jobs on the held-out units.
        """
        import optuna

        ends: Counter[str] = Counter()
        tried: list[Job] = []
        running = list[tuple[Study, optuna.Trial, dict[str, Any], list[Scores]]]()

        def lose(study: Study, trial: optuna.Trial, reason: str) -> None:
            trial.set_user_attr("failed", reason)
            study.trials.tell(trial, state=optuna.trial.TrialState.FAIL)
            ends["failed"] += 1

        for study in studies:
            trial = _ask(study, number)
            try:
                running.append((study, trial, study.config(_suggested(study, trial)), []))
            except ConfigError as error:
                lose(study, trial, str(error))
        for step in range(max(len(study.folds) for study in studies)):
            jobs = [study.job(config, study.folds[step]) for study, _, config, _ in running]
            results = self._results(jobs)
            going_on = []
            for job, one in zip(jobs, running, strict=True):
                (study, trial, config, scores), result = one, results[job.id]
                scores.append(result.scores)
                value = skill(study.default.task, scores, study.floors)
                if result.status != Status.OK or not np.isfinite(value):
                    reason = result.reason or "a primary metric has no value"
                    lose(study, trial, f"inner unit {job.inner}: {result.status} {reason}")
                    continue
                trial.report(value, step)
                if step == len(study.folds) - 1:
                    study.trials.tell(trial, value)
                    tried.append(study.job(config))
                    ends["done"] += 1
                elif number and trial.should_prune():
                    study.trials.tell(trial, state=optuna.trial.TrialState.PRUNED)
                    tried.append(study.job(config))
                    ends["given up"] += 1
                else:
                    going_on.append(one)
            running = going_on
        return ends, tried

    def _choose(self, studies: Sequence[Study]) -> list[Chosen]:
        """Choose from what was tried: by the inner units, and, for the oracle, by the held-out unit itself."""
        import optuna

        tried = {
            study.name: {
                trial.number: study.config(json.loads(trial.user_attrs["changes"]))
                for trial in study.ended()
                if trial.state.name != "FAIL"
            }
            for study in studies
        }
        results = self._results(
            [study.job(config) for study in studies for config in tried[study.name].values()]
            + [study.floor_on() for study in studies]
        )
        chosen = []
        for study in studies:
            complete = study.trials.get_trials(deepcopy=False, states=[optuna.trial.TrialState.COMPLETE])
            if not complete:
                study.lacking = "no trial ended well"
                continue
            best = max(complete, key=lambda trial: (trial.value, -trial.number)).number
            here, floor = tried[study.name], results[study.floor_on().id].scores
            values = {
                n: skill(study.default.task, [results[study.job(config).id].scores], [floor])
                for n, config in here.items()
            }
            oracle = max(values, key=lambda n: (np.nan_to_num(values[n], nan=-np.inf), -n))
            ends = Counter(trial.state.name for trial in study.ended())
            chosen.append(Chosen(study, here[best], here[oracle], ends))
        return chosen

    def _results(self, jobs: Iterable[Job]) -> dict[str, Result]:
        """Return the results of jobs by id, running those that have none."""
        return run_jobs(jobs, self.store, self.executor, lambda: self.estimate, self.console)

    def _say(self, text: str) -> None:
        self.console.print(Text(text), soft_wrap=True)


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
        tried = Store(store.out / TUNING).gather().rows
        estimate = Estimate(tried if len(tried) else store.gather().rows, plan.sizes)
        jobs = jobs_of(studies, n_trials)
        seconds, basis = estimate.total(jobs, options.n_workers)
        text = f"{len(studies)} studies of {n_trials} trials, {len(jobs)} jobs at most, about {duration(seconds)} "
        console.print(Text(f"{text}({options.n_workers} at a time; {basis})"), soft_wrap=True)
        if dry_run:
            return Done(plan, store, uri_of(options), None)
        executor = executor_for(options, plan.sizes, lambda: estimate, console)
        with Interruptible():
            outcomes = Tuning(studies, store.out, executor, estimate, console).run(n_trials)
        for study in studies:
            if study.lacking:
                console.print(Text(f"not tuned  {study.name}: {study.lacking}"), style="red", soft_wrap=True)
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


def _ask(study: Study, number: int) -> optuna.Trial:
    """Return the next trial; what is asked depends on what the earlier ones gave and on nothing else."""
    import optuna

    seed = zlib.crc32(f"{study.spec.label} {study.default.task} {study.default.unit} {number}".encode())
    study.trials.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP)
    if number == 0:
        default = study.default.config
        study.trials.enqueue_trial(
            {key: json.dumps(default[key]) if one.choices else default[key] for key, one in study.space.items()}
        )
    return study.trials.ask()


def _suggested(study: Study, trial: optuna.Trial) -> dict[str, Any]:
    """Return what a trial changes, and note it there."""
    changes: dict[str, Any] = {}
    for key, search in study.space.items():
        if search.choices:
            changes[key] = json.loads(trial.suggest_categorical(key, [json.dumps(choice) for choice in search.choices]))
        elif isinstance(study.default.config[key], int):
            changes[key] = trial.suggest_int(key, int(search.low), int(search.high), log=search.log)
        else:
            changes[key] = trial.suggest_float(key, search.low, search.high, log=search.log)
    trial.set_user_attr("changes", json.dumps(changes))
    return changes
