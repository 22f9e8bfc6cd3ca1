"""A static site of one or several runs: pages that :mod:`leaderboard` makes of their rows, and an index to choose from.

A page chooses among its tasks itself. What asks for other intervals has a page of its own: each seed and each version
of a run, and all data sets of one task, or all tasks of one data set, together.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bench.keep.archive import gathered, is_archive
from bench.keep.boards import made_at, write_leaderboard
from bench.keep.files import replacing
from bench.records import SUBMITTED, PlanError, Status

if TYPE_CHECKING:
    import pandas as pd


def write_site(archives: Sequence[Path], into: Path, header: Sequence[str], say: Callable[[str], None]) -> Path:
    """Write the site into a new directory; return its index.

    Parameters
    ----------
    archives
        Directories of results, or their ``results.parquet``.
    into
        Where it goes: a directory that is empty or not there.
    header
        Lines about how it was made.
    say
        Called with the address of each page.

    Raises
    ------
    bench.records.PlanError
        The directory has files: they would look like a part of the site.
    bench.keep.store.StoreError
        As :func:`bench.keep.archive.gathered`.
    """
    from leaderboard.site import ALL, entries, to_index

    if into.exists() and (not into.is_dir() or any(into.iterdir())):
        raise PlanError(f"--into {into}: it is there already; name a new directory, or remove it")
    runs = dict(zip(_names(archives), map(gathered, archives), strict=True))
    found, about, files = [], list(header), []
    for run, results in runs.items():
        for choice in _choices(results.rows):
            parts = [choice.version, f"seed {choice.seed}", *filter(None, [choice.scope])]
            page = f"{run}/{_address('-'.join(parts))}/leaderboard.html"
            selected, title = replace(results, rows=choice.rows), ", ".join([run, *parts])
            board, _ = write_leaderboard([selected], (into / page).parent, header, ["html"], title=title)
            of_page = entries(board, page, run, choice.version, choice.seed, SUBMITTED)
            # the tables of single tasks are those of the page without a scope
            found += [one for one in of_page if not choice.scope or ALL in (one.task, one.data_set)]
            say(page)
        files.append(f"{run}/results.parquet")
        results.rows.to_parquet(into / files[-1])
        about += [f"{run}: {line}" for line in made_at(results.rows)]
    with replacing(into / "index.html") as temporary:
        temporary.write_text(to_index(found, about, files))
    return into / "index.html"


@dataclass(frozen=True)
class _Choice:
    """Some rows of a run; the scope is a task or a data set, empty for all."""

    version: str
    seed: str
    scope: str
    rows: pd.DataFrame


def _choices(rows: pd.DataFrame) -> list[_Choice]:
    """Return what has a page of its own; of several choices that come to the same jobs, the one that says most."""
    commits = rows["git_commit"].str[:7].replace("", "unknown") + rows["dirty"].map({True: "+changes", False: ""})
    found: dict[frozenset[str], _Choice] = {}
    for version, of_version in _each(rows, commits):
        for seed, of_seed in _each(of_version, of_version["seed"].astype(str)):
            for scope, of_scope in _scopes(of_seed):
                jobs = frozenset(of_scope.loc[of_scope["status"] != Status.SKIPPED, "job_id"])
                found[jobs] = _Choice(version, seed, scope, of_scope)
    return list(found.values())


def _each(rows: pd.DataFrame, values: pd.Series) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield all rows, then, where there are several values, those of each, with the methods skipped on its tasks."""
    from leaderboard.site import ALL

    skipped = rows["status"] == Status.SKIPPED
    named = list(dict.fromkeys(values[~skipped]))
    yield (named[0] if len(named) == 1 else ALL), rows
    for value in named if len(named) > 1 else []:
        own = ~skipped & (values == value)
        yield value, rows[own | (skipped & rows["task"].isin(rows.loc[own, "task"]))]


def _scopes(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield all rows, then those of each task on several data sets, and of each data set with several tasks."""
    yield "", rows
    for part in (0, 2):
        for name, own in rows.groupby(rows["task"].map(lambda task, part=part: task.partition("/")[part]), sort=False):
            if 1 < own["task"].nunique() < rows["task"].nunique():
                yield str(name), own


def _names(archives: Sequence[Path]) -> list[str]:
    """Return a name for each run, of its file or directory, that is fit for an address."""
    names: list[str] = []
    for archive in archives:
        own = archive.resolve()
        own = own.parent if own.name == "results.parquet" else own
        name = _address(own.stem if is_archive(own) else own.name) or "run"
        names.append(name if name not in names else f"{name}-{len(names) + 1}")
    return names


def _address(text: str) -> str:
    """Return text as a part of an address."""
    return re.sub(r"[^\w.+-]+", "-", text)
