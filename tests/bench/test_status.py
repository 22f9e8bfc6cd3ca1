"""What ``bench status`` says, from the disk alone."""

import io
import threading
from dataclasses import replace

import pandas as pd
import pytest
from rich.console import Console
from typer.testing import CliRunner

from bench.cli import app
from bench.jobs.job import result_of
from bench.jobs.progress import RunProgress
from bench.keep.status import FAILURES, Looker, duration, render, summary, watch
from bench.keep.store import Store
from bench.keep.tracking import Ledger, default_uri
from bench.plan import choose_methods, choose_tasks, make_plan
from bench.plan.cost import Estimate
from bench.records import Status
from tests.waiting import wait_for

TASK = "reembedding/pancancer-sim"
RUN = {"invocation": "i", "name": "n", "command": "c"}


@pytest.fixture(scope="module")
def jobs():
    """16 jobs of two methods and three references, on two units and two seeds, the skipped one left out."""
    specs, plugins = choose_methods("pca,random-projection", "smoke", [])
    return make_plan(specs, choose_tasks(TASK), "smoke", 2, plugins, {}).jobs


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "out")


def printed(status):
    console = Console(file=io.StringIO(), width=200)
    console.print(render(status))
    return console.file.getvalue()


def test_jobs_are_counted_by_task_and_status(store, jobs):
    store.write_plan(jobs, RUN)
    for job, status in zip(jobs, Status, strict=False):
        store.write(result_of(job, status, "why"))
    status = Looker(store).look()
    assert status.counts == {(TASK, "smoke"): {**dict.fromkeys(Status, 1), "to run": len(jobs) - len(Status)}}
    assert summary(status).startswith("1 ok, 1 failed, 1 timeout, 1 out_of_memory, 1 killed, 1 skipped, ")
    assert not status.at_work
    header, row, *_ = printed(status).splitlines()
    assert header.split() == ["task", *Status, "to", "run"]
    assert row.split() == [TASK, *"111111", str(len(jobs) - len(Status))]


def test_a_result_that_cannot_be_read_is_to_run(store, jobs):
    store.write_plan(jobs[:1], RUN)
    store.file(jobs[0].id).write_text("{")
    assert Looker(store).look().total == {"to run": 1}


def test_several_commands_share_a_plan_and_a_job_planned_anew_replaces_the_old_one(store, jobs):
    first, second = jobs[0], jobs[1]
    changed = replace(first, method_digest="another").with_id()
    store.write_plan([first], RUN)
    store.write_plan([second], {**RUN, "name": "later"})
    assert set(store.plan()["jobs"]) == {first.id, second.id}
    store.write(result_of(first, Status.OK, ""))
    store.write_plan([changed], RUN)
    assert set(store.plan()["jobs"]) == {changed.id, second.id}
    assert Looker(store).look().total == {"outdated": 1, "to run": 2}
    assert store.plan()["run"] == RUN


@pytest.mark.parametrize("content", ["", "{", "[]", "{}"])
def test_a_spoilt_plan_is_as_none(store, jobs, content):
    (store.out / "plan.json").write_text(content)
    store.write(result_of(jobs[0], Status.OK, ""))
    assert Looker(store).look().total == {"ok": 1}


def test_the_last_failures_come_first_with_their_reasons(store, jobs):
    for number, job in enumerate(jobs[: FAILURES + 2]):
        result = result_of(job, Status.FAILED, f"reason {number}\nand more")
        store.write(replace(result, finished=f"2026-01-01T00:00:{number:02}+00:00"))
    lines = [line for line in printed(Looker(store).look()).splitlines() if line.startswith("failed: ")]
    assert len(lines) == FAILURES
    assert lines[0].endswith(f"reason {FAILURES + 1} (job {jobs[FAILURES + 1].id})")


