"""One job: fit, evaluate, and one JSON file, written atomically."""

from __future__ import annotations

import math
import re
import resource
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.environment import describe
from bench.jobs.fits import Fits, fit_stack
from bench.jobs.pictures import picture
from bench.jobs.stacked import Stack
from bench.plan import method_config
from bench.plan.plugins import load_plugin
from bench.records import Job, Result, Status
from methods import METHODS
from methods.errors import CannotFit
from metrics import METRICS
from metrics.neighbours import sharing
from tasks import TASKS, load_task

if TYPE_CHECKING:
    from anndata import AnnData

    from metrics.base import MetricInfo
    from tasks.base import Fit, Reference, Task

_UNREADABLE = re.compile("[^\t\n\x20-\x7e\xa0-\ud7ff\ue000-\U0010ffff]")


def run_stack(jobs: Sequence[Job], fits_directory: Path | None) -> Iterator[Result]:
    """Run jobs that one process runs (:func:`bench.plan.order.stacks`) and yield their results, unit by unit."""
    by_unit: dict[object, list[Job]] = {}
    for job in jobs:
        by_unit.setdefault(job.stack_units or job.unit, []).append(job)
    for of_unit in by_unit.values():
        yield from _run_stacked(of_unit, fits_directory)


def _run_stacked(jobs: Sequence[Job], fits_directory: Path | None) -> list[Result]:
    """Run jobs of one stack, or of one unit without stacks.

    All jobs of the stack are run, also those that have a result: by rounding, a fit depends on the others.
    """
    first = jobs[0]
    if first.n_stacked == 1:
        return [run_job(job, fits_directory) for job in jobs]
    for plugin in first.plugins:
        load_plugin(plugin)
    stack = Stack(partial(fit_stack, METHODS[first.name], first.config, fits_directory))
    results = stack.run([partial(run_job, job, fits_directory, stack) for job in first.stacked()])
    by_id = {result.job.id: result for result in results}
    return [by_id[job.id] for job in jobs]


def run_job(job: Job, fits_directory: Path | None, stack: Stack | None = None) -> Result:
    """Run one job and return its result; whatever the method or task raises becomes the result's reason."""
    started, clock = datetime.now(UTC), time.perf_counter()
    fits = Fits(fits_directory, stack)
    scores: dict[str, float | None] = {}
    status, reason, detail, trace = Status.OK, "", "", ""
    handed: list[tuple[int, int]] = []
    shown: dict[str, list[Any]] = {}
    try:
        for plugin in job.plugins:
            load_plugin(plugin)
        task = _task(job).prepared(job.held_out, job.seed)
        task, unit = (task.inner(job.held_out), job.inner) if job.inner else (task, job.held_out)
        fit, detail = _fit(job, task, unit, fits)
        with sharing():
            raw = task.evaluate(_noting(fit, handed), unit, job.seed)
        whole = job.role == "method" and not job.inner
        first = not job.draw and unit == task.units()[0] and job.seed == 0
        if whole and first and hasattr(fits.last, "embed"):
            shown = picture(task, fits.last, unit, job.seed)
        # an undefined value is stored as None and never enters a mean
        scores = {name: float(value) if math.isfinite(value) else None for name, value in raw.items()}
        lacking = set(task.primary_of(task.dataset.name)) - set(scores)
        if lacking:
            raise RuntimeError(f"{task.name} gave no value for its primary metrics {', '.join(sorted(lacking))}")
    except CannotFit as error:
        status, reason = Status.SKIPPED, str(error)
    except MemoryError as error:
        status, reason, trace = Status.OUT_OF_MEMORY, f"MemoryError: {error}", traceback.format_exc()
    except Exception as error:  # noqa: BLE001 - a method may raise anything; it becomes a failed row with its reason
        status, reason, trace = Status.FAILED, f"{type(error).__name__}: {error}", traceback.format_exc()
    n_cells, n_genes = max(handed, default=(0, 0))
    return result_of(
        job,
        status,
        reason,
        detail=readable(detail),
        traceback=readable(trace),
        n_cells=n_cells,
        n_genes=n_genes,
        scores=scores if status == Status.OK else {},
        curves={readable(term): _numbers(values) for term, values in fits.history.items()},
        picture={key: _numbers(values) if key in "xy" else values for key, values in shown.items()},
        warnings=[readable(line) for line in sorted(fits.warnings)],
        log=[readable(line) for line in fits.log],
        fit_seconds=fits.seconds,
        evaluate_seconds=max(0.0, time.perf_counter() - clock - fits.spent),
        peak_memory_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        started=started.isoformat(),
    )


