"""The nouns of a run: a method with its settings, a job, how it ended, its result, and the plan of all jobs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal

#: Incremented whenever older results can no longer be read; a directory of another format is refused.
FORMAT = 5
#: The unit of a job that stands for a whole method × task, which is skipped.
WHOLE = "*"
#: Seeds of a unit whose fits are stacked at most.
MOST_STACKED = 8
#: Added to the label of a method whose configuration was tuned for each unit: without seeing the unit, and, as an upper
#: bound, on the unit itself.
TUNED, ORACLE = "@tuned", "@oracle"
#: Added to the name of a method whose answers were handed in as files.
SUBMITTED = " (submitted)"


class PlanError(ValueError):
    """The request cannot be planned; the message says what was got and what is allowed."""


class FileQuestion(PlanError):
    """A file without a task: nothing is planned, and the message says what the file can serve."""


class Status(StrEnum):
    """How a job ended."""

    OK = "ok"
    FAILED = "failed"
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out_of_memory"
    KILLED = "killed"
    SKIPPED = "skipped"

    @property
    def final(self) -> bool:
        """Whether the job is not run again; a job with any other status is tried again by the next run."""
        return self in (Status.OK, Status.SKIPPED)


@dataclass(frozen=True)
class MethodSpec:
    """A method and the user's changes of its configuration, under the label that its rows carry."""

    label: str
    name: str
    changes: Mapping[str, Any]

    @classmethod
    def of(cls, name: str, changes: Mapping[str, Any]) -> MethodSpec:
        """Return a method with changes, labelled by both: ``name@key=value``."""
        return cls(name + "".join(f"@{key}={value}" for key, value in sorted(changes.items())), name, changes)


@dataclass(frozen=True)
class Job:
    """One method (or reference) on one task, unit and seed: all that its result depends on.

    Attributes
    ----------
    role
        ``oracle`` is a method whose configuration was chosen by its scores on the held-out unit.
    method, name
        Its label in tables, and its name in the registry (empty for a reference).
    plugins
        Addresses of files and packages that must be imported to know the method.
    own
        File and fields of a user's own data; empty for a data set of the catalogue.
    inner
        A unit that is left when ``unit`` is held out (:meth:`tasks.base.Task.inner`) and is scored in its place; empty
        where ``unit`` itself is scored.
    skip
        Why it is not run; empty where it is run.
    draw
        Number of the draw of a simulated data set; None where there is one data set alone.
    x_taken_for, n_copies
        What kind of expression the data have, and how many of their cells are exact copies of another cell.
    stack, stack_units
        Seeds of the jobs, this one among them, whose fits are stacked; empty where the job's seed is fitted alone. On a
        GPU the fits of several units may be stacked, each with all of these seeds; empty where they are not.
    id
        Hash of everything that the result depends on.
    """

    role: Literal["method", "reference", "oracle"]
    method: str
    name: str
    config: Mapping[str, Any]
    task: str
    task_version: int
    unit: str
    seed: int
    preset: str
    method_digest: str
    task_digest: str
    data_digest: str
    plugins: tuple[str, ...] = ()
    own: Mapping[str, str] = field(default_factory=dict)
    inner: str = ""
    skip: str = ""
    draw: int | None = None
    x_taken_for: str = field(default="", compare=False)
    n_copies: int = field(default=0, compare=False)
    stack: tuple[int, ...] = field(default=(), compare=False)
    stack_units: tuple[str, ...] = field(default=(), compare=False)
    id: str = field(default="", compare=False)

    def with_id(self) -> Job:
        """Return the job with its id. Where files lie does not matter, their content does."""
        ignored = {"id", "plugins", "own", "stack", "stack_units", "x_taken_for", "n_copies"}
        ignored |= set() if self.inner else {"inner"}
        content = {key: value for key, value in asdict(self).items() if key not in ignored}
        return replace(self, id=hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16])

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Job:
        """Return the job that was stored as ``content``; TypeError or KeyError where it is of another version."""
        lists = {key: tuple(content[key]) for key in ("plugins", "stack", "stack_units") if key in content}
        return cls(**{**content, **lists})

    def alone(self) -> Job:
        """Return the job without its stack."""
        return replace(self, stack=(), stack_units=())

    def stacked(self) -> list[Job]:
        """Return all jobs of the stack, this one among them."""
        units = self.stack_units or (self.unit,)
        draws = [self.draw if self.draw is None else draw_of(unit) for unit in units]
        at = [replace(self, unit=unit, draw=draw) for unit, draw in zip(units, draws, strict=True)]
        return [replace(job, seed=seed).with_id() for job in at for seed in self.stack or (self.seed,)]

    @property
    def n_stacked(self) -> int:
        """The number of jobs of the stack."""
        return max(1, len(self.stack)) * max(1, len(self.stack_units))

    @property
    def place(self) -> tuple[str, str, str, str, int, str]:
        """The job's position in the cross. Code, data and configuration may change there; the id changes with them."""
        return self.role, self.method, self.task, self.unit, self.seed, self.preset

    @property
    def path(self) -> str:
        """The job's names, METHOD/TASK/DATASET/UNIT/SEED."""
        return f"{self.method}/{self.task}/{self.unit}/{self.seed}"

    @property
    def held_out(self) -> str:
        """The unit's name within its draw."""
        return self.unit.removeprefix(f"draw{self.draw}/")

    @property
    def title(self) -> str:
        """The job's name in progress, logs and MLflow."""
        inner = f" · inner {self.inner}" if self.inner else ""
        where = f"{self.task} · {self.unit}{inner} · seed {self.seed}" if self.unit != WHOLE else self.task
        return f"{self.method} · {where}"


