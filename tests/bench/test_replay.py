"""``bench replay``: one stored job again."""

import re
import shutil
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from bench.cli import app
from bench.jobs.job import run_job
from bench.keep.archive import results as archived
from bench.keep.files import write_sealed
from bench.keep.store import Store, StoreError
from bench.plan import choose_methods, choose_tasks, make_plan
from bench.studies.replay import CLOSE, DIFFERENT, SAME, compare, find, replay
from tasks import load_task
from tests.bench.test_run import PLUGIN


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A network, through the fit cache, two controls and a method of a plugin that raises, on one unit."""
    directory = tmp_path_factory.mktemp("made")
    (directory / "plugin.py").write_text(PLUGIN)
    specs, plugins = choose_methods(f"vae,{directory / 'plugin.py'}:Raises", "smoke", [])
    plan = make_plan(specs, choose_tasks("reembedding/pancancer-sim"), "smoke", 1, plugins, {})
    store = Store(directory / "out")
    for job in plan.jobs:
        if job.unit == "draw0/cancer0" and job.method in ("vae", "raises", "floor", "baseline"):
            store.write(run_job(job, store.fits))
    assert list(store.fits.glob("*.safetensors"))
    return store


@pytest.fixture
def store(made, tmp_path):
    return Store(shutil.copytree(made.out, tmp_path / "out"))


def stored(store, method):
    return next(result for result in store.results() if result.job.method == method)


@pytest.mark.parametrize("method", ["vae", "floor", "baseline"])
def test_an_unchanged_job_gives_the_same_bits_without_the_cache(store, method):
    shutil.rmtree(store.fits)
    before = stored(store, method)
    done = replay(before)
    assert done.changes == []
    assert {verdict for *_, verdict in done.scores.values()} == {SAME}
    assert set(done.scores) == set(before.scores)
    assert done.agrees
    assert not store.fits.exists()
    assert stored(store, method) == before


@pytest.mark.parametrize(
    ("then", "now", "verdict"),
    [
        (0.5, 0.5, SAME),
        (None, None, SAME),
        (0.5, 0.5 + 1e-9, CLOSE),
        (1e9, 1e9 + 1, CLOSE),
        (0.5, 0.50001, DIFFERENT),
        (None, 0.5, DIFFERENT),
        (0.5, None, DIFFERENT),
    ],
)
def test_compare(then, now, verdict):
    assert compare(then, now) == verdict


def test_a_score_that_was_changed_is_found(store):
    result = stored(store, "floor")
    changed = {"displacement": 1e-3, "knn_recall": 1e-9}
    scores = {name: value + changed.get(name, 0.0) for name, value in result.scores.items()}
    store.write(replace(result, scores=scores))
    done = CliRunner().invoke(app, ["replay", result.job.id[:9], "--out", str(store.out)])
    assert done.exit_code == 1, done.output
    verdicts = {line.split()[0]: line for line in done.output.splitlines() if line}
    assert verdicts["displacement"].rstrip().endswith(DIFFERENT)
    assert verdicts["knn_recall"].rstrip().endswith(CLOSE)
    assert verdicts["distance_spearman"].rstrip().endswith(SAME)
    assert "not as it was" not in done.output
    assert re.search(r"seed 0: differs, by [0-9.e-]+ of a score at most$", done.output.rstrip()), done.output


@pytest.mark.parametrize(
    ("field", "what"),
    [("method_digest", "the method's code"), ("task_digest", "the task's code"), ("data_digest", "the data")],
)
def test_a_digest_that_is_another_is_said(store, field, what):
    result = stored(store, "baseline")
    changes = replay(replace(result, job=replace(result.job, **{field: "0" * 64}))).changes
    assert any(change.startswith(f"{what} (000000000000 then, ") for change in changes)
    assert sum("of something else" in change for change in changes) == 1
    assert len(changes) == 2


def test_other_metrics_are_said_where_the_result_says_which_it_had(store):
    result = stored(store, "baseline")
    of_task = result.job.task_digest.split()[0]
    changes = replay(replace(result, job=replace(result.job, task_digest=f"{of_task} {'0' * 64}"))).changes
    assert changes[0].startswith("the metrics' code (000000000000 then, ")
    earlier = replay(replace(result, job=replace(result.job, task_digest=of_task).with_id())).changes
    assert earlier == [], "one of before says nothing of them"


def test_another_library_or_machine_is_said(store):
    result = stored(store, "baseline")
    versions = {**result.environment["versions"], "numpy": "1.0"}
    environment = {**result.environment, "versions": versions, "cpu": "abacus"}
    changes = replay(replace(result, environment=environment)).changes
    assert [change.partition(" (")[0] for change in changes] == ["cpu", "numpy"]
    assert "abacus then" in changes[0]


@pytest.mark.parametrize(("cpu", "said"), [("abacus", True), (None, False)])
def test_a_difference_is_measured_and_another_machine_explains_it(store, cpu, said):
    result = stored(store, "floor")
    environment = result.environment | ({"cpu": cpu} if cpu else {})
    scores = {**result.scores, "knn_recall": 1.01 * result.scores["knn_recall"], "displacement": None}
    done = replay(replace(result, scores=scores, environment=environment))
    assert done.verdict.startswith("differs, by 0.0099 of a score at most")
    assert ("rounds differently" in done.verdict) == said


def test_a_setting_that_was_changed_is_said(store):
    result = stored(store, "vae")
    job = replace(result.job, config={**result.job.config, "steps": 8})
    done = replay(replace(result, job=job))
    assert len(done.changes) == 1
    assert "of something else" in done.changes[0]
    assert not done.agrees


def test_a_job_that_failed_fails_again_with_its_traceback(store):
    result = stored(store, "raises")
    done = CliRunner().invoke(app, ["replay", result.job.id, "--out", str(store.out)])
    assert done.exit_code == 1
    assert "ArithmeticError: planted failure" in done.output
    assert "Traceback" in done.output


def test_the_job_is_found_by_the_beginning_of_its_id(store):
    ids = [result.job.id for result in store.results()]
    assert find(store.results(), ids[0]).job.id == ids[0]
    again = store.read(ids[0])
    store.write(replace(again, job=replace(again.job, id=ids[0][:8] + "00000000", seed=7)))
    with pytest.raises(StoreError, match=f"2 results are called so; give more of one:(.|\n)*{ids[0]}"):
        find(store.results(), ids[0][:8])
    for prefix in ("", "xyz", "../jobs"):
        with pytest.raises(StoreError, match="no result is called so; give METHOD/TASK/DATASET/UNIT/SEED"):
            find(store.results(), prefix)


def test_the_job_is_found_by_its_names(store):
    result = stored(store, "vae")
    names = "vae/reembedding/pancancer-sim/draw0/cancer0/0"
    for asked in (names, names.removesuffix("/0"), "vae"):
        assert find(store.results(), asked).job.id == result.job.id
    later = replace(result, job=replace(result.job, id="f" * 16), finished="2100-01-01T00:00:00+00:00")
    store.write(later)  # the code has changed: the same place in the cross
    assert find(store.results(), names).job.id == "f" * 16
    assert find(store.results(), result.job.id).job.id == result.job.id
    store.write(replace(later, job=replace(later.job, id="e" * 16, preset="default")))
    with pytest.raises(StoreError, match=rf"{names} \(default, eeee(.|\n)*{names} \(smoke, ffff"):
        find(store.results(), names)
    with pytest.raises(StoreError, match="no result is called so"):
        find(store.results(), "va/reembedding")  # names are whole


def test_three_rows_are_replayed_from_the_parquet_file_alone(store, tmp_path):
    alone = tmp_path / "table.parquet"
    store.gather()
    shutil.move(store.parquet, alone)
    shutil.rmtree(store.out)
    for method in ("vae", "floor", "baseline"):
        done = CliRunner().invoke(
            app, ["replay", f"{method}/reembedding/pancancer-sim/draw0/cancer0", "--out", str(alone)]
        )
        assert done.exit_code == 0, done.output
        assert "not as it was" not in done.output
        assert done.output.rstrip().endswith("agrees")


def test_the_table_knows_plugins_and_files_of_users(store, tmp_path):
    """Where either lies is no part of a job's id, and the table must say it."""
    store.gather()
    raised = next(result for result in archived(store.parquet) if result.job.method == "raises")
    assert raised.job == stored(store, "raises").job
    data = load_task("reembedding/pancancer-sim", "smoke").data.copy()
    fields = data.uns.pop("fields")
    data.write_h5ad(tmp_path / "my.h5ad")
    columns = f"unit={fields['content']},environment={fields['environment']}"
    given = ["--tasks", "reembedding", "--data", str(tmp_path / "my.h5ad"), "--columns", columns, "--methods", "pca"]
    given += ["--preset", "smoke", "--seeds", "1", "--executor", "inline", "--out", str(tmp_path / "own")]
    assert CliRunner().invoke(app, ["run", *given]).exit_code == 0
    table = tmp_path / "own" / "results.parquet"
    done = CliRunner().invoke(app, ["replay", "pca/reembedding/my/cancer0", "--out", str(table)])
    assert done.exit_code == 0, done.output
    assert done.output.rstrip().endswith("agrees")


def test_a_job_of_another_version_or_without_its_data_is_refused(store):
    result = stored(store, "baseline")
    with pytest.raises(StoreError, match="no longer has a reference cellar"):
        replay(replace(result, job=replace(result.job, method="cellar")))
    content = result.to_json()
    for other in ({"format": 0}, {"job": {**content["job"], "colour": "red"}}):
        write_sealed({**content, **other}, store.file(result.job.id))
        with pytest.raises(StoreError, match="no result is called so"):
            find(store.results(), result.job.id)
