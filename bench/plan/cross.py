"""The cross of methods and tasks: a job for each method or reference, task, unit and seed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import Any, Literal

from bench.plan.digests import source_digest, task_digests
from bench.records import WHOLE, Job, MethodSpec, Plan, PlanError, stack_of, unit_of_draw
from methods import METHODS
from tasks import load_task
from tasks.base import Reference, Task
from tasks.datasets.reading import copies_of, taken_for

#: Fits are stacked on data of at most so many million values (cells × genes): each fit has its own copy of the data,
#: and fits of large networks gain nothing.
MOST_VALUES = 20.0
#: Fits of several units that are stacked on a GPU at most, and million values of all of them: their data are in the
#: memory of one process, some ten copies.
MOST_ON_GPU, MOST_VALUES_ON_GPU = 64, 100.0


def method_config(name: str, task: Task, preset: str, changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return a method's configuration on a task: its preset, then what the task fixes, then the user's changes."""
    cls = METHODS[name]
    known = {field.name for field in fields(cls.Config)}
    fixed = task.settings_of(task.dataset.name).items()
    named = {cls.code_size if key == "n_latent" else key: value for key, value in fixed}
    settings = {key: value for key, value in named.items() if key in known}
    return _plain(asdict(cls.configure(preset, task.dataset.name, **{**settings, **(changes or {})})))


def make_plan(
    methods: Sequence[MethodSpec],
    tasks: Sequence[str],
    preset: str,
    n_seeds: int | None,
    plugins: Sequence[str],
    index: dict[str, Any],
    own: Mapping[str, str] | None = None,
    draws: Sequence[int] | None = None,
    stacked: Literal["seeds", "units", "draws"] = "seeds",
) -> Plan:
    """Cross methods and tasks.

    Parameters
    ----------
    methods, tasks
        The results of :func:`choose_methods` and :func:`choose_tasks`.
    preset
        ``smoke``, ``default`` or ``paper``.
    n_seeds
        Seeds 0 to n − 1; None takes the task's number for the preset.
    plugins
        Files that a worker must import.
    index
        Facts about tasks from an earlier plan (units, sizes and notes, by digest). New facts are added in place, so
        that planning the same again reads no data.
    own
        File and fields of the user's own data, for tasks of :func:`choose_own_tasks`.
    draws
        Numbers of the draws of simulated data; None takes the task's number for the preset.
    stacked
        Which fits of a method are stacked: those of all seeds of a unit, of all units of a draw too, or of all draws.

    Raises
    ------
    tasks.datasets.DataError
        Data that a task cannot be run on.
    PlanError
        The data of all tasks are absent.
    """
    jobs: list[Job] = []
    absent: dict[str, str] = {}
    sizes: dict[str, float] = {}
    selections: dict[str, str] = {}
    notes: list[str] = []
    for task_name in tasks:
        task = load_task(task_name, preset, own)
        numbers = draws or range(task.n_draws) if task.dataset.simulated else [None]
        reason = task.dataset.missing()
        if reason is not None:
            absent[task_name] = reason
            continue
        task_digest, data_digest = task_digests(task), task.dataset.digest(preset)
        key = f"{task_name} {preset} {task_digest} {data_digest}"
        if key not in index:
            index[key] = _facts(task)
        units, (n_cells, n_all), taken = (index[key][about] for about in ("units", "shape", "x_taken_for"))
        notes += [f"{task.dataset.name}: {said}" for said in (f"X was taken for {taken}", *index[key]["notes"])]
        n_genes = min(task.dataset.n_genes or n_all, n_all)
        sizes[task_name] = n_cells * n_genes / 1e6
        if n_genes < n_all:
            selections[task_name] = f"{n_genes} of {n_all} genes are used, chosen anew in each training split"
        seeds = range(task.seeds[preset] if n_seeds is None else n_seeds)
        blank = Job(
            role="method",
            method="",
            name="",
            config={},
            task=task_name,
            task_version=task.version,
            unit=WHOLE,
            seed=0,
            preset=preset,
            method_digest="",
            task_digest=task_digest,
            data_digest=data_digest,
            plugins=tuple(plugins),
            own=dict(own or {}),
            x_taken_for=taken,
            n_copies=index[key]["n_copies"],
        )
        rows = [_method_row(blank, spec, task, preset) for spec in _with_variants(methods, task)]
        rows += [_reference_row(blank, reference) for reference in task.references_here]
        for row in rows:
            crossed = [row] if row.skip else [job for draw in numbers for job in _crossed(row, draw, units, seeds)]
            if row.name and not row.skip and METHODS[row.name].stackable and sizes[task_name] <= MOST_VALUES:
                crossed = [replace(job, stack=stack_of(job.seed, len(seeds))) for job in crossed]
                crossed = crossed if stacked == "seeds" else _beside(crossed, sizes[task_name], stacked == "draws")
            jobs += [job.with_id() for job in crossed]
    if absent and not jobs:
        reasons = "\n".join(f"{task}: {reason}" for task, reason in absent.items())
        raise PlanError(f"no task could run\n{reasons}")
    return Plan(tuple(jobs), absent, sizes, selections, tuple(dict.fromkeys(notes)))


