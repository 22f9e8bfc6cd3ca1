"""The results of a run on disk: one JSON file a job, and one Parquet table gathered from them."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.files import read_sealed, replacing, write_sealed
from bench.job import FORMAT
from bench.pictures import LABELS
from bench.plan import ORACLE, TUNED
from tasks import TASKS

if TYPE_CHECKING:
    import pandas as pd
    from filelock import BaseFileLock

    from bench.plan import Job

#: A job with one of these is not run again; any other status is tried again by the next run.
FINISHED = ("ok", "skipped")

#: Where a job stands in the cross; code, data and configuration, which its id holds too, may change there.
PLACE = ("role", "method", "task", "unit", "seed", "preset")


class StoreError(Exception):
    """The out directory cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class Gathered:
    """All results of an out directory as rows.

    Attributes
    ----------
    rows
        One for each (job, metric), see :data:`COLUMNS`, oldest first.
    curves
        Training curves of methods: job_id, term, epoch, value.
    pictures
        Cells of all pictures (:mod:`bench.pictures`): job_id, x, y, labels, trained.
    """

    rows: pd.DataFrame
    curves: pd.DataFrame
    pictures: pd.DataFrame


class Store:
    """An out directory.

    Layout: ``jobs/<id>.json`` results, ``fits/`` the fit cache, ``logs/`` what jobs
    printed, ``results.parquet``, ``curves.parquet`` and ``pictures.parquet`` what is in them as rows,
    ``leaderboard.html``, ``.md`` and ``.csv``, ``mlflow.db`` and ``artifacts/``, ``index.json`` units and sizes of
    tasks, ``plan.json`` what was to be run, ``store.json`` the format of all this.

    Raises
    ------
    StoreError
        The directory cannot be written, or was written in another format.
    """

    def __init__(self, out: Path):
        self.out = out.resolve()
        self.jobs = self.out / "jobs"
        self.fits = self.out / "fits"
        self.parquet = self.out / "results.parquet"
        try:
            self.jobs.mkdir(parents=True, exist_ok=True)
            if not os.access(self.out, os.W_OK) or not os.access(self.jobs, os.W_OK):
                raise StoreError(f"{self.out}: not writable; choose another --out or change its permissions")
            found = self._format()
        except OSError as error:
            raise StoreError(f"{self.out}: not writable ({error.strerror}); choose another --out") from error
        if found != FORMAT:
            raise StoreError(
                f"{self.out}: written in format {found}, this version reads {FORMAT}; "
                "choose another --out, or use the version that wrote it"
            )

    def _format(self) -> Any:
        """Return the format of what is here; a stamp that is lost or spoilt is written anew where results say it."""
        stamp = self.out / "store.json"
        try:
            return json.loads(stamp.read_bytes())["format"]
        except (FileNotFoundError, ValueError, LookupError, TypeError, RecursionError) as error:
            files = list(self.jobs.iterdir())
            if files and not any(self.read(file.stem) for file in files):
                raise StoreError(
                    f"{self.out}: holds files in jobs/ but no readable result and no store.json that says what they "
                    "are; choose another --out, or remove jobs/ to start anew"
                ) from error
            with replacing(stamp) as temporary:
                temporary.write_text(json.dumps({"format": FORMAT}))
            return FORMAT

    def lock(self) -> BaseFileLock:
        """Return the lock that the one head working here holds, taken.

        Raises
        ------
        StoreError
            Another run holds it.
        """
        from filelock import FileLock, Timeout

        lock = FileLock(self.out / "lock")
        try:
            lock.acquire(timeout=1)  # a look whether it is held, as is_locked takes, is no other run
        except Timeout as error:
            raise StoreError(f"{self.out}: another run is at work here; wait for it or choose another --out") from error
        return lock

    def is_locked(self) -> bool:
        """Tell whether a head is at work here."""
        from filelock import FileLock, Timeout

        if not (self.out / "lock").exists():
            return False
        try:
            with FileLock(self.out / "lock").acquire(timeout=0):
                return False
        except Timeout:
            return True

    def file(self, job_id: str) -> Path:
        """Return where a job's result is, or would be."""
        return self.jobs / f"{job_id}.json"

    def read(self, job_id: str) -> dict[str, Any] | None:
        """Return a job's result; None where there is none or the file is not what was written (it is run again)."""
        result = read_sealed(self.file(job_id)) or {}
        job = result.get("job", {})
        return result if result.get("format") == FORMAT and job.get("id") == job_id else None

    def finished(self, job_id: str) -> dict[str, Any] | None:
        """Return the result of a job that need not be run again."""
        result = self.read(job_id)
        return result if result is not None and result["status"] in FINISHED else None

    def write(self, result: dict[str, Any]) -> None:
        """Write a job's result."""
        write_sealed(result, self.file(result["job"]["id"]))

    def results(self) -> Iterator[dict[str, Any]]:
        """Read all results, in the order of their ids."""
        for file in sorted(self.jobs.glob("*.json")):
            result = self.read(file.stem)
            if result is not None:
                yield result

    def index(self) -> dict[str, Any]:
        """Return what earlier plans found out about tasks."""
        return (read_sealed(self.out / "index.json") or {}).get("tasks", {})

    def write_index(self, index: dict[str, Any]) -> None:
        """Keep what was found out about tasks."""
        write_sealed({"tasks": index}, self.out / "index.json")

    def plan(self) -> dict[str, Any]:
        """Return ``jobs`` that runs here have planned, their ids with what they are, and the last ``run``."""
        plan = read_sealed(self.out / "plan.json") or {}
        return plan if {"jobs", "run"} <= set(plan) else {"jobs": {}, "run": {}}

    def write_plan(self, jobs: Iterable[Job], run: dict[str, str]) -> None:
        """Add to what is planned here.

        Commands that share a directory share its plan. A job that is planned anew, as its code, data or
        configuration has changed, takes the place of the old one.

        Parameters
        ----------
        jobs
            What is to be run.
        run
            ``invocation``, ``name`` and ``command`` of this run, as it is logged.
        """
        planned = {place(job): job_id for job_id, job in self.plan()["jobs"].items()}
        planned |= {place(vars(job)): job.id for job in jobs}
        content = {job_id: dict(zip(PLACE, where, strict=True)) for where, job_id in planned.items()}
        write_sealed({"run": run, "jobs": content}, self.out / "plan.json")

    def gather(self) -> Gathered:
        """Read all results, write them as Parquet and return them."""
        gathered = gather(self.results())
        for name in ("rows", "curves", "pictures"):
            with replacing(self.parquet if name == "rows" else self.out / f"{name}.parquet") as temporary:
                getattr(gathered, name).to_parquet(temporary, index=False)
        return gathered


