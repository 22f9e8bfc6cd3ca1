import json
import math

import pytest

from bench.jobs.job import result_of
from bench.keep.store import Store, StoreError, gather
from bench.plan import choose_methods, choose_tasks, make_plan
from bench.records import COLUMNS, FORMAT, Status


@pytest.fixture
def jobs():
    specs, plugins = choose_methods("pca,no-change", "smoke", [])
    return make_plan(specs, choose_tasks("reembedding/pancancer-sim"), "smoke", 1, plugins, {}).jobs


def test_a_directory_of_another_format_is_refused(tmp_path):
    Store(tmp_path)
    (tmp_path / "store.json").write_text(json.dumps({"format": FORMAT + 1}))
    with pytest.raises(StoreError, match=f"written in format {FORMAT + 1}, this version reads {FORMAT}"):
        Store(tmp_path)


def test_a_directory_of_something_else_is_refused(tmp_path):
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "notes.txt").write_text("mine")
    with pytest.raises(StoreError, match=r"no readable result and no store\.json"):
        Store(tmp_path)


def test_a_directory_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="not writable"):
        Store(tmp_path / "file" / "out")


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "{}", "\x00"])
def test_a_spoilt_stamp_is_made_anew_where_the_results_say_what_they_are(tmp_path, jobs, content):
    store = Store(tmp_path)
    store.write(result_of(jobs[0], Status.OK, ""))
    (tmp_path / "store.json").write_text(content)
    assert Store(tmp_path).finished(jobs[0].id)
    assert json.loads((tmp_path / "store.json").read_text()) == {"format": FORMAT}
    store.file(jobs[0].id).write_text("?")
    (tmp_path / "store.json").write_text(content)
    with pytest.raises(StoreError, match=r"no readable result and no store\.json"):
        Store(tmp_path)


def test_one_head_at_a_time(tmp_path):
    first = Store(tmp_path).lock()
    with pytest.raises(StoreError, match="another run is at work"):
        Store(tmp_path).lock()
    first.release()
    Store(tmp_path).lock().release()


def test_only_ok_and_skipped_are_finished(tmp_path, jobs):
    store = Store(tmp_path)
    job = jobs[0]
    for status in Status:
        store.write(result_of(job, status, "why"))
        assert store.read(job.id).reason == "why"
        assert (store.finished(job.id) is not None) == (status in ("ok", "skipped"))


def of_another_job(text, jobs):
    return text.replace(jobs[0].id, jobs[1].id)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text, jobs: "",
        lambda text, jobs: "[]",
        lambda text, jobs: '{"format": 0}',
        lambda text, jobs: "\x00\x00",
        lambda text, jobs: text[: len(text) // 2],
        lambda text, jobs: text.replace('"ok"', '"ko"'),
        lambda text, jobs: text.replace("0.5", "0.6"),
        lambda text, jobs: text + " ",
        lambda text, jobs: "{" + text[80:],
        of_another_job,
    ],
)
def test_a_spoilt_result_is_as_none(tmp_path, jobs, spoil):
    store = Store(tmp_path)
    store.write(result_of(jobs[0], Status.OK, "", scores={"displacement": 0.5}))
    text = store.file(jobs[0].id).read_text()
    store.file(jobs[0].id).write_text(spoil(text, jobs))
    assert store.finished(jobs[0].id) is None
    assert len(store.gather().rows) == 0


def test_a_result_under_another_jobs_name_is_as_none(tmp_path, jobs):
    store = Store(tmp_path)
    store.write(result_of(jobs[0], Status.OK, ""))
    store.file(jobs[0].id).rename(store.file(jobs[1].id))
    assert store.finished(jobs[1].id) is None
    store.write_index({"task": {"units": ["a"]}})
    (tmp_path / "index.json").rename(store.file(jobs[1].id))
    assert store.finished(jobs[1].id) is None
    assert len(store.gather().rows) == 0


