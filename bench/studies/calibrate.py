"""Calibration of metrics: the references of each task, and its ceiling corrupted by known doses.

The corruption is put around what the ceiling's ``fit`` returns, so that a task scores it by the very code that scores
methods. ``docs/calibration.md`` says what each ladder does and how the answers are judged.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from bench.environment import describe
from bench.jobs.fits import Fits
from bench.jobs.job import run_job
from bench.plan import make_plan, method_config
from bench.records import Job
from leaderboard.table import BASELINE, CEILING, FLOOR
from metrics import METRICS
from tasks import load_task
from tasks.base import Fit, Task
from tasks.shared_private import blocks

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

DOSES = (0.0, 0.25, 0.5, 0.75, 1.0)
MIXING = "mixing"
MAX_ANGLE = np.pi / 4


def rotate(codes: np.ndarray, training: np.ndarray, dose: float, rng: np.random.Generator) -> np.ndarray:
    """Turn the codes by dose · 45° in the planes of randomly paired latents; an odd one stays."""
    order, turned = rng.permutation(codes.shape[1]), codes.copy()
    first, second = order[0 : len(order) - 1 : 2], order[1::2]
    cos, sin = np.cos(dose * MAX_ANGLE), np.sin(dose * MAX_ANGLE)
    turned[:, first] = cos * codes[:, first] - sin * codes[:, second]
    turned[:, second] = sin * codes[:, first] + cos * codes[:, second]
    return turned


def permute(codes: np.ndarray, training: np.ndarray, dose: float, rng: np.random.Generator) -> np.ndarray:
    """Let a share of the cells change places; a larger dose moves the cells of a smaller one too."""
    chosen, permuted = rng.permutation(len(codes))[: round(dose * len(codes))], codes.copy()
    permuted[chosen] = codes[np.roll(chosen, 1)]
    return permuted


def collapse(codes: np.ndarray, training: np.ndarray, dose: float, rng: np.random.Generator) -> np.ndarray:
    """Multiply the latent with the largest variance in training by 1 − dose."""
    if codes.shape[1] == 0:
        return codes
    collapsed = codes.copy()
    collapsed[:, training.var(axis=0).argmax()] *= 1.0 - dose
    return collapsed


def flatten(predicted: np.ndarray, source: np.ndarray, dose: float, rng: np.random.Generator) -> np.ndarray:
    """Shrink the predicted cells towards their mean, to its standard deviation times 1 − dose."""
    mean = predicted.mean(axis=0, dtype=np.float64)
    return (mean + (1.0 - dose) * (predicted - mean)).astype(predicted.dtype)


def shuffle_genes(predicted: np.ndarray, source: np.ndarray, dose: float, rng: np.random.Generator) -> np.ndarray:
    """Let a share of the genes exchange their predicted mean shifts."""
    chosen = rng.permutation(predicted.shape[1])[: round(dose * predicted.shape[1])]
    shift = _shift(predicted, source)
    change = np.zeros_like(shift)
    change[chosen] = shift[np.roll(chosen, 1)] - shift[chosen]
    return predicted + change.astype(predicted.dtype)


def flip_signs(predicted: np.ndarray, source: np.ndarray, dose: float, rng: np.random.Generator) -> np.ndarray:
    """Turn the predicted mean shift of a share of the genes round."""
    chosen = rng.permutation(predicted.shape[1])[: round(dose * predicted.shape[1])]
    change = np.zeros(predicted.shape[1])
    change[chosen] = -2.0 * _shift(predicted, source)[chosen]
    return predicted + change.astype(predicted.dtype)


def _shift(predicted: np.ndarray, source: np.ndarray) -> np.ndarray:
    return predicted.mean(axis=0, dtype=np.float64) - source.mean(axis=0, dtype=np.float64)


Corruption = Callable[[np.ndarray, np.ndarray, float, np.random.Generator], np.ndarray]
#: Corruptions of codes (n_cells, n_latent), given the codes of the training cells.
CODES: dict[str, Corruption] = {"rotation": rotate, "permutation": permute, "collapse": collapse}
#: Corruptions of predicted cells (n_cells, n_genes), given the cells that the prediction starts from.
PREDICTIONS: dict[str, Corruption] = {"variance": flatten, "gene-shuffle": shuffle_genes, "sign-flip": flip_signs}


def ladders(task: Task) -> list[str]:
    """Return the ladders that say something on a task: those of the abilities that it asks for."""
    return [
        MIXING,
        *(CODES if "embed" in task.requires else ()),
        *(PREDICTIONS if "predict" in task.requires else ()),
    ]


class Corrupted:
    """A fitted method with corrupted codes and predictions; everything else is unchanged.

    Parameters
    ----------
    fitted
        The fitted method; the wrapper has the same abilities.
    floor
        The fitted floor that it is mixed with; used by ``mixing`` alone.
    training
        The cells that both were fitted to.
    ladder, dose, seed
        The corruption; larger doses of one seed extend smaller ones.
    """

    def __init__(self, fitted: Any, floor: Any, training: AnnData, ladder: str, dose: float, seed: int):
        self.fitted, self.floor, self.training = fitted, floor, training
        self.ladder, self.dose, self.seed = ladder, dose, seed
        self._gauges: dict[int | None, tuple[np.ndarray, np.ndarray | None]] = {}

    def __getattr__(self, name: str) -> Any:
        """Return the fitted method's own attribute, or its corrupted form."""
        own = getattr(self.fitted, name)
        of_codes = name in ("embed", "embed_blocks") and self.ladder not in PREDICTIONS
        of_predictions = name in ("predict", "adapt") and self.ladder not in CODES
        return getattr(self, f"_{name}") if of_codes or of_predictions else own

    def _embed(self, data: AnnData) -> np.ndarray:
        return self._corrupted(data, None)

    def _embed_blocks(self, data: AnnData) -> dict[str, np.ndarray]:
        return {"shared": self._corrupted(data, 0), "private": self._corrupted(data, 1)}

    def _predict(self, data: AnnData, target_environment: str) -> np.ndarray:
        predicted = np.asarray(self.fitted.predict(data, target_environment))
        if self.ladder == MIXING:
            other = np.asarray(self.floor.predict(data, target_environment))
            return (1.0 - self.dose) * predicted + self.dose * other
        return PREDICTIONS[self.ladder](predicted, np.asarray(data.X), self.dose, self._rng())

    def _adapt(self, data: AnnData) -> Corrupted:
        floor = self.floor.adapt(data) if self.ladder == MIXING else None
        return Corrupted(self.fitted.adapt(data), floor, self.training, self.ladder, self.dose, self.seed)

    def _corrupted(self, data: AnnData, block: int | None) -> np.ndarray:
        codes = _codes(self.fitted, data, block)
        if block not in self._gauges:
            training = _codes(self.fitted, self.training, block)
            noise = _codes(self.floor, self.training, block) if self.ladder == MIXING else None
            self._gauges[block] = training, noise
        training, noise = self._gauges[block]
        if noise is None:
            return CODES[self.ladder](codes, training, self.dose, self._rng())
        turned = aligned(_codes(self.floor, data, block), noise, training)
        return (1.0 - self.dose) * codes + self.dose * turned

    def _rng(self) -> np.random.Generator:
        return np.random.default_rng([self.seed, zlib.crc32(self.ladder.encode())])