def existing(out: Path) -> Store:
    """Return the store in a directory that has one; raises StoreError elsewhere."""
    if not (out / "store.json").exists():
        raise StoreError(f"{out}: no results there; name a run's directory with --out, or run first")
    return Store(out)


def gather(results: Iterable[dict[str, Any]]) -> Gathered:
    """Return results as rows."""
    curves, pictures = _Columns("job_id", "term", "epoch", "value"), _Columns("job_id", "x", "y", *LABELS, "trained")

    def noted() -> Iterator[dict[str, Any]]:
        for result in results:
            job_id = result["job"]["id"]
            if result["job"]["role"] == "method" and result["status"] == "ok":
                for term, values in result["curves"].items():
                    curves.add(len(values), job_id, term, range(len(values)), values)
                if result["picture"]:
                    columns = [result["picture"][name] for name in pictures.names[1:]]
                    pictures.add(len(columns[0]), job_id, *columns)
            yield result

    rows = tidy(noted()).sort_values(["finished", "job_id"], kind="stable", ignore_index=True)
    return Gathered(rows, curves.frame(), pictures.frame())


def place(job: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return where a job stands in the cross."""
    return tuple(job[key] for key in PLACE)


def _settings(job: Mapping[str, Any]) -> list[str]:
    """Return ``key=value`` of what the user changed; all of it where the method was tuned, as its label names none."""
    if job["method"].endswith((TUNED, ORACLE)):
        return [
            f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in job["config"].items()
        ]
    return job["method"].removeprefix(job["name"]).split("@")[1:]


class _Columns:
    """Columns of a table that grow by whole blocks of rows, so that no row is an object of its own."""

    def __init__(self, *names: str):
        self.names = names
        self._columns: tuple[list[Any], ...] = tuple([] for _ in names)

    def add(self, n_rows: int, *values: Any) -> None:
        """Add rows; a text stands for as many of it."""
        for column, value in zip(self._columns, values, strict=True):
            column.extend([value] * n_rows if isinstance(value, str) else value)

    def frame(self) -> pd.DataFrame:
        import pandas as pd

        return pd.DataFrame(dict(zip(self.names, self._columns, strict=True)))


COLUMNS = {
    "job_id": "str",
    "role": "str",
    "method": "str",
    "config": "str",
    "task": "str",
    "task_version": "int64",
    "unit": "str",
    "seed": "int64",
    "preset": "str",
    "metric": "str",
    "value": "float64",
    "primary": "bool",
    "two_sided": "bool",
    "better": "str",
    "status": "str",
    "reason": "str",
    "detail": "str",
    "n_cells": "int64",
    "n_genes": "int64",
    "x_taken_for": "str",
    "n_copies": "int64",
    "replicas": "int64",
    "warnings": "str",
    "log": "str",
    "fit_seconds": "float64",
    "evaluate_seconds": "float64",
    "peak_memory_mb": "float64",
    "method_digest": "str",
    "task_digest": "str",
    "data_digest": "str",
    "git_commit": "str",
    "dirty": "bool",
    "lock_sha256": "str",
    "versions": "str",
    "cpu": "str",
    "threads": "int64",
    "started": "str",
    "finished": "str",
    "replay": "str",
}


def tidy(results: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Return one row for each (job, metric); a job without scores has a row for each primary metric."""
    import pandas as pd

    rows = []
    for result in results:
        job, environment = result["job"], result["environment"]
        common = {
            **{key: job[key] for key in ("role", "method", "task", "task_version", "unit", "seed", "preset")},
            **{key: job[key] for key in ("method_digest", "task_digest", "data_digest")},
            **{key: result[key] for key in ("status", "reason", "detail", "started", "finished")},
            **{key: result[key] for key in ("fit_seconds", "evaluate_seconds", "peak_memory_mb")},
            **{key: environment[key] for key in ("git_commit", "dirty", "lock_sha256", "cpu", "threads")},
            "job_id": job["id"],
            "n_cells": result.get("n_cells", 0),
            "n_genes": result.get("n_genes", 0),
            "x_taken_for": job.get("x_taken_for", ""),
            "n_copies": job.get("n_copies", 0),
            "replicas": max(1, len(job.get("replicas", ()))),
            "two_sided": result["two_sided"],
            "config": json.dumps(job["config"], sort_keys=True),
            "warnings": "; ".join(result["warnings"]),
            "log": "; ".join(result["log"]),
            "versions": json.dumps(environment["versions"]),
            "replay": replay_command(job),
        }
        for name, about in result["metrics"].items():
            value = result["scores"].get(name)
            rows.append({**common, "metric": name, "value": float("nan") if value is None else value, **about})
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


def replay_command(job: dict[str, Any]) -> str:
    """Return the command that runs a job's method, task and seeds again, in a directory of its own."""
    task, own = job["task"], []
    if job["own"]:
        task = task.partition("/")[0]
        flag_of = {role: key.replace("_", "-") for key, role in TASKS[task].columns.items()}
        flag_of |= {"file": "data", "n_genes": "n-genes", "x": "x"}
        own = [part for role, value in job["own"].items() for part in (f"--{flag_of[role]}", value)]
    words = ["python", "-m", "bench", "run", "--methods", job["name"] or "no-change", "--tasks", task, *own]
    words += ["--preset", job["preset"], "--seeds", str(max([job["seed"], *job.get("replicas", ())]) + 1)]
    if job["role"] != "reference":
        for setting in _settings(job):
            words += ["--set", f"{job['name']}.{setting}"]
    for plugin in job["plugins"]:
        words += ["--plugin", plugin]
    return shlex.join([*words, "--out", "replay"])
