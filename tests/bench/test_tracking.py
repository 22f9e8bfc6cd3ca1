"""What MLflow has when its store, the ledger or the answers of a server are lost."""

from dataclasses import replace
from pathlib import Path

import pytest

from bench.jobs.job import result_of
from bench.keep import tracking
from bench.keep.boards import board_of
from bench.keep.store import Store, gather
from bench.keep.tracking import BATCH, Tracker, default_uri
from bench.plan import choose_methods, choose_tasks, make_plan
from bench.records import Status
from tests.bench.test_run import runs

#: The primary metrics of the task.
PRIMARY = ("knn_recall", "neighbour_agreement")


@pytest.fixture
def results():
    specs, plugins = choose_methods("pca", "smoke", [])
    jobs = make_plan(specs, choose_tasks("reembedding/pancancer-sim"), "smoke", 1, plugins, {}).jobs
    return [result_of(job, Status.OK, "", scores={"displacement": 0.5, "knn_recall": None}) for job in jobs[:3]]


def log(tmp_path, results):
    """Log results as a run of the command would."""
    tracker = Tracker(default_uri(tmp_path / "out"), Store(tmp_path / "out"), "invocation", "name", "command")
    for result in results:
        tracker.log(result)
    tracker.finish("FINISHED", [], {}, board_of([gather(results)]))
    return tracker


def test_a_ledger_that_is_lost_or_cut_off_doubles_nothing(tmp_path, results):
    assert not log(tmp_path, results).error
    ledger = tmp_path / "out" / "logged.tsv"
    for content in (b"", ledger.read_bytes()[:-20], b"\xff\x00\n"):
        ledger.write_bytes(content)
        assert not log(tmp_path, results).error
        _, children, (parent,) = runs(tmp_path)
        assert set(children) == {result.job.id for result in results}
        assert parent.info.status == "FINISHED"


def test_a_damaged_store_is_named_and_nothing_is_done_to_it(tmp_path, results):
    log(tmp_path, results)
    database = tmp_path / "out" / "mlflow.db"
    database.write_bytes(b"noise" * 1000)
    tracker = log(tmp_path, results)
    assert "is damaged: file is not a database; move it away" in tracker.error
    assert database.read_bytes() == b"noise" * 1000


def test_an_empty_double_is_removed_and_the_filled_one_stays(tmp_path, results):
    tracker = log(tmp_path, results)
    job_id = results[0].job.id
    _, children, _ = runs(tmp_path)
    tracker._create("double", {"job_id": job_id}, 0)
    tracker._create("double", {"invocation": "invocation"}, 0)
    tracker._adopt()
    _, left, (parent,) = runs(tmp_path)
    assert left[job_id].info.run_id == children[job_id].info.run_id
    assert parent.info.run_id == tracker._command


def test_whatever_a_result_holds_is_taken(tmp_path, results):
    """More values than a batch takes, names and texts that MLflow refuses."""
    curves = {"<b>/../x": [1.0] * (BATCH + 300), "..": [None, 2.0]}
    odd = replace(results[0], curves=curves, reason="long " * 5000)
    tracker = log(tmp_path, [odd])
    assert not tracker.error
    client, children, _ = runs(tmp_path)
    run = children[odd.job.id]
    assert len(client.get_metric_history(run.info.run_id, "curve/pca/_b__.._x")) == BATCH + 300
    assert run.data.metrics["curve/pca/_"] == 2.0


@pytest.fixture
def board_results():
    """Two units of three methods and the references, with known errors."""
    specs, plugins = choose_methods("pca,vae,svae-plus", "smoke", [])
    jobs = make_plan(specs, choose_tasks("reembedding/pancancer-sim"), "smoke", 1, plugins, {}).jobs
    errors = {
        "floor": 4.0,
        "baseline": 1.0,
        "ceiling": 0.1,
        "structure": 0.2,
        "pca": 0.5,
        "vae": 2.0,
        "svae-plus": 0.25,
    }
    return [
        result_of(
            job,
            Status.OK,
            "",
            scores=dict.fromkeys(PRIMARY, 1 - 0.2 * errors[job.method]),
            curves={"validation": [2.0, 1.0]} if job.name in ("vae", "svae-plus") else {},
            fit_seconds=3.0,
        )
        for job in jobs
    ]


def summaries(tmp_path):
    from mlflow import MlflowClient

    client = MlflowClient(default_uri(tmp_path / "out"))
    found = client.search_runs(["1"], "tags.kind = 'summary'", max_results=1000)
    return {run.data.tags["method"]: run for run in found}