@pytest.mark.parametrize("content", ["", "{", "[]", '{"tasks": 3}', "\x00"])
def test_a_spoilt_index_is_as_none(tmp_path, content):
    store = Store(tmp_path)
    store.write_index({"task": {"units": ["a"]}})
    assert store.index() == {"task": {"units": ["a"]}}
    (tmp_path / "index.json").write_text(content)
    assert store.index() == {}


def test_a_clock_that_goes_back_changes_no_row_but_their_order(tmp_path, jobs, monkeypatch):
    from datetime import UTC, datetime

    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime(2001, 1, 1, tzinfo=UTC)

    store = Store(tmp_path)
    store.write(result_of(jobs[0], Status.OK, "", scores={"displacement": 0.5}))
    monkeypatch.setattr("bench.jobs.job.datetime", Clock)
    store.write(result_of(jobs[1], Status.OK, "", scores={"displacement": 0.5}, started="2026-01-01T00:00:00+00:00"))
    rows = store.gather().rows.drop_duplicates("job_id")
    assert list(rows["job_id"]) == [jobs[1].id, jobs[0].id]
    assert (rows["started"] > rows["finished"]).sum() == 1


def test_tidy_rows(tmp_path, jobs):
    ok = next(job for job in jobs if job.method == "pca")
    skipped = next(job for job in jobs if job.skip)
    control = next(job for job in jobs if job.method == "baseline")
    store = Store(tmp_path)
    store.write(result_of(ok, Status.OK, "", scores={"displacement": 0.5, "knn_recall": None}, fit_seconds=2.0))
    store.write(result_of(skipped, Status.SKIPPED, skipped.skip))
    store.write(result_of(control, Status.FAILED, "it broke"))
    rows = store.gather().rows
    assert list(rows.columns) == list(COLUMNS)
    of_ok = rows[rows["job_id"] == ok.id].set_index("metric")
    assert of_ok.loc["displacement", "value"] == 0.5
    assert of_ok.loc["displacement", "better"] == "lower"
    assert of_ok["primary"].to_dict() == {"knn_recall": True, "neighbour_agreement": True, "displacement": False}
    assert math.isnan(of_ok.loc["knn_recall", "value"])
    for job, status in ((skipped, "skipped"), (control, "failed")):
        rest = rows[rows["job_id"] == job.id]
        assert sorted(rest["metric"]) == ["knn_recall", "neighbour_agreement"]
        assert rest["value"].isna().all()
        assert (rest["status"] == status).all()
    assert store.parquet.exists()


def test_no_result_makes_an_empty_table_with_all_columns():
    assert list(gather([]).rows.columns) == list(COLUMNS)


def test_curves_and_pictures_are_rows_of_methods_that_ended_well(tmp_path, jobs):
    store = Store(tmp_path)
    method, control = (next(job for job in jobs if job.role == role) for role in ("method", "reference"))
    shown = {"x": [1.0, 2.0], "y": [0.0, 1.0], "environment": ["a", "b"], "content": ["", ""], "trained": [True, False]}
    store.write(result_of(method, Status.OK, "", curves={"loss": [2.0, 1.0], "kl": [0.5]}, picture=shown))
    store.write(result_of(control, Status.OK, "", curves={"loss": [9.0]}))
    store.write(
        result_of(next(c for c in jobs if c not in (method, control)), Status.FAILED, "", curves={"loss": [9.0]})
    )
    gathered = store.gather()
    curves, pictures = gathered.curves, gathered.pictures
    assert curves.to_dict("list") == {
        "job_id": [method.id] * 3,
        "term": ["loss", "loss", "kl"],
        "epoch": [0, 1, 0],
        "value": [2.0, 1.0, 0.5],
    }
    assert pictures.to_dict("list") == {"job_id": [method.id] * 2, **shown}
    assert {"curves.parquet", "pictures.parquet"} <= {file.name for file in tmp_path.iterdir()}
