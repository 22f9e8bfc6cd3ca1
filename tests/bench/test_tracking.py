"""What MLflow has when its store, the ledger or the answers of a server are lost."""

from dataclasses import replace

import pytest

from bench.jobs.job import result_of
from bench.keep.store import Store
from bench.keep.tracking import BATCH, Tracker, default_uri
from bench.plan import choose_methods, choose_tasks, make_plan
from bench.records import Status
from tests.bench.test_run import runs


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
    tracker.finish("FINISHED", [], {})
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
    assert parent.info.run_id == tracker._parent


def test_whatever_a_result_holds_is_taken(tmp_path, results):
    """More values than a batch takes, names and texts that MLflow refuses."""
    curves = {"<b>/../x": [1.0] * (BATCH + 300), "..": [None, 2.0]}
    odd = replace(results[0], curves=curves, reason="long " * 5000)
    tracker = log(tmp_path, [odd])
    assert not tracker.error
    client, children, _ = runs(tmp_path)
    run = children[odd.job.id]
    assert len(client.get_metric_history(run.info.run_id, "curve/_b__.._x")) == BATCH + 300
    assert run.data.metrics["curve/_"] == 2.0
