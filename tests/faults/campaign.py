"""A run of cheap methods, what disturbs it, and what must be true when the same command has finished at last."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import psutil

from bench.records import FORMAT
from tests.bench.conftest import process_environment
from tests.waiting import wait_for

TASK = "reembedding/pancancer-sim"
#: A run on a busy machine takes no longer, in seconds.
LONGEST = 400

PLUGIN = """
import json, os, subprocess, sys, time
import numpy as np
from methods import register_method
from methods.base import Method


class Cheap(Method):
    '''A random projection, centred; its fit is kept on disk.'''

    tags = frozenset({"cheap"})

    def fit(self, data, seed):
        time.sleep(0.05)
        rng = np.random.default_rng([seed, int(self.name[-1])])
        self.directions = rng.standard_normal((data.n_vars, 3)).astype("float32")
        self.mean = np.asarray(data.X).mean(axis=0)
        self.history = {"loss": [2.0, 1.0]}
        return self

    def embed(self, data):
        return (np.asarray(data.X) - self.mean) @ self.directions

    def state(self):
        return {"directions": self.directions, "mean": self.mean}

    def restore(self, state):
        self.directions, self.mean = state["directions"], state["mean"]


for number in range(7):
    register_method(type(f"Cheap{number}", (Cheap,), {"name": f"cheap{number}"}))


class Hog(Cheap):
    tags = frozenset({"hog"})

    def fit(self, data, seed):
        if not os.environ.get("TAMED"):
            self.act()
        return super().fit(data, seed)


@register_method
class InSteps(Hog):
    name = "hog0"

    def act(self):
        self.hoard = []
        while True:
            self.hoard.append(np.ones(5_000_000))
            time.sleep(0.01)


@register_method
class AtOnce(Hog):
    name = "hog1"

    def act(self):
        self.hoard = np.ones(250_000_000)
        time.sleep(60)


@register_method
class InAChild(Hog):
    name = "hog2"

    def act(self):
        code = "import numpy, time; hoard = numpy.ones(250_000_000); time.sleep(60)"
        subprocess.run([sys.executable, "-c", code], check=True)
"""

#: What of a row is the same whoever made it and when.
SAME = ["role", "method", "config", "task", "task_version", "unit", "seed", "preset", "metric", "value", "primary"]
SAME += ["two_sided", "better", "status", "reason", "detail", "n_cells", "n_genes", "warnings", "replay"]


@dataclass
class Ended:
    """How a command ended and what it said."""

    code: int
    said: str


@dataclass
class Bench:
    """One command, in a directory of its own."""

    directory: Path
    seeds: int
    methods: str = "cheap"
    options: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self):
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "plugin.py").write_text(PLUGIN)
        self.out = self.directory / "out"
        #: Where MLflow is when it is not in the out directory.
        self.uri = ""
        self.log = self.directory / "said"
        #: Seven methods and three controls on two units.
        self.n_cells = 20 * self.seeds

    @contextlib.contextmanager
    def started(self):
        """The command's process; it has ended, with all that it started, when the context ends."""
        arguments = ["run", "--methods", self.methods, "--plugin", "plugin.py", "--tasks", TASK, "--preset", "smoke"]
        arguments += ["--seeds", str(self.seeds), "--jobs", "2", "--out", "out", *self.options]
        with self.log.open("w") as stream:
            process = subprocess.Popen(
                [sys.executable, "-m", "bench", *arguments],
                cwd=self.directory,
                env=process_environment(self.directory, **self.environment),
                stdout=stream,
                stderr=stream,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
                start_new_session=True,
            )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def run(self) -> Ended:
        with self.started() as process:
            process.wait(timeout=LONGEST)
        return self.ended(process)

    def ended(self, process) -> Ended:
        said = self.log.read_text(errors="replace")
        assert "Traceback" not in said, said
        return Ended(process.returncode, said)

    def finish(self) -> pd.DataFrame:
        """Run the same command, which must finish, and return its rows, which MLflow must have, each once."""
        done = self.run()
        assert done.code == 0, done.said
        rows = self.rows()
        self.check_mlflow(rows)
        return rows

    def rows(self) -> pd.DataFrame:
        rows = pd.read_parquet(self.out / "results.parquet")
        assert rows["job_id"].nunique() == len(list((self.out / "jobs").glob("*.json")))
        return rows.sort_values(["job_id", "metric"], ignore_index=True)

    def check_mlflow(self, rows):
        from mlflow import MlflowClient

        # MLflow goes on reading a file that it has opened once, after another has taken its place
        copy = self.directory / f"copy-{time.time_ns()}.db"
        if not self.uri:
            shutil.copy(self.out / "mlflow.db", copy)
        client = MlflowClient(self.uri or f"sqlite:///{copy}")
        (experiment,) = [one for one in client.search_experiments() if one.name == "bench"]
        runs = []
        token = None
        while True:
            page = client.search_runs([experiment.experiment_id], max_results=1000, page_token=token)
            runs += page
            token = page.token
            if not token:
                break
        children = {run.data.tags["job_id"]: run for run in runs if run.data.tags["kind"] == "job"}
        parents = [run for run in runs if run.data.tags["kind"] == "command"]
        summaries = {tuple(sorted(run.data.tags.items())) for run in runs if run.data.tags["kind"] == "summary"}
        assert len(children) + len(parents) + len(summaries) == len(runs), "a job or a summary is in MLflow twice"
        assert [run.info.status for run in parents] == ["FINISHED"]
        assert set(children) == set(rows["job_id"])
        for job_id, group in rows.groupby("job_id"):
            run = children[job_id]
            assert run.info.status == "FINISHED"
            scores = group.dropna(subset="value").set_index("metric")["value"].to_dict()
            logged = {name.partition(".")[2]: value for name, value in run.data.metrics.items()}
            assert {name: logged[name] for name in scores} == scores


