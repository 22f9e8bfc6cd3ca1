"""Shell completion: names of methods, tasks, metrics and data sets, also after a comma."""

from __future__ import annotations

from collections.abc import Iterable

from methods import METHODS
from metrics import METRICS
from tasks import DATASETS, TASKS, benchmark_names, benchmark_tags

ALL = "all"


def methods(incomplete: str) -> list[str]:
    """Return completions of ``--methods``: names, tags and ``all``."""
    return _after_comma(incomplete, [ALL, *METHODS, *_tags(cls.tags for cls in METHODS.values())])


def tasks(incomplete: str) -> list[str]:
    """Return completions of ``--tasks``: task/dataset names, tasks, tags and ``all``."""
    return _after_comma(incomplete, [ALL, *TASKS, *benchmark_names(), *_tags(map(benchmark_tags, benchmark_names()))])


def names(incomplete: str) -> list[str]:
    """Return completions of the argument of ``show``."""
    return _begun(incomplete, [*METHODS, *TASKS, *benchmark_names(), *METRICS, *DATASETS])


def datasets(incomplete: str) -> list[str]:
    """Return completions among the data sets that have files to fetch."""
    return _begun(incomplete, [name for name, dataset in DATASETS.items() if not dataset.simulated])


def _after_comma(incomplete: str, known: Iterable[str]) -> list[str]:
    """Return completions of the last name of a comma list, without the names that it has already."""
    before, comma, last = incomplete.rpartition(",")
    taken = set(before.split(","))
    return [f"{before}{comma}{name}" for name in _begun(last, known) if name not in taken]


def _begun(incomplete: str, known: Iterable[str]) -> list[str]:
    return [name for name in dict.fromkeys(known) if name.startswith(incomplete)]


def _tags(of_each: Iterable[frozenset[str]]) -> list[str]:
    return sorted(set().union(*of_each))
