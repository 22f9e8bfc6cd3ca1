"""``bench clean``: what can go from an out directory."""

import pytest
from typer.testing import CliRunner

from bench.cli import app
from bench.jobs.job import result_of
from bench.keep.store import Store, StoreError
from bench.plan import choose_methods, choose_tasks, make_plan
from bench.records import PlanError, Status


@pytest.fixture
def store(tmp_path):
    """Two jobs that ended well, one skipped, one failed and one killed, with logs and fits."""
    specs, plugins = choose_methods("pca", "smoke", [])
    jobs = make_plan(specs, choose_tasks("reembedding/pancancer-sim"), "smoke", 1, plugins, {}).jobs
    store = Store(tmp_path / "out")
    (store.out / "logs").mkdir()
    store.fits.mkdir()
    for job, status in zip(jobs, ("ok", "ok", "skipped", "failed", "killed"), strict=False):
        store.write(result_of(job, Status(status), "why", scores={"displacement": 0.5} if status == "ok" else {}))
        (store.out / "logs" / f"{job.id}.log").write_text("said")
    (store.fits / "one.safetensors").write_bytes(b"x" * 2_000_000)
    (store.fits / "one.lock").write_bytes(b"")
    return store


def clean(store, *arguments):
    return CliRunner().invoke(app, ["clean", "--out", str(store.out), *arguments])


def everything(store):
    return {file.relative_to(store.out) for file in store.out.rglob("*") if file.is_file()} - {
        store.out.joinpath("lock").relative_to(store.out)
    }


@pytest.mark.parametrize("arguments", [(), ("--fits",), ("--fits", "--logs", "--failed")])
def test_without_yes_it_only_says_what_would_go(store, arguments):
    before = everything(store)
    done = clean(store, *arguments)
    assert done.exit_code == 0
    assert everything(store) == before
    (line,) = [line for line in done.output.splitlines() if line.startswith("--fits")]
    assert line.split()[1:4] == ["2", "2.0", "MB"]


def test_each_choice_removes_its_own_files_alone(store):
    before = everything(store)
    statuses = {result.job.id: result.status for result in store.results()}

    assert clean(store, "--fits", "--yes").exit_code == 0
    assert {str(file.parent) for file in before - everything(store)} == {"fits"}

    assert clean(store, "--failed", "--yes").exit_code == 0
    assert sorted(result.status for result in store.results()) == ["ok", "ok", "skipped"]
    logs = {file.stem for file in (store.out / "logs").iterdir()}
    assert logs == {job for job, status in statuses.items() if status in ("ok", "skipped")}
    assert "killed" not in (store.out / "leaderboard.csv").read_text()
    assert store.parquet.exists()

    assert clean(store, "--logs", "--yes").exit_code == 0
    assert list((store.out / "logs").iterdir()) == []
    assert len(list(store.results())) == 3


def test_what_a_link_points_to_stays(store, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    (store.out / "logs" / "linked.log").symlink_to(tmp_path / "mine.txt")
    assert clean(store, "--logs", "--yes").exit_code == 0
    assert (tmp_path / "mine.txt").read_text() == "mine"
    assert list((store.out / "logs").iterdir()) == []


def test_yes_alone_removes_nothing(store):
    before = everything(store)
    done = clean(store, "--yes")
    assert isinstance(done.exception, PlanError)
    assert everything(store) == before


def test_nothing_goes_while_a_run_is_at_work(store):
    with store.lock():
        done = clean(store, "--logs", "--yes")
    assert isinstance(done.exception, StoreError)
    assert list((store.out / "logs").iterdir())