def assert_same(rows: pd.DataFrame, undisturbed: pd.DataFrame) -> None:
    """None lost, none doubled, none changed."""
    keys = ["job_id", "metric"]
    assert not rows.duplicated(keys).any()
    of = [one.set_index(keys)[[name for name in SAME if name not in keys]] for one in (rows, undisturbed)]
    pd.testing.assert_frame_equal(*(one.sort_index() for one in of), check_exact=True)


# --- kills


def workers(head: subprocess.Popen) -> tuple[list[psutil.Process], list[psutil.Process]]:
    """The processes of cells, and the servers that they were forked from."""
    with contextlib.suppress(psutil.NoSuchProcess):
        children = psutil.Process(head.pid).children()
        servers = [one for one in children if "forkserver" in " ".join(_command(one))]
        return [worker for server in servers for worker in _children(server)], servers
    return [], []


def _command(process):
    with contextlib.suppress(psutil.Error):
        return process.cmdline()
    return []


def _children(process):
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.children()
    return []


@dataclass
class Kills:
    """How often what was killed."""

    workers: int = 0
    servers: int = 0
    heads: int = 0
    refused: int = 0
    starts: int = 0
    seconds: float = 0.0


def kill_at_random(bench: Bench, n_workers: int, n_heads: int, seed: int) -> Kills:
    """Start the command again and again, and end its workers and itself at random moments, so often."""
    rng = random.Random(seed)
    kills, begun = Kills(), time.monotonic()
    whole = 15.0  # seconds of a whole run, so that a head is killed at any moment of it
    while kills.workers < n_workers or kills.heads < n_heads:
        _leave_work(bench, rng)
        began = time.monotonic()
        kills.starts += 1
        with bench.started() as head:
            end = began + rng.uniform(0.0, whole) if kills.heads < n_heads else float("inf")
            while head.poll() is None and time.monotonic() < end:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    head.wait(rng.expovariate(3.0))
                if kills.workers < n_workers:
                    _kill_one(head, rng, kills)
            if head.poll() is None:
                if rng.random() < 0.1 and (bench.out / "store.json").exists():
                    _second_head(bench, kills)
                head.send_signal(rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
                head.wait(timeout=LONGEST)
                kills.heads += 1
            else:
                whole = max(whole, time.monotonic() - began)
                assert head.returncode in (0, 1), bench.log.read_text()
            bench.ended(head)
    kills.seconds = time.monotonic() - begun
    return kills


def _kill_one(head, rng, kills):
    found, servers = workers(head)
    with contextlib.suppress(psutil.NoSuchProcess):
        if servers and rng.random() < 0.02:
            rng.choice(servers).kill()
            kills.servers += 1
        elif found:
            rng.choice(found).send_signal(rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV]))
            kills.workers += 1


def _second_head(bench, kills):
    other = Bench(bench.directory, bench.seeds, bench.methods, bench.options, bench.environment)
    other.log = bench.directory / "said-by-the-other"
    done = other.run()
    # the first may have ended in the meantime
    if done.code == 2:
        assert "another run is at work here" in done.said
        kills.refused += 1


def _leave_work(bench, rng):
    """Take away some results once all are there, so that a kill finds something to do harm to."""
    files = sorted((bench.out / "jobs").glob("*.json")) if bench.out.exists() else []
    if len(files) >= 0.9 * bench.n_cells:
        for file in rng.sample(files, len(files) // 2):
            file.unlink()


# --- corruptions


def _empty(file, rng):
    file.write_bytes(b"")


def _half(file, rng):
    os.truncate(file, file.stat().st_size // 2)


def _noise(file, rng):
    file.write_bytes(rng.randbytes(max(64, file.stat().st_size)))


def _other(file, rng):
    file.write_text(json.dumps({"format": FORMAT, "job": {"id": 1}, "status": "ok", "tasks": [], "state": {}}))


def _flipped(file, rng):
    """Change one byte in each of eight places."""
    content = bytearray(file.read_bytes())
    for place in rng.sample(range(len(content)), min(8, len(content))):
        content[place] ^= 1 << rng.randrange(8)
    file.write_bytes(content)


def _gone(file, rng):
    file.unlink()


WAYS = {"empty": _empty, "half": _half, "noise": _noise, "other": _other, "flipped": _flipped, "gone": _gone}
#: The kinds of files of an out directory, and of the caches beside it.
KINDS = {
    "results": "out/jobs/*.json",
    "tables": "out/*.parquet",
    "fits": "out/fits/*.safetensors",
    "locks": "out/fits/*.lock",
    "logs": "out/logs/*",
    "index": "out/index.json",
    "plan": "out/plan.json",
    "stamp": "out/store.json",
    "ledger": "out/logged.tsv",
    "pages": "out/leaderboard*",
    "simulated": "cache/built/simulated/*.h5ad",
    "checksums": "cache/built/simulated/*.sha256",
}


def corrupt(bench: Bench, kinds: list[str], way: str, rng: random.Random, share: float = 0.5) -> int:
    """Spoil a share of the files of some kinds, at least one of each; return how many."""
    spoilt = 0
    for kind in kinds:
        files = [file for file in sorted(bench.directory.glob(KINDS[kind])) if file.is_file()]
        for file in rng.sample(files, min(len(files), max(1, int(share * len(files))))):
            WAYS[way](file, rng)
            spoilt += 1
    return spoilt


def wait_for_results(bench: Bench, number: int) -> None:
    """Return when so many cells have ended."""
    wait_for(lambda: len(list((bench.out / "jobs").glob("*.json"))) >= number, LONGEST)