def test_jobs_and_summaries_have_their_errors_relative_to_the_baseline(tmp_path, board_results):
    assert not log(tmp_path, board_results).error
    client, jobs, _ = runs(tmp_path)
    for result in board_results:
        run = jobs[result.job.id]
        expected = {"pca": 0.5, "vae": 2.0, "svae-plus": 0.25}.get(result.job.method)
        assert run.data.metrics.get("relative_error") == (None if expected is None else pytest.approx(expected))
        assert run.data.metrics["cost.fit_seconds"] == 3.0
        assert run.data.metrics["primary.knn_recall"] == result.scores["knn_recall"]
        assert run.data.tags["replay"].split()[3:5] == ["replay", result.job.id]
    found = summaries(tmp_path)
    assert found["vae"].data.metrics["relative_error"] == pytest.approx(2.0)
    assert found["vae"].data.metrics["primary.knn_recall"] == pytest.approx(0.6)
    assert found["vae"].data.metrics["cost.fit_seconds"] == 3.0
    assert found["floor"].data.tags["role"] == "reference"
    assert all(run.info.status == "FINISHED" for run in found.values())
    flat = client.search_runs(["1"], "tags.method = 'vae' and tags.kind = 'job'")
    assert len(flat) == 2
    assert all("curve/gaussian/validation" in run.data.metrics for run in flat)
    (other, *_) = client.search_runs(["1"], "tags.method = 'svae-plus' and tags.kind = 'job'")
    assert "curve/svae-plus on pancancer-sim/validation" in other.data.metrics, "another likelihood, another axis"


def test_summaries_follow_the_board(tmp_path, board_results):
    log(tmp_path, board_results)
    before = summaries(tmp_path)
    changed = [
        replace(one, scores=dict.fromkeys(PRIMARY, 0.9), finished="2100-01-01T00:00:00+00:00")
        if one.job.method == "vae"
        else one
        for one in board_results
    ]
    log(tmp_path, changed)
    after = summaries(tmp_path)
    assert {name: run.info.run_id for name, run in after.items()} == {n: run.info.run_id for n, run in before.items()}
    assert after["vae"].data.metrics["relative_error"] == pytest.approx(0.5)
    jobs = runs(tmp_path)[1]
    of_vae = [jobs[one.job.id].data.metrics["relative_error"] for one in changed if one.job.method == "vae"]
    assert of_vae == pytest.approx([0.5, 0.5])


def test_the_link_of_the_ui_asks_for_the_summaries_as_charts(tmp_path, results):
    from urllib.parse import parse_qs

    from bench.keep.ui import link

    log(tmp_path, results)
    asked = parse_qs(link(default_uri(tmp_path / "out"), "http://127.0.0.1:1").partition("?")[2])
    assert asked["searchFilter"] == ["tags.kind = 'summary' and tags.role = 'method'"]
    assert asked["compareRunsMode"] == ["CHART"]


def test_the_tables_are_made_once_for_all_stores(tmp_path, results, monkeypatch):
    monkeypatch.setenv("BENCH_CACHE_DIR", str(tmp_path / "cache"))
    made = []
    migrate = tracking._migrate
    monkeypatch.setattr(tracking, "_migrate", lambda database: made.append(database) or migrate(database))
    for name in ("first", "second"):
        assert not log(tmp_path / name, results).error
        client, children, _ = runs(tmp_path / name)
        assert len(children) == len(results)
        out = (tmp_path / name / "out" / "artifacts").as_uri()
        assert all(experiment.artifact_location.startswith(out) for experiment in client.search_experiments())
    (kept,) = (tmp_path / "cache" / "mlflow").iterdir()
    assert made == [kept]
    kept.write_bytes(kept.read_bytes()[:5000])
    assert not log(tmp_path / "third", results).error
    assert made == [kept, kept], "a store that is cut off is made again"


def test_a_cache_that_cannot_be_written_stops_no_log(tmp_path, results, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("BENCH_CACHE_DIR", str(tmp_path / "file"))
    assert not log(tmp_path, results).error
    assert len(runs(tmp_path)[1]) == len(results)


def test_a_place_that_cannot_be_written_is_an_error_of_the_system():
    """SQLAlchemy's own error is none, and the cache of another user would then stop the log."""
    with pytest.raises(OSError, match="empty"):
        tracking._migrate(Path("/proc/self/empty.db"))
