"""One stored job again: the same code, data, configuration and seed should give the same scores."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.environment import describe
from bench.jobs.job import run_stack
from bench.keep.store import Store, StoreError
from bench.plan.digests import source_digest
from bench.plan.plugins import load_plugin
from bench.records import Job, Result
from methods import METHODS
from tasks import load_task
from tasks.datasets import DataError

#: Differences up to this, absolute or relative, are put down to the order of floating point operations.
TOLERANCE = 1e-6

SAME, CLOSE, DIFFERENT = "bit-identical", f"within {TOLERANCE:g}", "differs"


@dataclass(frozen=True)
class Replay:
    """A stored result beside a new one.

    Attributes
    ----------
    job
        The job.
    changes
        Changes since the job ran: code, data, libraries, machine.
    stored, result
        The two results.
    scores
        For each metric the stored value, the new one, and whether they agree.
    """

    job: Job
    changes: list[str]
    stored: Result
    result: Result
    scores: dict[str, tuple[float | None, float | None, str]] = field(default_factory=dict)

    @property
    def agrees(self) -> bool:
        """Whether the job ended as it did, with the same scores."""
        alike = all(verdict != DIFFERENT for *_, verdict in self.scores.values())
        return alike and self.stored.status == self.result.status


def find(store: Store, prefix: str) -> Result:
    """Return the stored result whose job's id starts so.

    Raises
    ------
    StoreError
        None does, or several, or it cannot be read.
    """
    ids = sorted(file.stem for file in store.jobs.glob("*.json") if file.stem.startswith(prefix))
    if not ids or not prefix:
        raise StoreError(f"job {prefix!r}: no result in {store.jobs} is called so; the ids are its file names")
    if len(ids) > 1:
        shown = ", ".join(ids[:5]) + (", …" if len(ids) > 5 else "")
        raise StoreError(f"job {prefix!r}: {len(ids)} ids start so ({shown}); give more of it")
    result = store.read(ids[0])
    if result is None:
        raise StoreError(f"{store.file(ids[0])}: not a readable result; run the job again")
    return result


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
    changes = _changes(job) + _environment_changes(stored.environment)
    (result,) = run_stack([job], None)
    names = dict.fromkeys([*stored.scores, *result.scores])
    pairs = {name: (stored.scores.get(name), result.scores.get(name)) for name in names}
    return Replay(job, changes, stored, result, {name: (*pair, compare(*pair)) for name, pair in pairs.items()})


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
    now = {
        "the task's version": (job.task_version, task.version),
        "the method's code": (job.method_digest, " ".join(source_digest(METHODS[name]) for name in methods)),
        "the task's code": (job.task_digest, source_digest(type(task))),
        "the data": (job.data_digest, task.dataset.digest(job.preset)),
        "the stored job, whose id is the hash of something else": (job.id, job.with_id().id),
    }
    return [f"{what} ({_short(was)} then, {_short(new)} now)" for what, (was, new) in now.items() if was != new]


def _environment_changes(then: Mapping[str, Any]) -> list[str]:
    now = describe()
    was, new = ({**one, **one["versions"]} for one in (then, now))
    keys = [key for key in new if key not in ("versions", "git_commit", "dirty", "platform")]
    return [f"{key} ({_short(was.get(key))} then, {_short(new[key])} now)" for key in keys if was.get(key) != new[key]]


def _short(value: Any) -> str:
    """Return a value, of digests the beginnings."""
    return " ".join(part[:12] if len(part) == 64 else part for part in str(value).split()) or "none"