def _codes(fitted: Any, data: AnnData, block: int | None) -> np.ndarray:
    """Return the code (block None), or the shared (0) or private (1) block, in double precision."""
    codes = fitted.embed(data) if block is None else blocks(fitted, data)[block]
    return np.asarray(codes, dtype=np.float64)


def aligned(codes: np.ndarray, training: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Turn codes into the gauge of other codes: Procrustes (shift, rotation, one scale) fitted on training cells.

    Parameters
    ----------
    codes, training
        The codes to turn, (n_cells, n_latent), and those of the training cells, (n_training, n_latent).
    reference
        The other codes of the training cells, (n_training, n_reference).

    Returns
    -------
    np.ndarray
        (n_cells, n_reference).
    """
    mean, centre = training.mean(axis=0), reference.mean(axis=0)
    u, _, vt = np.linalg.svd((training - mean).T @ (reference - centre), full_matrices=False)
    turn = u @ vt
    size = np.linalg.norm((training - mean) @ turn)
    scale = np.linalg.norm(reference - centre) / size if size > 0 else 0.0
    return centre + scale * (codes - mean) @ turn


def corrupted(fit: Fit, floor: Fit, n_training: int, ladder: str, dose: float, seed: int) -> Fit:
    """Return the ``fit`` of a corrupted ceiling.

    Parameters
    ----------
    fit, floor
        Those of ceiling and floor. Dose 0 is the ceiling itself and dose 1 of ``mixing`` the floor itself.
    n_training
        Number of cells without the held-out unit. A fit to other cells (``reembedding`` makes one with the unit, too)
        is the reference that the other is compared with, and is left alone.
    ladder, dose, seed
        The corruption.
    """
    if dose == 0.0:
        return fit
    if ladder == MIXING and dose == 1.0:
        return floor

    def corrupted_fit(data: AnnData) -> Any:
        fitted = fit(data)
        if data.n_obs != n_training:
            return fitted
        return Corrupted(fitted, floor(data) if ladder == MIXING else None, data, ladder, dose, seed)

    return corrupted_fit


@dataclass
class Outcome:
    """The measured values, the files that were written, and the failures."""

    rows: pd.DataFrame
    files: list[Path] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)


def calibrate(
    tasks: Sequence[str], preset: str, n_seeds: int | None, out: Path, console: Console, command: str
) -> Outcome:
    """Measure the metrics of tasks in this process and write ``<out>/calibration/``.

    Parameters
    ----------
    tasks
        Names from :func:`bench.plan.choose_tasks`.
    preset, n_seeds
        As for a run; None takes the task's number of seeds.
    out
        Directory of results.
    console
        Where progress is shown.
    command
        The command, for the page's head.

    Raises
    ------
    tasks.datasets.DataError
        Data that a task cannot be run on.
    """
    import pandas as pd

    from leaderboard import calibration

    plan = make_plan([], tasks, preset, n_seeds, (), {})
    baselines = [job for job in plan.jobs if job.method == BASELINE]
    found: list[dict[str, Any]] = []
    outcome = Outcome(pd.DataFrame(), absent=dict(plan.absent))
    bar = Progress(TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=console)
    bar.disable = not console.is_terminal
    at: tuple[str, int | None] = ("", None)
    task = None
    with bar:
        shown = bar.add_task("", total=len(baselines))
        for number, job in enumerate(sorted(baselines, key=lambda job: tasks.index(job.task)), 1):
            if task is None or (job.task, job.draw) != at:
                at, task = (job.task, job.draw), load_task(job.task, preset, draw=job.draw)
            where = f"{job.task} · {job.unit} · seed {job.seed}"
            bar.update(shown, description=where)
            clock = time.perf_counter()
            for ladder, dose, scores, failure in _scores(task, job):
                if failure:
                    outcome.failed.append(f"{where} · {ladder} {dose:g}: {failure}")
                    console.print(Text(f"failed: {outcome.failed[-1]}"), style="red", soft_wrap=True)
                for metric, value in scores.items():
                    found.append(_row(task, job, metric, value) | {"ladder": ladder, "dose": dose})
            bar.advance(shown)
            if not console.is_terminal:
                seconds = time.perf_counter() - clock
                console.print(Text(f"{number}/{len(baselines)}  {where}  {seconds:.1f} s"), soft_wrap=True)
    columns = ["task", "metric", "primary", "better", "ladder", "dose", "unit", "seed", "preset", "value"]
    outcome.rows = pd.DataFrame(found, columns=columns)
    environment = describe()
    dirty = " with uncommitted changes" if environment["dirty"] else ""
    header = [
        f"Command: {command}",
        f"Date: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        f"Commit: {environment['git_commit'] or 'unknown'}{dirty}",
        *(f"Not measured: {task}: {reason}" for task, reason in plan.absent.items()),
        *(f"Failed: {failure}" for failure in outcome.failed),
    ]
    outcome.files = calibration.write(outcome.rows, out / "calibration", header)
    return outcome


def say(outcome: Outcome, console: Console) -> None:
    """Print which metrics are flagged, what could not be measured, and where the files are."""
    from leaderboard import calibration

    for task, group in calibration.build(outcome.rows).groupby("task", sort=False):
        console.print(Text(str(task)), style="bold")
        for line in calibration.findings(group):
            console.print(Text(f"  {line}"), soft_wrap=True)
    for task, reason in outcome.absent.items():
        console.print(Text(f"skipped  {task}: {reason}"), style="yellow", soft_wrap=True)
    console.print(Text(f"Calibration: {outcome.files[0]} (and .csv, .parquet, figures)"), soft_wrap=True)


def _row(task: Task, job: Job, metric: str, value: float) -> dict[str, Any]:
    return {
        "task": job.task,
        "metric": metric,
        "primary": metric in task.primary,
        "better": METRICS[metric].info.better,
        "unit": job.unit,
        "seed": job.seed,
        "preset": job.preset,
        "value": value,
    }


def _scores(task: Task, job: Job) -> Iterator[tuple[str, float, dict[str, float], str]]:
    """Yield ladder, dose, scores and why there are none: of the three references, then of the corrupted ceiling.

    Doses that all ladders share are evaluated once: dose 0 is the ceiling, and dose 1 of ``mixing`` the floor.
    """
    baseline = run_job(job, None)
    values = {name: float("nan") if value is None else value for name, value in baseline.scores.items()}
    yield job.method, 0.0, values, baseline.reason
    try:
        task = task.prepared(job.held_out, job.seed)
        n_training = task.training_data(job.held_out, job.seed).n_obs
        fit = _remembered(_reference(task, CEILING, job))
    except Exception as error:  # noqa: BLE001 - as for a job: it becomes the reason why there are no scores
        yield CEILING, 0.0, {}, f"{type(error).__name__}: {error}"
        return

    def evaluate(ladder: str, dose: float) -> tuple[dict[str, float], str]:
        try:
            # the floor anew each time: its random generator moves with every call
            floor = _reference(task, FLOOR, job)
            corrupt = corrupted(fit, floor, n_training, ladder, dose, job.seed)
            return task.evaluate(corrupt, job.held_out, job.seed), ""
        except Exception as error:  # noqa: BLE001 - as above
            return {}, f"{type(error).__name__}: {error}"

    ceiling, failure = evaluate(MIXING, 0.0)
    yield CEILING, 0.0, ceiling, failure
    for ladder in ladders(task):
        yield ladder, 0.0, ceiling, ""
        for dose in DOSES[1:]:
            scores, failure = evaluate(ladder, dose)
            yield ladder, dose, scores, failure
            if ladder == MIXING and dose == 1.0:
                yield FLOOR, 0.0, scores, ""


def _reference(task: Task, name: str, job: Job) -> Fit:
    """Return the ``fit`` of floor or ceiling; only for the baseline do tasks name several methods to choose among."""
    (reference,) = (reference for reference in task.references_here if reference.name == name)
    if not reference.methods:
        return task.reference_fit(name, job.held_out, job.seed)
    (method,) = reference.methods
    return Fits(None).of(method, method_config(method, task, job.preset), job.seed)


def _remembered(fit: Fit) -> Fit:
    """Return ``fit`` made once for the same cells."""
    fitted: dict[tuple[str, ...], Any] = {}

    def remembered(data: AnnData) -> Any:
        key = tuple(data.obs_names)
        if key not in fitted:
            fitted[key] = fit(data)
        return fitted[key]

    return remembered