def stack_of(seed: int, n_seeds: int) -> tuple[int, ...]:
    """Return the seeds, of those from 0 to ``n_seeds`` − 1, whose fits are stacked with that of ``seed``."""
    first = seed - seed % MOST_STACKED
    stack = tuple(range(first, min(first + MOST_STACKED, n_seeds)))
    return stack if len(stack) > 1 else ()


def unit_of_draw(unit: str, draw: int) -> str:
    """Return the name that a unit of a simulator's first draw has in another draw."""
    return f"draw{draw}" if unit == "draw0" else f"draw{draw}/{unit}"


def draw_of(unit: str) -> int:
    """Return the number of the draw that a unit of simulated data belongs to."""
    return int(unit.partition("/")[0].removeprefix("draw"))


@dataclass(frozen=True)
class Plan:
    """All jobs of a run, and the tasks that could not be planned.

    Attributes
    ----------
    absent
        For each task that could not be planned the reason.
    sizes
        For each task its number of cells times genes, in millions; for the estimate of time.
    selections
        For each task that does not use all genes of its data, how many of how many.
    notes
        Sentences about the data, each once.
    """

    jobs: tuple[Job, ...]
    absent: Mapping[str, str]
    sizes: Mapping[str, float]
    selections: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def invocation(self) -> str:
        """A hash of the request: the same command on the same code and data has the same hash."""
        return hashlib.sha256("".join(sorted(job.id for job in self.jobs)).encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Result:
    """How a job ended, as it is stored.

    Attributes
    ----------
    reason, detail, traceback
        Why it failed or was skipped; which registered method a reference took; where it failed.
    n_cells, n_genes
        Size of the largest training data of its fits.
    scores
        Values by metric; None where a metric is undefined.
    metrics
        For each metric, also those without a value: whether it is ``primary``, which value is ``better``, and the
        ``best`` possible one.
    two_sided, one_fit
        As the task (:class:`tasks.base.Task`) has them.
    curves
        Training curves of the last fit by loss term.
    picture
        Codes in two dimensions (:mod:`bench.jobs.pictures`); empty for most jobs.
    warnings, log
        Why fits did not converge, and the methods' remarks.
    fit_seconds, evaluate_seconds, peak_memory_mb
        Time of its fits when they were made, time of everything else, and resident memory of its process.
    started, finished
        Times in ISO format, UTC.
    environment
        Versions, commit and hardware (:func:`bench.environment.describe`).
    """

    job: Job
    status: Status
    reason: str = ""
    detail: str = ""
    traceback: str = ""
    n_cells: int = 0
    n_genes: int = 0
    scores: Mapping[str, float | None] = field(default_factory=dict)
    metrics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    two_sided: bool = False
    one_fit: bool = False
    curves: Mapping[str, list[float | None]] = field(default_factory=dict)
    picture: Mapping[str, list[Any]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    fit_seconds: float = 0.0
    evaluate_seconds: float = 0.0
    peak_memory_mb: float = 0.0
    started: str = ""
    finished: str = ""
    environment: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the result in its stored form."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Result:
        """Return the result that was stored as ``content``; TypeError, KeyError or ValueError where it is none."""
        values = {key: value for key, value in content.items() if key != "format"}
        return cls(**{**values, "job": Job.from_json(values["job"]), "status": Status(values["status"])})

    def rows(self, replay: str) -> list[dict[str, Any]]:
        """Return a row for each metric, with the columns of :data:`COLUMNS`.

        Parameters
        ----------
        replay
            The command that runs the job again.
        """
        values = {
            **self.environment,
            **vars(self.job),
            **vars(self),
            "status": str(self.status),
            "job_id": self.job.id,
            "n_stacked": self.job.n_stacked,
            "config": json.dumps(dict(self.job.config), sort_keys=True),
            "plugins": json.dumps(self.job.plugins),
            "own": json.dumps(dict(self.job.own), sort_keys=True),
            "versions": json.dumps(self.environment["versions"]),
            "warnings": "; ".join(self.warnings),
            "log": "; ".join(self.log),
            "replay": replay,
        }
        common = {name: values[name] for name in COLUMNS if name in values}
        return [
            {**common, **about, "metric": metric, "value": float("nan") if value is None else value}
            for metric, about in self.metrics.items()
            for value in [self.scores.get(metric)]
        ]


#: Columns of ``results.parquet`` with their types: one row is one metric of one result.
COLUMNS: dict[str, str] = {
    **dict.fromkeys(("job_id", "role", "method", "config", "plugins", "task", "own"), "str"),
    "task_version": "int64",
    "unit": "str",
    "draw": "Int64",
    "seed": "int64",
    **dict.fromkeys(("preset", "metric"), "str"),
    "value": "float64",
    **dict.fromkeys(("primary", "two_sided", "one_fit"), "bool"),
    "best": "float64",
    **dict.fromkeys(("better", "status", "reason", "detail"), "str"),
    **dict.fromkeys(("n_cells", "n_genes"), "int64"),
    "x_taken_for": "str",
    **dict.fromkeys(("n_copies", "n_stacked"), "int64"),
    **dict.fromkeys(("warnings", "log"), "str"),
    **dict.fromkeys(("fit_seconds", "evaluate_seconds", "peak_memory_mb"), "float64"),
    **dict.fromkeys(("method_digest", "task_digest", "data_digest", "git_commit"), "str"),
    "dirty": "bool",
    **dict.fromkeys(("lock_sha256", "versions", "cpu"), "str"),
    "threads": "int64",
    **dict.fromkeys(("started", "finished", "replay"), "str"),
}
