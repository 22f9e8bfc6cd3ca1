"""Results in MLflow: one parent run an invocation, one child a cell; written by the head process alone.

Results are safe on disk before they come here, so a tracking server that fails costs nothing but the log:
what could not be logged is logged by the next run.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from bench.store import Store, replay_command
from tasks import DATASETS

EXPERIMENT = "bench"
#: MLflow takes so many metrics in a batch.
BATCH = 1000
#: How a cell's status reads in MLflow.
RUN_STATUS = {"ok": "FINISHED", "skipped": "FINISHED", "failed": "FAILED"}


def default_uri(out: Path) -> str:
    """Return the address of the SQLite store in an out directory."""
    return f"sqlite:///{out.resolve() / 'mlflow.db'}"


class Ledger:
    """Which results have been logged where, as lines of a text file: what needs no look at MLflow."""

    def __init__(self, store: Store, uri: str):
        self.file = store.out / "logged.tsv"
        self.uri = uri
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        self.logged = {tuple(line.split("\t")) for line in lines}

    def has(self, result: Mapping[str, Any]) -> bool:
        """Tell whether a result, as it is now, has been logged."""
        return self._entry(result) in self.logged

    def add(self, result: Mapping[str, Any]) -> None:
        """Note that a result has been logged."""
        entry = self._entry(result)
        self.logged.add(entry)
        with self.file.open("a") as stream:
            stream.write("\t".join(entry) + "\n")

    def _entry(self, result: Mapping[str, Any]) -> tuple[str, ...]:
        return self.uri, result["cell"]["id"], result["finished"]


class Tracker:
    """Logs results to MLflow from a thread of the head process, in the order in which they come.

    Parameters
    ----------
    uri
        An MLflow tracking address.
    store
        The out directory; of the SQLite store in it the artifacts are kept there too.
    invocation
        The plan's hash: a parent run that carries it is taken up again.
    name, command
        What the parent run is called, and the command that made it.
    """

    def __init__(self, uri: str, store: Store, invocation: str, name: str, command: str):
        self.uri = uri
        self.store = store
        self.invocation = invocation
        self.name = name
        self.command = command
        self.ledger = Ledger(store, uri)
        #: What went wrong, empty while all is well.
        self.error = ""
        #: Stands while the parent run is open: a head that finds it there knows that the last one died.
        self._open_mark = store.out / "mlflow-open"
        self._queue: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._thread: threading.Thread | None = None

    def log(self, result: dict[str, Any]) -> None:
        """Log a result, unless it has been logged already; the first one connects to MLflow."""
        if not self.ledger.has(result):
            self._start()
            self._queue.put(result)

    def finish(self, status: str, artifacts: Sequence[Path], tags: Mapping[str, str]) -> None:
        """Wait for all that is to be logged, then close the parent run with its artifacts.

        Where nothing was logged the parent run stands as it is and MLflow is not opened, unless the last head
        died before it could close its run.
        """
        if self._thread is None and not self._open_mark.exists():
            return
        thread = self._start()
        self._queue.put(None)
        thread.join()
        if self.error:
            return
        try:
            for file in artifacts:
                self._client.log_artifact(self._parent, str(file))
            for key, value in tags.items():
                self._client.set_tag(self._parent, key, value)
            self._client.set_terminated(self._parent, status)
            self._open_mark.unlink(missing_ok=True)
        except Exception as error:  # noqa: BLE001 - see _work
            self.error = f"{type(error).__name__}: {error}"

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
        except Exception as error:  # noqa: BLE001 - MLflow raises what its stores raise; the head reports it at the end
            self.error = f"{type(error).__name__}: {error}"
            while self._queue.get() is not None:
                pass

    def _connect(self) -> None:
        """Find the experiment, close runs whose head has died, and open or take up the parent run."""
        import logging

        from mlflow import MlflowClient
        from mlflow.entities import RunStatus

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        self._client = MlflowClient(self.uri)
        found = self._client.get_experiment_by_name(EXPERIMENT)
        location = (self.store.out / "artifacts").as_uri() if self.uri == default_uri(self.store.out) else None
        self._experiment = (
            found.experiment_id if found else self._client.create_experiment(EXPERIMENT, artifact_location=location)
        )
        out = str(self.store.out)
        self._children: dict[str, str] = {}
        parents: dict[str, str] = {}
        for run in self._runs():
            tags = run.data.tags
            # the out directory is locked by this head, so a run of it that is running has no head
            if tags.get("out") == out and run.info.status == RunStatus.to_string(RunStatus.RUNNING):
                self._client.set_terminated(run.info.run_id, "FAILED")
            if "cell_id" in tags:
                self._children[tags["cell_id"]] = run.info.run_id
            elif "invocation" in tags:
                parents[tags["invocation"]] = run.info.run_id
        self._parent = parents.get(self.invocation) or self._create(
            self.name, {"invocation": self.invocation, "command": self.command}, _now()
        )
        self._client.update_run(self._parent, "RUNNING")

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

    def _log(self, result: Mapping[str, Any]) -> None:
        from mlflow.entities import Param, RunTag

        cell = result["cell"]
        task, _, dataset = cell["task"].partition("/")
        tags = {
            "method": cell["method"],
            "task": task,
            "dataset": dataset,
            "benchmark": cell["task"],
            "unit": cell["unit"],
            "seed": str(cell["seed"]),
            "preset": cell["preset"],
            "role": cell["role"],
            "status": result["status"],
            "reason": result["reason"],
            "detail": result["detail"],
            "warnings": "; ".join(result["warnings"]),
            "log": "; ".join(result["log"]),
            "cell_id": cell["id"],
            "data_sha256": cell["data_digest"],
            "git_commit": result["environment"]["git_commit"],
            "replay": replay_command(cell),
        }
        parameters = {**cell["config"], "task_version": cell["task_version"]}
        run_id = self._children.get(cell["id"])
        if run_id is None:
            title = f"{cell['method']} · {cell['task']} · {cell['unit']} · seed {cell['seed']}"
            identity = {"cell_id": cell["id"], "mlflow.parentRunId": self._parent}
            run_id = self._children[cell["id"]] = self._create(title, identity, _milliseconds(result["started"]))
            self._client.log_inputs(run_id, [_dataset_input(dataset, cell["data_digest"])])
        batches = _metrics(result)
        self._client.log_batch(
            run_id,
            metrics=batches[0],
            params=[Param(key, str(value)) for key, value in parameters.items()],
            tags=[RunTag(key, value) for key, value in tags.items()],
        )
        for metrics in batches[1:]:
            self._client.log_batch(run_id, metrics=metrics)
        status = RUN_STATUS.get(result["status"], "KILLED")
        self._client.set_terminated(run_id, status, end_time=_milliseconds(result["finished"]))


def _metrics(result: Mapping[str, Any]) -> list[list[Any]]:
    """Return scores, costs and training curves in batches; what is not finite is left out."""
    from mlflow.entities import Metric

    at = _milliseconds(result["finished"])
    costs = {key: result[key] for key in ("fit_seconds", "evaluate_seconds", "peak_memory_mb")}
    metrics = [
        Metric(key, value, at, 0)
        for key, value in {**result["scores"], **costs}.items()
        if value is not None and math.isfinite(value)
    ]
    metrics += [
        Metric(f"curve/{term}", value, at, step)
        for term, values in result["curves"].items()
        for step, value in enumerate(values)
        if math.isfinite(value)
    ]
    return [metrics[start : start + BATCH] for start in range(0, max(len(metrics), 1), BATCH)]


def _dataset_input(name: str, sha256: str) -> Any:
    """Return what MLflow shows of a run's data; its digest field takes 36 characters, the whole is in a tag."""
    import json

    from mlflow.entities import Dataset, DatasetInput

    known = DATASETS.get(name)  # a user's own file is in no catalogue
    about = {"reference": known.reference, "licence": known.licence} if known else {}
    source = json.dumps(about)
    return DatasetInput(Dataset(name=name, digest=sha256[:36], source_type="catalogue", source=source))


def _milliseconds(iso: str) -> int:
    return int(datetime.fromisoformat(iso).timestamp() * 1000)


def _now() -> int:
    return int(time.time() * 1000)
