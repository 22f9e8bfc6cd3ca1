"""The request of a run, a tuning or a preflight: one object that the command line and :func:`bench.run` both make."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

from bench.plan import choose_asked_tasks, choose_methods, make_plan, with_budgets
from bench.plan.resources import visible_gpus
from bench.records import MethodSpec, Plan, PlanError

EXECUTORS = ("local", "inline", "slurm")
#: SLURM's settings among the resources, with their types.
SLURM: dict[str, type] = {
    "account": str,
    "array_parallelism": int,
    "constraint": str,
    "partition": str,
    "qos": str,
    "time": int,
}
#: Everything that ``--resources`` takes, with its type.
RESOURCES: dict[str, type] = {"gpus": int, "minutes": float, "memory": float, **SLURM}
#: Tasks of a SLURM array that run at a time where nothing is said; submitit's default.
ARRAY_PARALLELISM = 256


class Chosen(NamedTuple):
    """The methods, tasks and data that the words of a request stand for.

    Attributes
    ----------
    plugins
        Addresses that the process of a job must import.
    own
        A user's file with its fields; None for data of the catalogue.
    """

    methods: Sequence[MethodSpec]
    plugins: Sequence[str]
    tasks: Sequence[str]
    own: Mapping[str, str] | None


@dataclass(frozen=True, kw_only=True)
class Options:
    """A request.

    Attributes
    ----------
    methods
        Names, tags, globs, ``file.py:Class``, ``package.module:Class`` or ``all``, separated by commas.
    tasks
        ``task/dataset`` names, tags or globs, separated by commas. Empty: ``ood``; with ``data``, which tasks these can
        serve is said instead of a run.
    plugins
        Python files that register methods, tasks or metrics.
    settings
        Changes of configurations, each ``method.key=value``.
    preset, seeds, draws
        ``smoke``, ``default`` or ``paper``; number of seeds, None for the preset's; numbers of the draws of simulated
        data, None for the task's at the preset. Draws from 1,000 on are for development.
    spend
        Minutes in which whole draws are run, all methods and tasks on one after another; at least one is. Time decides
        and no result does, so that intervals hold.
    budget
        Multiples of the steps of training; each network has a row for each. Empty: the steps as they are.
    jobs
        Jobs at a time; None for the number of cores.
    executor
        ``local``: a process a job, with limits. ``inline``: this process, one job after another, without limits.
        ``slurm``: SLURM jobs.
    resources
        Limits and shares, by name (:data:`RESOURCES`): ``minutes`` a job may take (else 120), ``memory`` in GiB that it
        may hold (else its share of the machine), ``gpus`` that jobs with a network share (on SLURM: that each of them
        asks for), and SLURM's own settings, where ``time`` is the longest that a SLURM job may ask for, in minutes.
    data, columns, n_genes, x
        A user's ``.h5ad`` or ``.zarr``, for tasks that are named without a data set; its columns by their part
        (``{"unit": "cancer_type", "environment": "study"}``); how many genes are chosen in each training split (0 for
        all, None for 2000); and its expression: ``auto``, ``counts`` (decimals are rounded) or ``log``.
    out
        Directory of results.
    mlflow_uri
        MLflow tracking address; None for SQLite in ``out``.
    command
        How the same is asked for again.

    Raises
    ------
    bench.records.PlanError
        Options that do not go together, or an unknown resource.
    """

    methods: str = "all"
    tasks: str = ""
    plugins: Sequence[str | Path] = ()
    settings: Sequence[str] = ()
    preset: str = "default"
    seeds: int | None = None
    draws: Sequence[int] | None = None
    spend: float | None = None
    budget: Sequence[float] = ()
    jobs: int | None = None
    executor: str = "local"
    resources: Mapping[str, Any] = field(default_factory=dict)
    data: str | Path | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    n_genes: int | None = None
    x: str | None = None
    out: Path = Path("runs")
    mlflow_uri: str | None = None
    command: str = ""

    def __post_init__(self) -> None:
        if not self.tasks and self.data is None:
            object.__setattr__(self, "tasks", "ood")
        if self.executor not in EXECUTORS:
            raise PlanError(f"executor {self.executor!r}: one of {', '.join(EXECUTORS)} is needed")
        if unknown := set(self.resources) - set(RESOURCES):
            raise PlanError(f"resources: {', '.join(sorted(unknown))} is unknown; they are {', '.join(RESOURCES)}")
        of_slurm = [name for name in self.resources if name in SLURM]
        if of_slurm and self.executor != "slurm":
            raise PlanError(f"--resources {of_slurm[0]}=… is a setting of SLURM, and needs --executor slurm")
        if self.jobs and self.executor == "slurm":
            raise PlanError("--jobs is of this machine; on SLURM: --resources array_parallelism=…")
        if "gpus" in self.resources and self.executor == "inline":
            raise PlanError("--resources gpus=… needs --executor local: inline jobs all run in this process")

    @property
    def title(self) -> str:
        """The name of the run in MLflow."""
        return f"{self.methods} × {self.tasks} ({self.preset})"

    @property
    def minutes(self) -> float:
        """Minutes that a job may take."""
        return self.resources.get("minutes", 120.0)

    @property
    def memory_mb(self) -> float | None:
        """Megabytes that a job may hold; None where nothing was said."""
        return self.resources["memory"] * 1024 if "memory" in self.resources else None

    @property
    def gpus(self) -> int | None:
        """GPUs, as ``resources`` has them."""
        return self.resources.get("gpus")

    @property
    def slurm(self) -> dict[str, Any]:
        """SLURM's settings."""
        given = {name: value for name, value in self.resources.items() if name in SLURM}
        return {"array_parallelism": ARRAY_PARALLELISM, **given}

    @property
    def n_workers(self) -> int:
        """How many jobs run at a time."""
        if self.executor == "slurm":
            return self.slurm["array_parallelism"]
        return 1 if self.executor == "inline" else self.jobs or len(os.sched_getaffinity(0))

    @cached_property
    def chosen(self) -> Chosen:
        """The methods, tasks and data that the words stand for.

        Raises
        ------
        PlanError, bench.plan.plugins.PluginError, metrics.UnknownName, methods.base.ConfigError
            A name, file, column or key that is unknown.
        """
        methods, plugins = choose_methods(self.methods, self.preset, self.settings, [str(p) for p in self.plugins])
        if self.budget:
            methods = with_budgets(methods, self.preset, self.budget)
        tasks, own = choose_asked_tasks(self.tasks, self.data, self.columns, self.n_genes, self.x)
        return Chosen(methods, plugins, tasks, own)

    @cached_property
    def stacked(self) -> Literal["seeds", "units", "draws"]:
        """Which fits of a method are stacked, as :func:`bench.plan.make_plan` has them; more on a GPU."""
        if self.executor == "slurm" or not visible_gpus(self.gpus):  # SLURM hands out jobs one by one
            return "seeds"
        return "units" if self.spend else "draws"  # a run of minutes goes draw by draw

    def plan(self, index: dict[str, Any], draws: Sequence[int] | None = None) -> Plan:
        """Return the plan; new facts about tasks are added to ``index``, as by :func:`bench.plan.make_plan`.

        Parameters
        ----------
        draws
            Other draws than those of the request.
        """
        methods, plugins, tasks, own = self.chosen
        numbers = draws or self.draws
        return make_plan(methods, tasks, self.preset, self.seeds, plugins, index, own, numbers, self.stacked)


