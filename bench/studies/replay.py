"""One stored job again: the same code, data, configuration and seed should give the same scores."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.environment import describe
from bench.jobs.job import run_stack
from bench.keep.store import StoreError
from bench.plan.digests import source_digest, task_digests
from bench.plan.plugins import load_plugin
from bench.records import Job, Result
from methods import METHODS
from tasks import load_task
from tasks.datasets import DataError

#: Differences up to this, absolute or relative, are put down to the order of floating point operations.
TOLERANCE = 1e-6
#: Names that an error lists at most.
MOST_LISTED = 20

SAME, CLOSE, DIFFERENT = "bit-identical", f"within {TOLERANCE:g}", "differs"


@dataclass(frozen=True)
class Replay:
    """A stored result beside a new one.

    Attributes
    ----------
    job
        The job.
    changes, elsewhere
        Changes since the job ran: code, data, libraries, machine; and whether libraries or machine are among them.
    stored, result
        The two results.
    scores
        For each metric the stored value, the new one, and whether they agree.
    """

    job: Job
    changes: list[str]
    elsewhere: bool
    stored: Result
    result: Result
    scores: dict[str, tuple[float | None, float | None, str]] = field(default_factory=dict)

    @property
    def agrees(self) -> bool:
        """Whether the job ended as it did, with the same scores."""
        alike = all(verdict != DIFFERENT for *_, verdict in self.scores.values())
        return alike and self.stored.status == self.result.status

    @property
    def verdict(self) -> str:
        """In words, whether the job agrees; if not, how far it is off, and what another machine has to do with it."""
        if self.agrees:
            return "agrees"
        pairs = [(was, now) for was, now, _ in self.scores.values() if was is not None and now is not None]
        off = max((abs(now - was) / max(abs(was), abs(now)) for was, now in pairs if was != now), default=0.0)
        said = f"differs, by {off:.2g} of a score at most"
        if self.elsewhere and self.stored.status == self.result.status:
            said += "; another processor or library rounds differently, and training enlarges it (docs/scores.md)"
        return said


def find(results: Iterable[Result], asked: str) -> Result:
    """Return the stored result that is asked for; of several at one place in the cross the last one.

    Parameters
    ----------
    results
        What is stored.
    asked
        The beginning of a job's id, or names, METHOD/TASK/DATASET/UNIT/SEED, of which the last ones may be left out
        where one job alone is called so.

    Raises
    ------
    StoreError
        None is called so, or several are; they are listed.
    """
    places: dict[tuple[object, ...], Result] = {}
    for result in sorted(results, key=lambda result: result.finished):
        if asked and (result.job.id.startswith(asked) or f"{result.job.path}/".startswith(f"{asked}/")):
            places[result.job.place] = result
    if len(places) == 1:
        return next(iter(places.values()))
    if not places:
        raise StoreError(
            f"job {asked!r}: no result is called so; give METHOD/TASK/DATASET/UNIT/SEED, such as "
            "vae/unseen-cell-type/ifn-sim/draw0/type00/0, or the beginning of a job's id"
        )
    names = sorted(f"{result.job.path} ({result.job.preset}, {result.job.id})" for result in places.values())
    more = f"\n  and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
    listed = "".join(f"\n  {name}" for name in names[:MOST_LISTED])
    raise StoreError(f"job {asked!r}: {len(names)} results are called so; give more of one:{listed}{more}")


def replay(stored: Result) -> Replay:
    """Run a stored job again, here and without the fit cache, and compare.

    Nothing but the stored result says what is run. No result is written.

    Raises
    ------
    StoreError, PlanError, PluginError, UnknownName, DataError
        The job cannot be made again: its method, plugin, task or data are not here.
    """
    job = stored.job
    for plugin in job.plugins:
        load_plugin(plugin)
    environment = _environment_changes(stored.environment)
    changes = _changes(job) + environment
    (result,) = run_stack([job], None)
    names = dict.fromkeys([*stored.scores, *result.scores])
    pairs = {name: (stored.scores.get(name), result.scores.get(name)) for name in names}
    return Replay(
        job, changes, bool(environment), stored, result, {name: (*pair, compare(*pair)) for name, pair in pairs.items()}
    )


def compare(stored: float | None, now: float | None) -> str:
    """Return how two scores agree; None, where a metric is undefined, agrees with None alone."""
    if stored == now:
        return SAME
    if stored is None or now is None or not math.isclose(stored, now, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
        return DIFFERENT
    return CLOSE


def _changes(job: Job) -> list[str]:
    """Return what a result depends on and is not as the job has it."""
    task = load_task(job.task, job.preset, job.own, job.draw)
    missing = task.dataset.missing()
    if missing:
        raise DataError(f"job {job.id} cannot be run again: {missing}")
    if job.role != "reference":
        methods: tuple[str, ...] = (job.name,)
    else:
        reference = next((reference for reference in task.references_here if reference.name == job.method), None)
        if reference is None:
            raise StoreError(f"job {job.id}: {task.name} no longer has a reference {job.method}")
        methods = reference.methods
    task_then, _, metrics_then = job.task_digest.partition(" ")
    task_now, metrics_now = task_digests(task).split()
    now = {
        "the task's version": (job.task_version, task.version),
        "the method's code": (job.method_digest, " ".join(source_digest(METHODS[name]) for name in methods)),
        "the task's code": (task_then, task_now),
        "the metrics' code": (metrics_then or metrics_now, metrics_now),  # earlier results do not say theirs
        "the data": (job.data_digest, task.dataset.digest(job.preset)),
        "the stored job, whose id is the hash of something else": (job.id, job.with_id().id),
    }
    return [f"{what} ({_short(was)} then, {_short(new)} now)" for what, (was, new) in now.items() if was != new]


def _environment_changes(then: Mapping[str, Any]) -> list[str]:
    now = describe()
    was, new = ({**environment, **environment["versions"]} for environment in (then, now))
    keys = [key for key in new if key in was and key not in ("versions", "git_commit", "dirty", "platform")]
    return [f"{key} ({_short(was.get(key))} then, {_short(new[key])} now)" for key in keys if was.get(key) != new[key]]


def _short(value: Any) -> str:
    """Return a value, of digests the beginnings."""
    return " ".join(part[:12] if len(part) == 64 else part for part in str(value).split()) or "none"
