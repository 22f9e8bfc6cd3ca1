"""Results in MLflow, written by the head process alone: a flat list of runs, told apart by their tag ``kind``.

- ``command``: a command, with its artifacts; its jobs have its ``invocation`` as a tag.
- ``job``: one method or reference on one unit and seed, with its metrics, its error relative to the baseline's, and its
  training curves.
- ``summary``: one method on one task, with the numbers and the verdict of the leaderboard.

Jobs are no children of their command: MLflow's list folds children away, so that a filter seems to find nothing.

Results are safe on disk before they come here, so a tracking server that fails costs nothing but the log:
what could not be logged is logged by the next run.
"""

from __future__ import annotations

import contextlib
import math
import os
import queue
import re
import shlex
import shutil
import sqlite3
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.keep.files import replacing
from bench.keep.store import Store
from bench.records import Job, Result, Status
from metrics.cache import cache_directory
from tasks import DATASETS

if TYPE_CHECKING:
    from leaderboard import Leaderboard

EXPERIMENT = "bench"
#: Metrics in a batch; MLflow takes 1000 of metrics, parameters and tags together.
BATCH = 800
#: Characters that MLflow takes in a tag.
LONGEST = 8000
#: A server that does not answer is given up after about a minute: the next run logs what is missing.
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
#: How a job's status reads in MLflow.
RUN_STATUS = {Status.OK: "FINISHED", Status.SKIPPED: "FINISHED", Status.FAILED: "FAILED"}
#: The kinds of runs.
COMMAND, JOB, SUMMARY = "command", "job", "summary"
#: The tags that say which method and task a summary is of.
OF_SUMMARY = ("benchmark", "preset", "method")
#: An experiment of this kind has runs, charts and models in the UI, and no panes for language models.
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}


