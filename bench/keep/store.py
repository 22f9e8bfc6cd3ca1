"""The results of a run on disk: one JSON file a job, and one Parquet table gathered from them."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.keep.files import read_sealed, replacing, write_sealed
from bench.records import COLUMNS, FORMAT, ORACLE, SUBMITTED, TUNED, Job, Result, Status
from tasks import TASKS

if TYPE_CHECKING:
    import pandas as pd
    from filelock import BaseFileLock


class StoreError(Exception):
    """The out directory cannot be used; the message says why, and what to do."""


@dataclass(frozen=True)
class Gathered:
    """All results of an out directory as rows.

    Attributes
    ----------
    rows
        One for each (job, metric), see :data:`bench.records.COLUMNS`, oldest first.
    curves
        Training curves of methods: job_id, term, epoch, value.
    pictures
        Cells of all pictures (:mod:`bench.jobs.pictures`): job_id, x, y, labels, trained.
    """

    rows: pd.DataFrame
    curves: pd.DataFrame
    pictures: pd.DataFrame


class Store:
    """An out directory.

    Layout: ``jobs/<id>.json`` results, ``fits/`` the fit cache, ``logs/`` what jobs
    printed, ``results.parquet``, ``curves.parquet`` and ``pictures.parquet`` what is in them as rows,
    ``leaderboard.html``, ``.md`` and ``.csv``, ``mlflow.db`` and ``artifacts/``, ``index.json`` units and sizes of
    tasks, ``plan.json`` what was to be run, ``now.json`` what runs now, ``store.json`` the format of all this.

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
            self.out.mkdir(parents=True, exist_ok=True)
            found = self._format()
            if found != FORMAT:
                raise StoreError(
                    f"{self.out}: written in format {found}, this version reads {FORMAT}; run the same command again "
                    "with another --out, or use the version that wrote it"
                )
            self.jobs.mkdir(exist_ok=True)
            if not os.access(self.out, os.W_OK) or not os.access(self.jobs, os.W_OK):
                raise StoreError(f"{self.out}: not writable; choose another --out or change its permissions")
        except OSError as error:
            raise StoreError(f"{self.out}: not writable ({error.strerror}); choose another --out") from error

    def _format(self) -> Any:
        """Return the format of the directory; a lost or damaged stamp is made anew where results have it."""
        stamp = self.out / "store.json"
        try:
            return json.loads(stamp.read_bytes())["format"]
        except (FileNotFoundError, ValueError, LookupError, TypeError, RecursionError) as error:
            files = list(self.jobs.glob("*"))
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
            lock.acquire(timeout=1)  # is_locked, which is no run, holds the lock for a moment
        except Timeout as error:
            raise StoreError(f"{self.out}: another run is at work here; wait for it or choose another --out") from error
        (self.out / "now.json").unlink(missing_ok=True)  # left by a head that was killed
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

    def read(self, job_id: str) -> Result | None:
        """Return a job's result; None where there is none or the file is not what was written (it is run again)."""
        content = read_sealed(self.file(job_id)) or {}
        if content.get("format") != FORMAT or content.get("job", {}).get("id") != job_id:
            return None
        try:
            return Result.from_json(content)
        except (KeyError, TypeError, ValueError):  # of another version of the program
            return None

    def finished(self, job_id: str) -> Result | None:
        """Return the result of a job that need not be run again."""
        result = self.read(job_id)
        return result if result is not None and result.status.final else None

    def write(self, result: Result) -> None:
        """Write a job's result."""
        write_sealed(result.to_json(), self.file(result.job.id))

    def results(self) -> Iterator[Result]:
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
        """Return ``jobs`` that runs here have planned, their ids with their places, and the last ``run``."""
        plan = read_sealed(self.out / "plan.json") or {}
        return plan if {"jobs", "run"} <= set(plan) else {"jobs": {}, "run": {}}

    def write_plan(self, jobs: Iterable[Job], run: dict[str, str]) -> None:
        """Add to what is planned here.

        Commands that share a directory share its plan. A job that is planned anew, as its code, data or
        configuration has changed, takes the place of the old one.

        Parameters
        ----------
        jobs
            The jobs of this run.
        run
            ``invocation``, ``name`` and ``command`` of this run, as it is logged.
        """
        planned = {tuple(place): job_id for job_id, place in self.plan()["jobs"].items()}
        planned |= {job.place: job.id for job in jobs}
        write_sealed({"run": run, "jobs": {job_id: place for place, job_id in planned.items()}}, self.out / "plan.json")

    def now(self) -> dict[str, Any]:
        """Return what :meth:`write_now` wrote; nothing runs where it has written nothing."""
        return read_sealed(self.out / "now.json") or {"running": [], "ends": None}

    def write_now(self, running: Iterable[Mapping[str, str]], ends: float) -> None:
        """Note what runs now, for whoever looks at the directory.

        Parameters
        ----------
        running
            ``job``, ``title`` and ``started`` (ISO format, UTC) of each running job.
        ends
            When the last job is expected to end, in seconds since 1970.
        """
        write_sealed({"running": list(running), "ends": ends}, self.out / "now.json")

    def gather(self) -> Gathered:
        """Read all results, write them as Parquet and return them."""
        gathered = gather(self.results())
        for name in ("rows", "curves", "pictures"):
            with replacing(self.parquet if name == "rows" else self.out / f"{name}.parquet") as temporary:
                getattr(gathered, name).to_parquet(temporary, index=False, compression="zstd", compression_level=9)
        return gathered