def _with_variants(methods: Sequence[MethodSpec], task: Task) -> list[MethodSpec]:
    """Return the methods and the variants of them that the task asks for (:attr:`tasks.base.Task.variants`)."""
    specs = {spec.label: spec for spec in methods}
    for spec in methods:
        variant = MethodSpec.of(spec.name, {**task.variants.get(spec.name, {}), **spec.changes})
        specs.setdefault(variant.label, variant)
    return list(specs.values())


def _crossed(row: Job, draw: int | None, units: Sequence[str], seeds: Sequence[int]) -> list[Job]:
    """Return ``row`` for each unit and seed, of a draw of a simulator where there is one.

    The units are those of the first draw; a simulator's are the same in every draw.
    """
    if draw is not None:
        units = [unit_of_draw(unit, draw) for unit in units]
    return [replace(row, draw=draw, unit=unit, seed=seed) for unit in units for seed in seeds]


def _facts(task: Task) -> dict[str, Any]:
    """Return the facts about a task that the index keeps; of a simulated data set, those of its first draw."""
    copies = copies_of(task.data)
    return {
        "units": task.units(),
        "shape": task.data.shape,
        "x_taken_for": taken_for(task.data),
        "n_copies": sum(first != at for at, first in enumerate(copies.tolist())),
        "notes": task.notes(),
    }


def _method_row(blank: Job, spec: MethodSpec, task: Task, preset: str) -> Job:
    """Return ``blank`` filled in for a method, with a reason to skip it where it lacks an ability."""
    cls = METHODS[spec.name]
    lacking = [ability for ability in task.requires if ability not in cls.abilities()]
    if task.combines and not cls.composes and not lacking:
        lacking = ["predict combinations of environments"]
    return replace(
        blank,
        method=spec.label,
        name=spec.name,
        config=method_config(spec.name, task, preset, spec.changes),
        method_digest=source_digest(cls),
        skip=f"{spec.name} cannot {' or '.join(lacking)}, which {task.name} needs" if lacking else "",
    )


def _reference_row(blank: Job, reference: Reference) -> Job:
    """Return ``blank`` filled in for a reference of the task."""
    digests = [source_digest(METHODS[name]) for name in reference.methods]
    return replace(blank, role="reference", method=reference.name, method_digest=" ".join(digests))


def _beside(jobs: Sequence[Job], millions: float, across_draws: bool) -> list[Job]:
    """Return jobs with the units whose fits are stacked with theirs, as many as memory has room for.

    Parameters
    ----------
    jobs
        Those of a method on all units, draws and seeds of a task.
    millions
        Million values of the data of one of them.
    """
    by_stack: dict[object, list[str]] = {}
    for job in jobs:
        units = by_stack.setdefault((job.stack or job.seed, None if across_draws else job.draw), [])
        units += [job.unit] if job.unit not in units else []
    found = []
    for job in jobs:
        units = by_stack[job.stack or job.seed, None if across_draws else job.draw]
        n_seeds = max(1, len(job.stack))
        n = max(1, min(MOST_ON_GPU // n_seeds, int(MOST_VALUES_ON_GPU / (millions * n_seeds))))
        first = units.index(job.unit) // n * n
        beside = tuple(units[first : first + n])
        found.append(replace(job, stack_units=beside if len(beside) > 1 else ()))
    return found


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``values`` as JSON would give them back, so that a job read from disk equals the planned one."""
    return json.loads(json.dumps(dict(values)))
