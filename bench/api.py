"""The Python interface: :func:`run` and :func:`leaderboard`, each of which returns DataFrames."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bench.environment import THREADS, limit_threads

if TYPE_CHECKING:
    import pandas as pd

    from bench.jobs.execute import Done
    from methods.base import Method


class Tables(NamedTuple):
    """A leaderboard as DataFrames, as ``leaderboard.csv`` and ``leaderboard_suite.csv`` have it.

    Attributes
    ----------
    tasks
        One row for each task, preset and method or reference: raw metrics, relative error with interval, verdict.
    suites
        One row for each preset and method over all tasks; empty where there is one task.
    notes
        Conclusions that cannot be drawn, and why.
    """

    tasks: pd.DataFrame
    suites: pd.DataFrame
    notes: list[str]


def run(
    methods: str | type[Method] | Sequence[str | type[Method]] = "all",
    tasks: str | Sequence[str] = "",
    *,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    data_dir: str | Path | None = None,
    progress: bool = False,
    **options: Any,
) -> pd.DataFrame:
    """Run methods on tasks, as ``python -m bench run`` does, and return the rows of results.

    Jobs that have a result in ``out`` are not run again. Rows, leaderboard and MLflow store are written there too.

    Parameters
    ----------
    methods
        Names, tags, globs, ``file.py:Class``, or classes. A class of a file that can be imported is run as
        ``file.py:Class``. One that is defined in a notebook or in the script itself cannot be imported by the
        processes that jobs run in: it needs ``executor="inline"``, or a file of its own. Its jobs are run anew
        each time, as nobody can tell whether the code that it uses has changed, and cannot be replayed.
    tasks
        ``task/dataset`` names, tags or globs; else ``ood``.
    settings
        Changes of configurations: ``{"vae": {"n_latent": 5}}``.
    data_dir
        Directory of original data files, else ``BENCH_DATA_DIR``.
    progress
        Print what the command line prints, with a progress bar.
    options
        Other fields of :class:`bench.options.Options`, such as ``preset``, ``seeds``, ``out``, ``jobs``, ``executor``,
        ``resources``, ``data`` and ``columns``. SLURM is for the command line alone.

    Returns
    -------
    pandas.DataFrame
        The rows of ``results.parquet`` that are of this plan: one for each (job, metric), also of references and of
        jobs that failed or were skipped, with status and reason.

    Raises
    ------
    bench.records.PlanError, bench.plan.plugins.PluginError, metrics.UnknownName, methods.base.ConfigError
        The request cannot be planned; nothing has been run.
    tasks.datasets.DataError, bench.keep.store.StoreError
        Data that a task cannot be run on; an ``out`` that cannot be used.

    Warns
    -----
    UserWarning
        Jobs failed, a task's data are absent, MLflow could not be reached, or numerical libraries have more threads
        than one in this process.

    Notes
    -----
    Processes of jobs have one thread each. So has this process from now on, unless numpy has been imported before:
    then inline jobs, and they alone, run with the threads that it has.
    """
    in_time = _limited()
    if options.get("executor") == "inline" and not in_time:
        warnings.warn(
            "numpy was imported before bench.run, with threads of its own: inline jobs may be slower, and differ by "
            "rounding; call bench.run first, or set OMP_NUM_THREADS=1 before Python starts",
            stacklevel=2,
        )
    from rich.console import Console

    from bench.jobs.execute import carry_out
    from bench.options import Options
    from bench.plan.digests import of_this_run
    from bench.records import PlanError
    from methods import METHODS

    if options.get("executor") == "slurm":
        raise PlanError("executor='slurm': 'local' or 'inline' is needed; SLURM is the command line's")
    of_this_run.cache_clear()
    asked = [methods] if isinstance(methods, str | type) else list(methods)
    with _data_directory(data_dir), _registered(asked) as addresses:
        request = Options(
            **{
                **options,
                "methods": ",".join(addresses),
                "tasks": tasks if isinstance(tasks, str) else ",".join(tasks),
                "settings": _as_set(settings or {}),
                "out": Path(options.get("out", "runs")),
                "command": f"bench.run({addresses!r}, {tasks!r}, **{options!r})",
            }
        )
        stuck = [spec.name for spec in request.chosen.methods if METHODS[spec.name].__module__ == "__main__"]
        if stuck and request.executor != "inline":
            raise PlanError(
                f"{', '.join(stuck)}: defined in a notebook or in the script itself, which the processes of jobs "
                "cannot import; put the class into a file and name it 'file.py:Class', or run it here, without limits "
                "on time and memory, with executor='inline'"
            )
        done = carry_out(request, Console() if progress else Console(quiet=True))
        _warn(done)
        rows = done.store.gather().rows
    return rows[rows["job_id"].isin({job.id for job in done.plan.jobs})].reset_index(drop=True)


def leaderboard(results: pd.DataFrame | str | Path = "runs", tasks: str = "") -> Tables:
    """Return the leaderboard of results as DataFrames.

    Parameters
    ----------
    results
        Rows that :func:`run` returned, also several concatenated, or a directory of results.
    tasks
        Only these: names, tags, globs, separated by commas.

    Raises
    ------
    bench.keep.store.StoreError
        No results in that directory.
    """
    import leaderboard as tables
    from bench.keep.archive import gathered
    from bench.plan import choose_tasks

    rows = gathered(Path(results)).rows if isinstance(results, str | Path) else results
    if tasks:
        rows = rows[rows["task"].isin(choose_tasks(tasks))]
    board = tables.build(rows)
    return Tables(*tables.frames(board), board.notes)


@cache
def _limited() -> bool:
    """Limit the threads of numerical libraries, once, and return whether numpy had not been imported before."""
    in_time = "numpy" not in sys.modules or os.environ.get("OMP_NUM_THREADS") == THREADS["OMP_NUM_THREADS"]
    limit_threads()
    return in_time


@contextlib.contextmanager
def _registered(asked: Sequence[str | type[Method]]) -> Iterator[list[str]]:
    """Yield the names for ``--methods``; classes of the main module are registered until the context ends."""
    from bench.records import PlanError
    from methods import METHODS, register_method
    from methods.base import Method

    ours: list[str] = []
    addresses: list[str] = []
    try:
        for method in asked:
            if isinstance(method, str):
                addresses.append(method)
                continue
            if not (isinstance(method, type) and issubclass(method, Method)):
                raise PlanError(
                    f"methods: {method!r} is neither a name nor a class that derives from methods.base.Method"
                )
            name = getattr(method, "name", "")
            if method.__module__ != "__main__" and not (name in METHODS and METHODS[name] is method):
                addresses.append(f"{inspect.getfile(method)}:{method.__qualname__}")
                continue
            if not (name in METHODS and METHODS[name] is method):
                try:
                    register_method(method)
                except (AttributeError, ValueError) as error:
                    raise PlanError(f"methods: {method.__qualname__}: {error}") from error
                ours.append(name)
            addresses.append(name)
        yield addresses
    finally:
        for name in ours:
            METHODS.forget(name)


@contextlib.contextmanager
def _data_directory(data_dir: str | Path | None) -> Iterator[None]:
    """Look for data in a directory until the context ends."""
    from tasks.datasets import DataError

    if data_dir is None:
        yield
        return
    if not Path(data_dir).is_dir():
        raise DataError(f"data_dir={str(data_dir)!r}: there is no such directory")
    before = os.environ.get("BENCH_DATA_DIR")
    os.environ["BENCH_DATA_DIR"] = str(Path(data_dir).resolve())
    try:
        yield
    finally:
        del os.environ["BENCH_DATA_DIR"]
        if before is not None:
            os.environ["BENCH_DATA_DIR"] = before


def _as_set(settings: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return settings as ``--set`` takes them."""
    return [
        f"{name}.{key}={value if isinstance(value, str) else json.dumps(value)}"
        for name, changes in settings.items()
        for key, value in changes.items()
    ]


def _warn(done: Done) -> None:
    """Warn where the command line would print a line in red."""
    lines = [f"{task} was not run: {reason}" for task, reason in done.plan.absent.items()]
    if done.outcome is not None and not done.outcome.ok:
        counts = ", ".join(f"{number} {status}" for status, number in sorted(done.outcome.counts.items()))
        lines.append(f"not every job ended well ({counts}): see status and reason of the rows")
    if done.outcome is not None and done.outcome.tracking_error:
        lines.append(f"MLflow at {done.uri} failed ({done.outcome.tracking_error}); results are safe")
    for line in lines:
        warnings.warn(line, stacklevel=3)
