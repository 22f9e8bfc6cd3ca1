"""What a task asks of methods: the training cells of each fit, and the cells that are to be embedded or predicted.

It is recorded from the task's own ``evaluate``, so that whatever is asked of a method is asked of a submission.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.jobs.fits import AGAIN
from bench.jobs.pictures import picture
from bench.plan.cross import make_plan
from bench.records import PlanError
from tasks import TASKS, load_task
from tasks.datasets.base import DataError
from tasks.datasets.memory import digest

if TYPE_CHECKING:
    from anndata import AnnData

#: Abilities that files can stand for, and what an answer holds.
ANSWERS = {"embed": "codes", "predict": "x"}


@dataclass(frozen=True)
class Question:
    """Cells that a fitted method is asked to embed, or to predict in another environment.

    Attributes
    ----------
    ability
        ``embed`` or ``predict``.
    environment
        Where cells are to be predicted; empty where they are embedded.
    cells
        What a method sees of them.
    digest
        SHA-256 of these cells.
    """

    ability: str
    environment: str
    cells: AnnData
    digest: str

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells the question from the others of a fit."""
        return self.ability, self.environment, self.digest


@dataclass(frozen=True)
class Asked:
    """A fit, and all that is asked of it.

    Attributes
    ----------
    training
        What a method sees when it is fitted.
    digest
        SHA-256 of these cells.
    seed
        Seed of the job; with :data:`bench.jobs.fits.AGAIN` added for the second fit of the same cells.
    units
        Units that are scored from it.
    questions
        By their keys, in the order in which they are asked.
    """

    training: AnnData
    digest: str
    seed: int
    units: list[str] = field(default_factory=list)
    questions: dict[tuple[str, str, str], Question] = field(default_factory=dict)


def asked_by(task_name: str, preset: str, seeds: int | None, draws: Sequence[int] | None) -> list[Asked]:
    """Return all fits of a task, in the order in which they are first asked for.

    Parameters
    ----------
    task_name
        ``task/dataset``.
    preset, seeds, draws
        As :class:`bench.options.Options` has them.

    Raises
    ------
    PlanError
        The task asks for more than files can answer.
    tasks.datasets.DataError
        The data are not here.
    """
    lacking = [ability for ability in TASKS[task_name.partition("/")[0]].requires if ability not in ANSWERS]
    if lacking:
        raise PlanError(
            f"{task_name} asks a method to {' and to '.join(lacking)}, which depends on what it answered before, so "
            "that no file can hold it; wrap your program instead (docs/wrapping.md)"
        )
    plan = make_plan([], [task_name], preset, seeds, (), {}, None, draws)
    fits: dict[tuple[str, int], Asked] = {}
    task: Any = None
    for job in {(job.draw, job.unit, job.seed): job for job in plan.jobs}.values():
        if task is None or task.draw != (job.draw or 0):
            task = load_task(task_name, preset, draw=job.draw)
        prepared = task.prepared(job.held_out, job.seed)
        _record(prepared, job.unit, job.held_out, job.seed, fits)
    return list(fits.values())


def _record(task: Any, name: str, unit: str, seed: int, fits: dict[tuple[str, int], Asked]) -> None:
    """Evaluate a method that notes its questions and knows nothing."""
    last: list[Any] = []

    def fit_with(seed: int) -> Any:
        def fit(training: AnnData) -> Any:
            key = digest(training), seed
            asked = fits.setdefault(key, Asked(training, *key))
            if name not in asked.units:
                asked.units.append(name)
            last[:] = [_Recorder(asked, task.requires)]
            return last[0]

        return fit

    fit = fit_with(seed)
    fit.again = fit_with(seed + AGAIN)
    task.evaluate(fit, unit, seed)
    if "embed" in task.requires and not task.draw and seed == 0 and unit == task.units()[0]:
        picture(task, last[0], unit, seed)


class _Recorder:
    """A fitted method that notes what it is asked; its answers are noise of the right shape."""

    def __init__(self, asked: Asked, abilities: Sequence[str]):
        if "embed" in abilities:
            self.embed = self._embed
        if "predict" in abilities:
            self.predict = self._predict
        self._asked = asked

    def _note(self, ability: str, environment: str, data: AnnData) -> None:
        question = Question(ability, environment, data.copy(), digest(data))
        self._asked.questions.setdefault(question.key, question)

    def _embed(self, data: AnnData) -> np.ndarray:
        self._note("embed", "", data)
        return np.random.default_rng(95).standard_normal((data.n_obs, 10)).astype(np.float32)

    def _predict(self, data: AnnData, target_environment: str) -> np.ndarray:
        self._note("predict", target_environment, data)
        return np.array(data.X)


def of_catalogue(task_name: str) -> str:
    """Return the whole name of a benchmark: a task that has one embedded data set may be named alone.

    Raises
    ------
    PlanError, metrics.UnknownName
        There is none of that name, or several.
    """
    from bench.plan import choose_tasks

    names = choose_tasks(task_name)
    if len(names) == 1:
        return names[0]
    raise PlanError(f"{task_name}: name one data set, of {', '.join(names)}")


def check_data(task_name: str) -> None:
    """Raise DataError, with the command that gets the data, where they are not here."""
    missing = load_task(task_name, "smoke").dataset.missing()
    if missing:
        raise DataError(missing)
