"""How long jobs take: as measured in the out directory, else on another machine, else in a preflight, else a guess."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.plan.order import in_order, makespan, stacks
from bench.plan.resources import uses_gpu
from bench.records import Job, Result, Status

if TYPE_CHECKING:
    import pandas as pd

#: Seconds a job and million values (cells × genes), of a trained network and of anything else: guesses, on the
#: long side (12 minutes for a default run that took 7), used until something has been measured.
ROUGH = {"smoke": (1.5, 0.5), "default": (8.0, 0.8), "paper": (60.0, 2.0)}

#: Directory of a preflight's jobs, in an out directory.
PREFLIGHT = "preflight"
#: A fit of a preflight spends STARTUP seconds, but at most STARTUP_PART of its time, on work that does not grow with
#: data and steps. Early stopping usually ends a fit after the share EPOCHS_USED of its epochs.
STARTUP, STARTUP_PART, EPOCHS_USED = 0.3, 0.75, 0.5

#: Seconds of a run before its first job and after its last, and between two jobs until that has been measured.
AROUND, BETWEEN = 8.0, 0.05

#: How well the time of some jobs is known, from the best to the worst.
MEASURED, KNOWN, TRIED, GUESSED = (
    "from earlier jobs here",
    "from another machine's times and the speed of this one",
    "from a preflight: rough",
    "rough: not all of it has been measured here yet",
)


class Estimate:
    """Seconds that a job is expected to take.

    Parameters
    ----------
    rows
        Tidy results of earlier runs; may be empty.
    sizes
        Million values of each task's data.
    tried
        Tidy results of a preflight (:mod:`bench.studies.preflight`), of the smoke preset.
    known
        Returns the seconds that a job should take, from another machine's times; None where they are not known.
    """

    def __init__(
        self,
        rows: pd.DataFrame,
        sizes: Mapping[str, float],
        tried: pd.DataFrame | None = None,
        known: Callable[[Job], float | None] = lambda job: None,
    ):
        self.sizes, self.known = sizes, known
        #: Seconds and number of jobs by task, preset and method, and by these and the unit.
        self._spent: dict[tuple[str, ...], tuple[float, int]] = {}
        ended = rows[rows["status"].map(lambda status: Status(status).final).astype(bool)].drop_duplicates("job_id")
        starts, ends = ([_moment(text) for text in ended[name]] for name in ("started", "finished"))
        for row, start, end in zip(ended.to_dict("records"), starts, ends, strict=True):
            self._add(row, (end - start) / row["n_stacked"])
        self.between = _between(starts, ends)
        self._tried: dict[tuple[str, str], Mapping[str, Any]] = {}
        if tried is not None:
            for row in tried[tried["status"] == "ok"].drop_duplicates("job_id").to_dict("records"):
                self._tried[row["task"], row["method"]] = {
                    "fit": row["fit_seconds"],
                    "evaluate": row["evaluate_seconds"],
                    "values": row["n_cells"] * row["n_genes"] / 1e6,
                    "config": json.loads(row["config"]),
                }

    def learn(self, result: Result) -> None:
        """Take in how long a job took."""
        if result.status.final:
            spent = _moment(result.finished) - _moment(result.started)
            self._add(vars(result.job), spent / result.job.n_stacked)

    def _add(self, job: Mapping[Any, Any], seconds: float) -> None:
        kind = job["task"], job["preset"], job["method"]
        for key in (kind, (*kind, job["unit"])):
            total, number = self._spent.get(key, (0.0, 0))
            self._spent[key] = total + seconds, number + 1

    def seconds(self, job: Job) -> float:
        """Return the mean of the method's jobs on that unit, or task, else what another machine's times say.

        Where they say nothing, a preflight is scaled, or a guess is made.

        Times are those on the clock: a job that found its fit on disk counts as a quick one.
        """
        for key in ((*_kind(job), job.unit), _kind(job)):
            if key in self._spent:
                total, number = self._spent[key]
                return total / number
        known = self.known(job)
        if known is not None:
            return known
        tried = self._tried.get((job.task, job.method))
        if tried is not None:
            return self._scaled(job, tried)
        return ROUGH[job.preset][0 if uses_gpu(job) else 1] * max(1.0, self.sizes[job.task])

    def costs(self, jobs: Iterable[Job]) -> dict[str, float]:
        """Return the seconds of each job by its id; what is left of a stack pays for all of it."""
        costs: dict[str, float] = {}
        for stack in stacks(jobs):
            beside = [(job.stack_units or job.unit, job.inner) for job in stack]
            left = Counter(beside)
            for job, others in zip(stack, beside, strict=True):
                costs[job.id] = self.seconds(job) * job.n_stacked / left[others]
        return costs

    def _scaled(self, job: Job, tried: Mapping[str, Any]) -> float:
        """Scale the smoke job's fit by values and by steps or epochs.

        The evaluation is not scaled: on small data it hardly grows, and real data are as large
        in a preflight as in a run.
        """
        larger = max(1.0, self.sizes[job.task] / tried["values"]) if tried["values"] else 1.0
        longer = max(1.0, length(job.config) / length(tried["config"]))
        growing = tried["fit"] - min(STARTUP, STARTUP_PART * tried["fit"])
        return tried["evaluate"] + tried["fit"] + growing * (larger * longer - 1)

    def left(self, jobs: Iterable[Job], n_workers: int) -> float:
        """Return the seconds until the last of ``n_workers`` processes ends, the longest jobs first."""
        jobs = list(jobs)
        costs = self.costs(jobs)
        ordered = stacks(in_order(jobs, costs))
        return makespan([self.between + sum(costs[job.id] for job in stack) for stack in ordered], n_workers)

    def total(self, jobs: Iterable[Job], n_workers: int) -> tuple[float, str]:
        """Return the seconds of a run of all jobs on ``n_workers`` processes, and how well they are known."""
        jobs = list(jobs)
        unmeasured = [job for job in jobs if _kind(job) not in self._spent]
        unknown = [job for job in unmeasured if self.known(job) is None]
        tried = all((job.task, job.method) in self._tried for job in unknown)
        basis = MEASURED if not unmeasured else KNOWN if not unknown else TRIED if tried else GUESSED
        return AROUND + self.left(jobs, n_workers), basis


def tried(out: Path) -> pd.DataFrame | None:
    """Return the rows of the preflight in an out directory, if there has been one."""
    import pandas as pd

    file = out / PREFLIGHT / "results.parquet"
    return pd.read_parquet(file) if file.exists() else None


def _between(starts: Iterable[float], ends: Iterable[float]) -> float:
    """Return the seconds from a job's end to the start of the next in its place, as a rule.

    Each start is put to the last end before it that has no start yet. Of these gaps the lower quartile is taken: some
    hold a pause between runs, or jobs whose results are gone.
    """
    free, gaps = list[float](), list[float]()
    for moment, is_start in sorted([*((time, 0) for time in ends), *((time, 1) for time in starts)]):
        if not is_start:
            free.append(moment)
        elif free:
            gaps.append(moment - free.pop())
    return sorted(gaps)[len(gaps) // 4] if gaps else BETWEEN


def _moment(iso: str) -> float:
    return datetime.fromisoformat(iso).timestamp()


def _kind(job: Job) -> tuple[str, ...]:
    """Return what jobs have in common that take about as long."""
    return job.task, job.preset, job.method


def length(config: Mapping[str, Any]) -> float:
    """Return what a fit's time is in proportion to: its steps, or the epochs that it is likely to use."""
    return config["steps"] if "steps" in config else EPOCHS_USED * config.get("max_epochs", 1)