def existing(out: Path) -> Store:
    """Return the store in a directory that has one; raises StoreError elsewhere."""
    if not (out / "store.json").exists():
        raise StoreError(f"{out}: no results there; name a run's directory with --out, or run first")
    return Store(out)


def gather(results: Iterable[Result]) -> Gathered:
    """Return results as rows."""
    import pandas as pd

    curves = _Columns("job_id", "term", "epoch", "value")
    pictures = _Columns("job_id", "x", "y", "environment", "content", "trained")

    rows: list[dict[str, Any]] = []
    for result in results:
        rows += result.rows(replay_command(result.job))
        if result.job.role == "method" and result.status == Status.OK:
            for term, values in result.curves.items():
                curves.add(len(values), result.job.id, term, range(len(values)), values)
            if result.picture:
                columns = [result.picture[name] for name in pictures.names[1:]]
                pictures.add(len(columns[0]), result.job.id, *columns)
    table = pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)
    table = table.sort_values(["finished", "job_id"], kind="stable", ignore_index=True)
    return Gathered(table, curves.frame(), pictures.frame())


def _settings(job: Job) -> list[str]:
    """Return the user's changes as ``key=value``; of a tuned method all keys, as its label names none."""
    if job.method.endswith((TUNED, ORACLE)):
        return [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in job.config.items()]
    return job.method.removeprefix(job.name).split("@")[1:]


class _Columns:
    """Columns of a table that grow by blocks of rows: an object for each row would take much memory."""

    def __init__(self, *names: str):
        self.names = names
        self._columns: tuple[list[Any], ...] = tuple([] for _ in names)

    def add(self, n_rows: int, *values: Any) -> None:
        """Add rows; a text is repeated in all of them."""
        for column, value in zip(self._columns, values, strict=True):
            column.extend([value] * n_rows if isinstance(value, str) else value)

    def frame(self) -> pd.DataFrame:
        import pandas as pd

        return pd.DataFrame(dict(zip(self.names, self._columns, strict=True)))


def replay_command(job: Job) -> str:
    """Return the command that runs a job's method, task and seeds again, in a directory of its own.

    That of submitted answers needs their directory, which is not part of a result.
    """
    if job.name.endswith(SUBMITTED):
        name = job.name.removesuffix(SUBMITTED)
        return shlex.join(["python", "-m", "bench", "score", job.task, "--predictions", "DIR", "--name", name])
    task, own = job.task, []
    if job.own:
        task = task.partition("/")[0]
        key_of = {role: key for key, role in TASKS[task].columns.items()}
        columns = ",".join(f"{key_of[role]}={value}" for role, value in job.own.items() if role in key_of and value)
        own = ["--data", job.own["file"], "--columns", columns]
        own[-1] += f",x={job.own['x']}"
        own += ["--n-genes", job.own["n_genes"]]
    words = ["python", "-m", "bench", "run", "--methods", job.name or "no-change", "--tasks", task, *own]
    words += ["--preset", job.preset, "--seeds", str(max([job.seed, *job.stack]) + 1)]
    if job.role != "reference":
        for setting in _settings(job):
            words += ["--set", f"{job.name}.{setting}"]
    for plugin in job.plugins:
        words += ["--plugin", plugin]
    return shlex.join([*words, "--out", "replay"])