def result_of(job: Job, status: Status, reason: str, **rest: Any) -> Result:
    """Return a result in its stored form; the head uses it for a job whose process could not write its own.

    Parameters
    ----------
    rest
        Other fields of :class:`bench.records.Result`.
    """
    now = datetime.now(UTC).isoformat()
    name, _, dataset = job.task.partition("/")
    task = TASKS[name]
    primary = task.primary_of(dataset)
    names = dict.fromkeys([*primary, *rest.get("scores", ())])
    return Result(
        job=job,
        status=status,
        reason=readable(reason),
        two_sided=task.two_sided,
        one_fit=task.one_fit,
        metrics={name: {"primary": name in primary, **_about(METRICS[name].info)} for name in names},
        finished=now,
        environment=describe(),
        **{"started": now, **rest},
    )


def _task(job: Job) -> Task:
    """Return the task of a job; the last one is kept, as the next job may be on other units of the same data."""
    return _loaded(job.task, job.preset, tuple(job.own.items()), job.draw, job.task_digest + job.data_digest)


@lru_cache(maxsize=1)
def _loaded(name: str, preset: str, own: tuple[tuple[str, str], ...], draw: int | None, digests: str) -> Task:
    """Load a task; ``digests`` change with its code and data."""
    return load_task(name, preset, dict(own), draw)


def _about(info: MetricInfo) -> dict[str, Any]:
    """Return which value of a metric is better, and the best possible one; None where there is no best one."""
    best = info.high if info.better == "higher" else info.low
    return {"better": info.better, "best": best if math.isfinite(best) else None}


def readable(text: str) -> str:
    """Return text with control characters and halves of surrogate pairs escaped.

    They steer terminals, and neither a database nor a file in UTF-8 takes all of them.
    """
    return _UNREADABLE.sub(lambda found: ascii(found[0])[1:-1], str(text))


def _numbers(values: Iterable[float]) -> list[float | None]:
    """Return plain numbers; None stands for those that are not finite."""
    return [float(value) if math.isfinite(value) else None for value in values]


def _fit(job: Job, task: Task, unit: str, fits: Fits) -> tuple[Fit, str]:
    """Return the ``fit`` for the task and, where registered methods stand for a reference, the chosen one's name."""
    if job.role != "reference":
        return fits.of(job.name, job.config, job.seed), ""
    reference = next(reference for reference in task.references_here if reference.name == job.method)
    if not reference.methods:
        return task.reference_fit(reference.name, unit, job.seed), ""
    name = reference.methods[0] if len(reference.methods) == 1 else _best(reference, task, unit, job)
    return fits.of(name, method_config(name, task, job.preset), job.seed), name


def _noting(fit: Fit, handed: list[tuple[int, int]]) -> Fit:
    """Return ``fit``, which notes the numbers of cells and genes that it is handed."""

    def noted(data: AnnData) -> Any:
        handed.append(data.shape)
        return fit(data)

    if hasattr(fit, "again"):
        noted.again = _noting(fit.again, handed)  # type: ignore[attr-defined]
    return noted


def _best(reference: Reference, task: Task, held_out: str, job: Job) -> str:
    """Return the reference's method with the best mean on the inner units, which never hold the held-out one."""
    inner = task.inner(held_out)
    metric = task.primary_of(task.dataset.name)[0]
    sign = 1.0 if METRICS[metric].info.better == "higher" else -1.0
    means = {}
    for name in reference.methods:
        fit = Fits(None).of(name, method_config(name, task, job.preset), job.seed)
        means[name] = sign * np.mean([inner.evaluate(fit, unit, job.seed)[metric] for unit in inner.units()])
    return max(means, key=lambda name: means[name])