def test_what_mlflow_lacks_is_known_from_the_ledger(store, jobs):
    for job in jobs[:3]:
        store.write(result_of(job, Status.OK, ""))
    assert Looker(store).look().not_logged == {default_uri(store.out): 3}
    Ledger(store, "http://server").add(store.read(jobs[0].id))
    assert Looker(store).look().not_logged == {"http://server": 2}


def test_fits_and_bytes(store, jobs):
    store.fits.mkdir()
    (store.fits / "one.safetensors").write_bytes(b"x" * 3000)
    status = Looker(store).look()
    assert (status.n_fits, status.bytes["fits"]) == (1, 3000)
    assert status.bytes["all"] > 3000


def test_a_second_look_reads_what_has_changed_alone(store, jobs, monkeypatch):
    for job in jobs[:2]:
        store.write(result_of(job, Status.FAILED, "why"))
    looker = Looker(store)
    looker.look()
    read, ids = store.read, []
    monkeypatch.setattr(store, "read", lambda job_id: ids.append(job_id) or read(job_id))
    store.write(result_of(jobs[0], Status.OK, ""))
    store.file(jobs[1].id).unlink()
    assert looker.look().total == {"ok": 1}
    assert ids == [jobs[0].id]


@pytest.mark.parametrize("terminal", [True, False])
def test_watch_ends_when_no_run_is_at_work(store, jobs, terminal):
    store.write_plan(jobs[:2], RUN)
    store.write(result_of(jobs[0], Status.OK, ""))
    lock = store.lock()
    console = Console(file=io.StringIO(), width=200, force_terminal=terminal)
    watching = threading.Thread(target=watch, args=(Store(store.out), console, 0.01))
    watching.start()
    wait_for(lambda: "1" in console.file.getvalue() and "to run" in console.file.getvalue())
    assert watching.is_alive()
    store.write(result_of(jobs[1], Status.KILLED, "by hand"))
    lock.release()
    watching.join(60)
    assert not watching.is_alive()
    assert "killed: " in console.file.getvalue()
    assert "no run is at work here" in console.file.getvalue()


def test_what_runs_now_and_the_time_left_are_shown_while_a_run_is_at_work(store, jobs):
    lock = store.lock()
    store.write_plan(jobs[:3], RUN)
    guess = Estimate(pd.DataFrame(columns=["status", "job_id", "started", "finished"]), {TASK: 100.0})
    progress = RunProgress(jobs[:3], 1, guess, store, Console(quiet=True))
    progress.start(jobs[0])
    status = Looker(store).look()
    assert [job["job"] for job in status.running] == [jobs[0].id]
    assert status.seconds_left == pytest.approx(guess.left(jobs[:3], 1), abs=3)
    assert f"\n  {jobs[0].title}, for 0 s (job {jobs[0].id})" in printed(status)
    assert summary(status) == f"3 to run; about {duration(status.seconds_left)} left"
    result = result_of(jobs[0], Status.OK, "")
    store.write(result)
    progress.done(result)
    assert Looker(store).look().running == []

    progress.start(jobs[1])
    lock.release()  # as when the head is killed: nothing runs, nor does it for the next head until it says so
    assert Looker(store).look().running == []
    with store.lock():
        assert (Looker(store).look().running, Looker(store).look().seconds_left) == ([], None)


def test_looking_does_not_keep_a_run_from_starting(store):
    stop = threading.Event()

    def look():
        while not stop.is_set():
            Store(store.out).is_locked()

    looking = threading.Thread(target=look)
    looking.start()
    try:
        for _ in range(50):
            store.lock().release()
    finally:
        stop.set()
        looking.join()


def test_the_command_says_it_of_an_out_directory_and_makes_none(store, jobs, tmp_path):
    store.write(result_of(jobs[0], Status.OK, ""))
    done = CliRunner().invoke(app, ["status", "--out", str(store.out)])
    assert done.exit_code == 0
    assert "no run is at work here" in done.output
    assert "no results there" in str(CliRunner().invoke(app, ["status", "--out", str(tmp_path / "none")]).exception)
    assert not (tmp_path / "none").exists()
