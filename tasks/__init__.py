"""The registry of tasks. A task and a data set make a benchmark, named ``task/dataset``."""

from collections.abc import Mapping

from metrics.registry import Registry, UnknownName
from tasks.base import Task
from tasks.datasets import DATASETS, Fields
from tasks.datasets.own import OwnData

__all__ = ["DATASETS", "TASKS", "Task", "benchmark_names", "benchmark_tags", "load_task", "register_task"]

TASKS = Registry(
    "task",
    {
        "reembedding": "tasks.reembedding:Reembedding",
        "unseen-cell-type": "tasks.unseen_cell_type:UnseenCellType",
        "latent-recovery": "tasks.latent_recovery:LatentRecovery",
        "shared-private": "tasks.shared_private:SharedPrivate",
        "class-content": "tasks.class_content:ClassContent",
        "factors": "tasks.factors:Factors",
        "unseen-perturbation": "tasks.unseen_perturbation:UnseenPerturbation",
        "few-shot-perturbation": "tasks.unseen_perturbation:FewShotPerturbation",
        "unseen-mixture": "tasks.unseen_mixture:UnseenMixture",
        "fate": "tasks.fate:Fate",
    },
)


def register_task(cls: type[Task]) -> type[Task]:
    """Register a task class under its ``name``; a name that is taken raises ValueError."""
    TASKS.register(cls.name, cls)
    return cls


def benchmark_names() -> list[str]:
    """Return every ``task/dataset``."""
    return [f"{name}/{dataset}" for name in TASKS for dataset in TASKS[name].datasets]


def benchmark_tags(name: str) -> frozenset[str]:
    """Return the tags of ``task/dataset``: the task's, and ``simulated`` or ``real`` from its data.

    A stress test has neither the task's tags nor ``quick``: it is run when it is asked for.
    """
    task, _, dataset = name.partition("/")
    if dataset in TASKS[task].stress:
        return frozenset({"stress", "simulated"})
    simulated = DATASETS[dataset].simulated
    return TASKS[task].tags | ({"simulated", "quick"} if simulated else {"real"})


def load_task(name: str, preset: str, own: Mapping[str, str] | None = None, draw: int | None = None) -> Task:
    """Return the task named ``task/dataset`` at a size preset; its data are read when first needed.

    Parameters
    ----------
    name, preset
        Which task on which data set, how large.
    own
        For data of the user's: ``file``, ``n_genes``, ``x`` and the fields of :class:`tasks.datasets.Fields`.
    draw
        Which draw of a simulator; None is the first.

    Raises
    ------
    UnknownName
        No such task, or the task does not run on that data set.
    """
    task, _, dataset = name.partition("/")
    cls = TASKS[task]
    if own:
        fields = {key: value for key, value in own.items() if key not in ("file", "n_genes", "x")}
        return cls(OwnData(own["file"], Fields(**fields), int(own["n_genes"]), own["x"]), preset)
    if dataset not in cls.datasets:
        raise UnknownName("task", name, benchmark_names())
    return cls(DATASETS[dataset], preset, draw=draw or 0)
