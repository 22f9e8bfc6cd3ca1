"""A tracking server over HTTP, with its store in SQLite or PostgreSQL, on this machine's loopback address."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import pytest

from tests.bench.test_run import results, runs

ARGUMENTS = ("--methods", "pca,random-projection", "--tasks", "reembedding/pancancer-sim", "--preset", "smoke")


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture
def sqlite(tmp_path):
    return f"sqlite:///{tmp_path / 'server.db'}"


@pytest.fixture
def postgresql():
    """A PostgreSQL of its own in a new directory; skipped where there is none, or no driver."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    found = shutil.which("initdb") or next(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")), None)
    if found is None:
        pytest.skip("PostgreSQL is not installed")
    programs = Path(found).resolve().parent
    port = free_port()
    # the server refuses to be root's, and its owner may not see what is in a test's directory
    as_owner = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    data = Path(tempfile.mkdtemp(prefix="postgresql-"))
    if as_owner:
        shutil.chown(data, "postgres")

    def run(program, *arguments):
        command = [*as_owner, str(programs / program), *map(str, arguments)]
        done = subprocess.run(command, cwd=data, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    run("initdb", "-D", data, "-U", "mlflow", "--auth=trust")
    options = f"-c listen_addresses=127.0.0.1 -p {port} -k {data}"
    run("pg_ctl", "-D", data, "-o", options, "-l", data / "log", "-w", "start")
    yield f"postgresql://mlflow@127.0.0.1:{port}/postgres"
    run("pg_ctl", "-D", data, "-m", "immediate", "stop")
    shutil.rmtree(data)


@pytest.fixture
def server(tmp_path):
    """Start ``mlflow server`` on a store and return its address."""
    started = []

    def start(store):
        port = free_port()
        command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store, "--workers", "1"]
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        command += ["--artifacts-destination", str(tmp_path / "artifacts"), "--host", "127.0.0.1", "--port", str(port)]
        log = (tmp_path / "server.log").open("w")
        started.append(
            (
                subprocess.Popen(
                    command, cwd=tmp_path, env=environment, stdout=log, stderr=log, start_new_session=True
                ),
                log,
            )
        )
        address = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/health", timeout=5):
                return address
            assert started[-1][0].poll() is None, (tmp_path / "server.log").read_text()
            time.sleep(0.2)
        raise AssertionError((tmp_path / "server.log").read_text())

    yield start
    for process, log in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 15)
        process.wait()
        log.close()


@pytest.mark.slow
@pytest.mark.parametrize("store", ["sqlite", "postgresql"])
def test_a_run_is_logged_to_a_server_over_http(store, request, server, inside, tmp_path):
    address = server(request.getfixturevalue(store))
    done = inside("run", *ARGUMENTS, "--out", "out", "--mlflow-uri", address)
    assert done.returncode == 0, done.stdout + done.stderr
    client, children, (parent,) = runs(tmp_path, address)
    assert set(children) == set(results(tmp_path))
    assert parent.info.status == "FINISHED"
    names = {artifact.path for artifact in client.list_artifacts(parent.info.run_id)}
    assert names >= {"leaderboard.md", "leaderboard.csv", "results.parquet"}
    of_pca = client.search_runs(
        [parent.info.experiment_id], "tags.kind = 'job' and tags.method = 'pca' and tags.task = 'reembedding'"
    )
    assert {run.info.run_id for run in of_pca} == {
        run.info.run_id for run in children.values() if run.data.tags["method"] == "pca"
    }
    assert all("secondary.displacement" in run.data.metrics for run in of_pca)
    # the same command again finds all of it there
    assert inside("run", *ARGUMENTS, "--out", "out", "--mlflow-uri", address).returncode == 0
    assert len(runs(tmp_path, address)[1]) == len(children)