def quiet_environment() -> dict[str, str]:
    """Return what MLflow and its server are told: to send no usage data and to start no workers for language models."""
    return {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def default_uri(out: Path) -> str:
    """Return the address of the SQLite store in an out directory."""
    return f"sqlite:///{out.resolve() / 'mlflow.db'}"


def _database(store: Store, uri: str) -> Path | None:
    """Return the SQLite file in the out directory, if MLflow logs there."""
    return store.out / "mlflow.db" if uri == default_uri(store.out) else None


def _line(error: Exception) -> str:
    """Return the first line of an error; SQL follows in others."""
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _exists(database: Path) -> bool:
    """Return whether there is a SQLite store; an empty file is none."""
    return database.exists() and database.stat().st_size > 0


def _damage(database: Path) -> str:
    """Return what SQLite finds wrong with a file, empty for a good one."""
    try:
        with contextlib.closing(sqlite3.connect(database)) as connection:
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError:  # locked by another program: MLflow waits for it, or says so
        return ""
    except sqlite3.DatabaseError as error:
        return str(error)
    return "" if found == "ok" else str(found)


def _create(database: Path) -> None:
    """Put an empty SQLite store there, whole or not at all: MLflow can neither use nor mend one that was cut off.

    MLflow makes its tables by one migration after another, two seconds of a processor, so that an empty store of each
    version is kept in the user's cache and copied. In the copy, the default experiment gets this store's artifacts.
    """
    for left in database.parent.glob(f".{database.name}.*"):
        left.unlink()
    try:
        empty = _empty_store()
    except OSError:  # the cache cannot be written, so that nothing is kept
        _migrate(database)
        return
    with replacing(database) as temporary:
        shutil.copyfile(empty, temporary)
        with contextlib.closing(sqlite3.connect(temporary)) as connection, connection:
            location = (database.parent / "artifacts" / "0").as_uri()
            connection.execute("UPDATE experiments SET artifact_location = ? WHERE experiment_id = 0", [location])


def _empty_store() -> Path:
    """Return the empty store of this version of MLflow in the user's cache, made if it is not there."""
    from importlib.metadata import version

    empty = cache_directory("mlflow") / f"{version('mlflow')}.db"
    if not _exists(empty) or _damage(empty):
        empty.parent.mkdir(parents=True, exist_ok=True)
        _migrate(empty)
    return empty


def _migrate(database: Path) -> None:
    """Let MLflow make the tables of an empty SQLite store."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    with replacing(database) as temporary:
        temporary.touch()  # an OSError where it cannot be written, which SQLAlchemy would call otherwise
        SqlAlchemyStore(f"sqlite:///{temporary}", (database.parent / "artifacts").as_uri()).engine.dispose()


class Ledger:
    """Which results have been logged where, as lines of a text file, so that MLflow need not be asked.

    If the SQLite store is gone, nothing counts as logged. If a line is cut off or lost, its result is logged
    again, which changes nothing.
    """

    def __init__(self, store: Store, uri: str):
        self.file = store.out / "logged.tsv"
        self.uri = uri
        database = _database(store, uri)
        lost = database is not None and not _exists(database)
        lines = self.file.read_text(errors="replace").splitlines() if self.file.exists() else []
        entries = {tuple(line.split("\t")) for line in lines}
        self.logged = {entry for entry in entries if not (lost and entry[0] == uri)}

    def has(self, result: Result) -> bool:
        """Tell whether a result, as it is now, has been logged."""
        return self._entry(result) in self.logged

    def add(self, result: Result) -> None:
        """Note that a result has been logged."""
        entry = self._entry(result)
        self.logged.add(entry)
        with self.file.open("a") as stream:
            stream.write("\t".join(entry) + "\n")

    def _entry(self, result: Result) -> tuple[str, ...]:
        return self.uri, result.job.id, result.finished


class Tracker:
    """Logs results to MLflow from a thread of the head process, in the order in which they come.

    Parameters
    ----------
    uri
        An MLflow tracking address.
    store
        The out directory; of the SQLite store in it the artifacts are kept there too.
    invocation
        The plan's hash: a command's run that carries it is taken up again.
    name, command
        Name of the command's run, and the command.
    """

    def __init__(self, uri: str, store: Store, invocation: str, name: str, command: str):
        self.uri = uri
        self.store = store
        self.invocation = invocation
        self.name = name
        self.command = command
        self.ledger = Ledger(store, uri)
        #: The error that ended logging; empty while there is none.
        self.error = ""
        database = _database(store, uri)
        if database is not None and _exists(database) and (damage := _damage(database)):
            self.error = f"{database} is damaged: {damage}; move it away, and the next run logs all results anew"
        #: Stands while the command's run is open: a head that finds it there knows that the last one died.
        self._open_mark = store.out / "mlflow-open"
        self._queue: queue.Queue[Result | None] = queue.Queue()
        self._thread: threading.Thread | None = None
        self._command = ""  # the run of this command; empty until it is there

    def log(self, result: Result) -> None:
        """Log a result, unless it has been logged already; the first one connects to MLflow."""
        if not self.error and not self.ledger.has(result):
            self._start()
            self._queue.put(result)

    def finish(self, status: str, artifacts: Sequence[Path], tags: Mapping[str, str], board: Leaderboard) -> None:
        """Wait for all that is to be logged, log what the board says of it, and close the command's run.

        Where nothing was logged the command's run stands as it is and MLflow is not opened, unless the last head
        died before it could close its run.
        """
        if self._thread is None and (self.error or not self._open_mark.exists()):
            return
        thread = self._start()
        self._queue.put(None)
        thread.join()
        if self.error:
            return
        try:
            self._log_relative_errors(board)
            self._log_summaries(board)
            for file in artifacts:
                self._client.log_artifact(self._command, str(file))
            for key, value in tags.items():
                self._client.set_tag(self._command, key, value)
            self._client.set_terminated(self._command, status)
            self._open_mark.unlink(missing_ok=True)
        except Exception as error:  # noqa: BLE001 - see _work
            self.error = _line(error)

    def _start(self) -> threading.Thread:
        if self._thread is None:
            self._open_mark.touch()
            self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
            self._thread.start()
        return self._thread

    def _work(self) -> None:
        try:
            self._connect()
            while (result := self._queue.get()) is not None:
                self._log(result)
                self.ledger.add(result)
            if self.uri.startswith("http"):
                self._adopt()  # a request whose answer was lost has been sent twice
        except Exception as error:  # noqa: BLE001 - MLflow raises what its stores raise; the head reports it at the end
            self.error = _line(error)
            while self._queue.get() is not None:
                pass

    def _connect(self) -> None:
        """Find the experiment, close runs whose head has died, and open or take up the command's run."""
        import logging

        for name, value in {**PATIENCE, **quiet_environment()}.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.CRITICAL)  # what goes wrong is reported at the end
        logging.getLogger("alembic").setLevel(logging.WARNING)
        database = _database(self.store, self.uri)
        if database is not None and not _exists(database):
            _create(database)
        self._client = MlflowClient(self.uri)
        found = self._client.get_experiment_by_name(EXPERIMENT)
        location = (self.store.out / "artifacts").as_uri() if self.uri == default_uri(self.store.out) else None
        self._experiment = (
            found.experiment_id
            if found
            else self._client.create_experiment(EXPERIMENT, artifact_location=location, tags=EXPERIMENT_TAGS)
        )
        self._adopt()
        tags = {"kind": COMMAND, "invocation": self.invocation, "command": self.command}
        self._command = self._commands.get(self.invocation) or self._create(self.name, tags, _now())
        self._client.update_run(self._command, "RUNNING")

    def _adopt(self) -> None:
        """Find the runs of commands, jobs and summaries; close what a dead head left, remove empty doubles."""
        from mlflow.entities import RunStatus

        out = str(self.store.out)
        self._commands: dict[str, str] = {}
        self._jobs: dict[str, str] = {}
        self._summaries: dict[tuple[str, ...], str] = {}
        #: The relative errors that are logged, by run.
        self._relative: dict[str, float] = {}
        runs = list(self._runs())
        running = RunStatus.to_string(RunStatus.RUNNING)
        filled = {run.info.run_id for run in runs if run.info.status != running} | {self._command}
        for run in sorted(runs, key=lambda run: run.info.run_id not in filled):
            tags, run_id = run.data.tags, run.info.run_id
            mine = tags.get("out") == out
            if "job_id" in tags:
                kept = self._jobs.setdefault(tags["job_id"], run_id)
            elif tags.get("kind") != SUMMARY:
                kept = self._commands.setdefault(tags.get("invocation", run_id), run_id)
            elif mine:
                kept = self._summaries.setdefault(tuple(tags[name] for name in OF_SUMMARY), run_id)
            if "relative_error" in run.data.metrics:
                self._relative[run_id] = run.data.metrics["relative_error"]
            # the out directory is locked by this head, so a run of it that is running has no other head
            if mine and kept != run_id and run_id not in filled:
                self._client.delete_run(run_id)
            elif mine and run.info.status == running and run_id != self._command:
                self._client.set_terminated(run_id, "FAILED")

    def _runs(self) -> Any:
        token = None
        while True:
            page = self._client.search_runs([self._experiment], max_results=1000, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def _create(self, name: str, tags: Mapping[str, str], start: int) -> str:
        everywhere = {"out": str(self.store.out)}
        run = self._client.create_run(self._experiment, start_time=start, tags={**tags, **everywhere}, run_name=name)
        return run.info.run_id

    def _log(self, result: Result) -> None:
        from mlflow.entities import Param, RunTag

        job = result.job
        tags = {
            "kind": JOB,
            "invocation": self.invocation,
            "method": job.method,
            **_names(job.task),
            "unit": job.unit,
            "seed": str(job.seed),
            "preset": job.preset,
            "role": job.role,
            "status": result.status,
            "reason": result.reason,
            "detail": result.detail,
            "warnings": "; ".join(result.warnings),
            "log": "; ".join(result.log),
            "job_id": job.id,
            "data_sha256": job.data_digest,
            "x_taken_for": job.x_taken_for,
            "n_copies": str(job.n_copies),
            "git_commit": result.environment["git_commit"],
            "replay": shlex.join(["python", "-m", "bench", "replay", job.id, "--out", str(self.store.out)]),
        }
        tags = {key: value[:LONGEST] for key, value in tags.items()}
        parameters = {**job.config, "task_version": job.task_version}
        run_id = self._jobs.get(job.id)
        new = run_id is None
        if run_id is None:
            run_id = self._create(job.title[:250], tags, _milliseconds(result.started))
            self._jobs[job.id] = run_id
            self._client.log_inputs(run_id, [_dataset_input(tags["dataset"], job.data_digest)])
        parts = _metrics(result)
        self._client.log_batch(
            run_id,
            metrics=parts[0],
            params=[Param(key, str(value)) for key, value in parameters.items()],
            tags=[] if new else [RunTag(key, value) for key, value in tags.items()],
        )
        for metrics in parts[1:]:
            self._client.log_batch(run_id, metrics=metrics)
        status = RUN_STATUS.get(result.status, "KILLED")
        self._client.set_terminated(run_id, status, end_time=_milliseconds(result.finished))

    def _log_relative_errors(self, board: Leaderboard) -> None:
        """Give each job its error relative to that of the baseline on its unit and seed."""
        from mlflow.entities import Metric

        from leaderboard.association import fit_scores

        scores = fit_scores(board).dropna(subset="score")
        for job_id, score in zip(scores["job_id"], scores["score"], strict=True):
            run_id, error = self._jobs.get(job_id, ""), math.exp(-score)
            if run_id and self._relative.get(run_id) != error:
                self._client.log_batch(run_id, metrics=[Metric("relative_error", error, _now(), 0)])

    def _log_summaries(self, board: Leaderboard) -> None:
        """Log what the leaderboard says of each method on each task; a summary that is there is brought up to date."""
        from mlflow.entities import Metric, RunTag

        for table in board.tasks:
            for row in table.frame.to_dict("records"):
                tags = {
                    "kind": SUMMARY,
                    "invocation": self.invocation,
                    **_names(table.task),
                    "preset": table.preset,
                    "replicates": table.replicates,
                    "baseline": table.baseline,
                    **{name: str(row[name]) for name in ("method", "role", "verdict", "best", "coverage", "reason")},
                }
                place = tuple(tags[name] for name in OF_SUMMARY)
                run_id = self._summaries.get(place)
                new = run_id is None
                if run_id is None:
                    run_id = self._create(f"{row['method']} · {table.task}"[:250], tags, _now())
                means = table.means.loc[row["method"]].to_dict()
                values = {
                    **{name: row[name] for name in ("relative_error", "p_better")},
                    **{f"relative_error.{name}": row[name] for name in ("low", "high")},
                    **{f"cost.{name}": row[name] for name in ("fit_seconds", "peak_memory_mb")},
                    **{f"{_rank(name in table.primary)}.{name}": value for name, value in means.items()},
                }
                at = _now()
                self._client.log_batch(
                    run_id,
                    metrics=[Metric(_key(name), float(x), at, 0) for name, x in values.items() if math.isfinite(x)],
                    tags=[] if new else [RunTag(key, value) for key, value in tags.items()],
                )
                self._client.set_terminated(run_id, "FINISHED")


def _metrics(result: Result) -> list[list[Any]]:
    """Return scores, costs and training curves in batches; values that are not finite are left out."""
    from mlflow.entities import Metric

    at = _milliseconds(result.finished)
    costs = {f"cost.{key}": getattr(result, key) for key in ("fit_seconds", "evaluate_seconds", "peak_memory_mb")}
    scores = {f"{_rank(result.metrics[key]['primary'])}.{key}": value for key, value in result.scores.items()}
    metrics = [
        Metric(_key(key), value, at, 0)
        for key, value in {**scores, **costs}.items()
        if value is not None and math.isfinite(value)
    ]
    metrics += [
        Metric(f"curve/{_key(_loss(result.job))}/{_key(term)}", value, at, step)
        for term, values in result.curves.items()
        for step, value in enumerate(values)
        if value is not None
    ]
    return [metrics[start : start + BATCH] for start in range(0, max(len(metrics), 1), BATCH)]


def _names(benchmark: str) -> dict[str, str]:
    """Return the tags that name a task on a data set."""
    task, _, dataset = benchmark.partition("/")
    return {"task": task, "dataset": dataset, "benchmark": benchmark}


def _rank(primary: bool) -> str:
    """Return what stands before a metric's name."""
    return "primary" if primary else "secondary"


def _loss(job: Job) -> str:
    """Return what kind of loss a job's curves are of: those of one kind may share an axis.

    It is the likelihood; where that depends on the data, method and data; of a method without, its name.
    """
    stated = str(job.config.get("likelihood", job.name))
    return f"{job.name} on {job.task.partition('/')[2]}" if stated == "auto" else stated


def _key(name: str) -> str:
    """Return a name in which characters that MLflow refuses are replaced."""
    return re.sub(r"[^\w.: -]|^\.+$", "_", name)[:200]


def _dataset_input(name: str, sha256: str) -> Any:
    """Return a run's data as MLflow shows them; its digest field takes 36 characters, and a tag has the whole."""
    import json

    from mlflow.entities import Dataset, DatasetInput

    known = DATASETS.get(name)  # a user's own file is in no catalogue
    about = {"paper": known.paper, "licence": known.licence} if known else {}
    source = json.dumps(about)
    return DatasetInput(Dataset(name=name, digest=sha256[:36], source_type="catalogue", source=source))


def _milliseconds(iso: str) -> int:
    return int(datetime.fromisoformat(iso).timestamp() * 1000)


def _now() -> int:
    return int(time.time() * 1000)
