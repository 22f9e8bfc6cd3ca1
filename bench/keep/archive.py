"""Results by the directory they were made in, or by its ``results.parquet`` alone, which may lie anywhere.

The one file, a few bytes for each value, has what the leaderboard needs and what says how each job was made, so that a
table that is published can be made again, and its rows replayed, without the directory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.keep.store import Gathered, StoreError, existing, gather
from bench.records import COLUMNS, MOST_STACKED, Job, Result, Status, stack_of

if TYPE_CHECKING:
    import pandas as pd

#: Columns that are the result's environment.
ENVIRONMENT = ("git_commit", "dirty", "lock_sha256", "cpu", "threads")


def is_archive(out: Path) -> bool:
    """Return whether a path names rows in a file, and no directory of results."""
    return out.suffix == ".parquet"


def gathered(out: Path, write: bool = False) -> Gathered:
    """Return all results of a directory, or of its ``results.parquet``, as rows; a file has no curves and pictures.

    Parameters
    ----------
    write
        Also bring a directory's ``results.parquet`` up to date.

    Raises
    ------
    bench.keep.store.StoreError
        There are no results, or not those of this version.
    """
    if not is_archive(out):
        store = existing(out)
        return store.gather() if write else gather(store.results())
    nothing = gather([])
    return Gathered(_rows(out), nothing.curves, nothing.pictures)


def results(out: Path) -> Iterator[Result]:
    """Return all results of a directory, or of its ``results.parquet``; raises as :func:`gathered`."""
    if not is_archive(out):
        return existing(out).results()
    return (_result(rows) for _, rows in _rows(out).groupby("job_id", sort=False))


def _rows(file: Path) -> pd.DataFrame:
    import pandas as pd

    try:
        rows = pd.read_parquet(file)
    except (OSError, ValueError) as error:
        raise StoreError(f"{file}: not a readable Parquet file ({error}); give the results.parquet of a run") from error
    if lacking := set(COLUMNS) - set(rows):
        raise StoreError(
            f"{file}: has no column {', '.join(sorted(lacking))}; give the results.parquet of a run of this version"
        )
    return rows.astype(COLUMNS)


def _stack(seed: int, n_stacked: int, log: str) -> tuple[int, ...]:
    """Return the seeds whose fits were stacked; a row does not say of which units those on a GPU were."""
    if n_stacked == 1 or "trained on a GPU" in log:
        return ()
    return stack_of(seed, seed - seed % MOST_STACKED + n_stacked)


def _result(rows: pd.DataFrame) -> Result:
    """Return a result from its rows, one for each metric.

    Raises
    ------
    StoreError
        They do not say all that the job depends on.
    """
    import pandas as pd

    first: dict[str, Any] = {str(name): value for name, value in rows.iloc[0].items()}
    status = Status(first["status"])
    draw = first["draw"]
    shared = {name: first[name] for name in ("method", "task", "unit", "preset", "x_taken_for")}
    digests = {name: first[name] for name in ("method_digest", "task_digest", "data_digest")}
    job = Job(
        role=first["role"],
        name="" if first["role"] == "reference" else str(first["method"]).partition("@")[0],
        config=json.loads(first["config"]),
        plugins=tuple(json.loads(first["plugins"])),
        own=json.loads(first["own"]),
        task_version=int(first["task_version"]),
        seed=int(first["seed"]),
        skip=first["reason"] if status is Status.SKIPPED else "",
        draw=None if pd.isna(draw) else int(draw),
        n_copies=int(first["n_copies"]),
        stack=_stack(int(first["seed"]), int(first["n_stacked"]), first["log"]),
        id=first["job_id"],
        **shared,
        **digests,
    )
    about = {
        str(row["metric"]): {key: row[key] for key in ("primary", "better", "best")} for row in rows.to_dict("records")
    }
    values = rows.set_index("metric")["value"]
    return Result(
        job=job,
        status=status,
        scores={str(name): None if value != value else float(value) for name, value in values.items()},
        metrics=about,
        two_sided=bool(first["two_sided"]),
        one_fit=bool(first["one_fit"]),
        environment={**{name: first[name] for name in ENVIRONMENT}, "versions": json.loads(first["versions"])},
        reason=first["reason"],
        detail=first["detail"],
        started=first["started"],
        finished=first["finished"],
        fit_seconds=float(first["fit_seconds"]),
        evaluate_seconds=float(first["evaluate_seconds"]),
        peak_memory_mb=float(first["peak_memory_mb"]),
    )