def read_pairs(option: str, text: str) -> dict[str, str]:
    """Read ``key=value,…`` of an option; PlanError where a part is something else."""
    pairs = {}
    for part in filter(None, re.split(r",(?=[\w-]+=)", text)):  # a value may hold a comma
        key, _, value = part.partition("=")
        if not key or not value:
            raise PlanError(f"{option} {part!r}: key=value is needed")
        pairs[key.strip().replace("-", "_")] = value
    return pairs


def read_draws(text: str) -> range:
    """Read ``--draws``: ``24`` is 0 to 23, ``1000:1008`` is 1,000 to 1,007; PlanError for anything else."""
    first, colon, end = text.rpartition(":")
    try:
        draws = range(int(first) if colon else 0, int(end))
    except ValueError:
        draws = range(0)
    if not draws or draws[0] < 0:
        raise PlanError(f"--draws {text}: a number above 0, or FIRST:END such as 1000:1008, is needed")
    return draws


def read_budget(text: str) -> tuple[float, ...]:
    """Read ``--budget``: numbers above 0, separated by commas; PlanError for anything else."""
    try:
        budgets = tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError:
        budgets = (0.0,)
    if not all(0 < budget < float("inf") for budget in budgets):
        raise PlanError(f"--budget {text}: numbers above 0, such as 0.1,0.3,1,3, are needed")
    return budgets


def read_resources(text: str) -> dict[str, Any]:
    """Read ``--resources``; PlanError where a key is unknown or a value is of the wrong type."""
    resources: dict[str, Any] = {}
    for key, value in read_pairs("--resources", text).items():
        if key not in RESOURCES:
            raise PlanError(f"--resources {key}={value}: the key is one of {', '.join(RESOURCES)}")
        try:
            resources[key] = RESOURCES[key](value)
        except ValueError:
            resources[key] = 0
        if RESOURCES[key] is not str and not 0 < resources[key] < float("inf"):
            kind = "whole number" if RESOURCES[key] is int else "number"
            raise PlanError(f"--resources {key}={value}: a {kind} above 0 is needed")
    return resources
