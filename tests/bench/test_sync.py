"""``bench sync``: what a tracking server missed is logged later, once."""

import pytest
from typer.testing import CliRunner

from bench.cli import app
from bench.jobs.job import result_of
from bench.keep.store import Store
from bench.keep.sync import BROUGHT, sync
from bench.keep.tracking import default_uri
from bench.plan import choose_methods, choose_tasks, make_plan
from bench.records import Status
from tests.bench.test_run import TINY, results, runs

DOWN = "http://127.0.0.1:9"
IMPATIENT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "2"}


def test_a_server_that_was_down_gets_all_of_it_later_and_once(inside, tmp_path, monkeypatch):
    run = inside("run", "--methods", "pca", *TINY, "--mlflow-uri", DOWN, **IMPATIENT)
    assert run.returncode == 1
    assert "python -m bench sync --out out --mlflow-uri" in " ".join(run.stdout.split())
    kept = results(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name, value in IMPATIENT.items():
        monkeypatch.setenv(name, value)

    down = CliRunner().invoke(app, ["sync", "--out", "out", "--mlflow-uri", DOWN])
    assert down.exit_code == 1
    assert f"0 logged now, 0 in all, at {DOWN}" in down.output
    assert f"{len(kept)} are left" in down.output

    first = CliRunner().invoke(app, ["sync", "--out", "out"])
    assert first.exit_code == 0, first.output
    assert first.output.startswith(f"{len(kept)} logged now, {len(kept)} in all")
    client, children, (parent,) = runs(tmp_path)
    assert set(children) == set(kept)
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["command"].startswith("python -m bench run --methods pca")
    assert {run.data.tags["invocation"] for run in children.values()} == {parent.data.tags["invocation"]}
    artifacts = {artifact.path for artifact in client.list_artifacts(parent.info.run_id)}
    assert {"leaderboard.md", "results.parquet"} <= artifacts

    second = CliRunner().invoke(app, ["sync", "--out", "out"])
    assert second.output.startswith(f"0 logged now, {len(kept)} in all")
    again = inside("run", "--methods", "pca", *TINY)
    assert again.returncode == 0
    assert "nothing to run" in again.stdout
    assert set(runs(tmp_path)[1]) == set(kept)
    assert len(runs(tmp_path)[2]) == 1
    assert results(tmp_path) == kept


@pytest.fixture
def store(tmp_path):
    specs, plugins = choose_methods("pca", "smoke", [])
    plan = make_plan(specs, choose_tasks("reembedding/pancancer-sim"), "smoke", 1, plugins, {})
    store = Store(tmp_path / "out")
    for job, status in zip(plan.jobs, (Status.OK, Status.FAILED, Status.SKIPPED), strict=False):
        store.write(result_of(job, status, "why", scores={"displacement": 0.5} if status == Status.OK else {}))
    return store


def test_results_that_came_from_elsewhere_have_a_command_of_their_own(store, tmp_path):
    done = sync(store, default_uri(store.out))
    assert (done.logged, done.total, done.left, done.error) == (3, 3, 0, "")
    _, children, (parent,) = runs(tmp_path)
    assert parent.data.tags["invocation"] == BROUGHT["invocation"]
    assert parent.info.status == "FAILED", "one of the results is that of a failure"
    assert sorted(run.info.status for run in children.values()) == ["FAILED", "FINISHED", "FINISHED"]


def test_a_head_that_died_before_it_noted_what_it_had_logged_doubles_nothing(store, tmp_path):
    sync(store, default_uri(store.out))
    ledger = store.out / "logged.tsv"
    ledger.write_text("".join(ledger.read_text().splitlines(keepends=True)[:1]))
    done = sync(store, default_uri(store.out))
    assert (done.logged, done.total) == (2, 3)
    assert len(runs(tmp_path)[1]) == 3
