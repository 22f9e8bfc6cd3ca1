"""The program from end to end, mostly in processes of its own, as a user runs it."""

import json
import os
import signal
import subprocess
import sys

import pandas as pd
import pytest

from tests.bench.conftest import process_environment
from tests.waiting import wait_for

TASK = "reembedding/pancancer-sim"
TINY = ("--tasks", TASK, "--preset", "smoke", "--draws", "1", "--out", "out")

PLUGIN = """
import os, subprocess, sys, time
import numpy as np
from methods import register_method
from methods.base import Method
from methods.errors import CannotFit


class Plain(Method):
    '''The mean of all genes.'''

    tags = frozenset({"planted"})

    def fit(self, data, seed):
        self.act()
        return self

    def act(self):
        pass

    def embed(self, data):
        return np.asarray(data.X).mean(axis=1, keepdims=True)


@register_method
class Fine(Plain):
    name = "fine"


@register_method
class Raises(Plain):
    name = "raises"

    def act(self):
        raise ArithmeticError("planted failure")


@register_method
class Refuses(Plain):
    name = "refuses"

    def act(self):
        raise CannotFit("planted refusal")


@register_method
class Collapsed(Plain):
    name = "collapsed"

    def embed(self, data):
        return np.zeros((data.n_obs, 2))


@register_method
class Slow(Plain):
    '''Says who it is, then waits to be killed.'''

    name = "slow"

    def act(self):
        with open(os.environ["PID_FILE"], "a") as stream:
            stream.write(f"{os.getpid()}\\n")
        time.sleep(float(os.environ.get("SLEEP", "60")))


@register_method
class Hungry(Plain):
    '''Holds too much only together with a process of its own.'''

    name = "hungry"

    def act(self):
        self.hoard = [np.ones(10_000_000) for _ in range(5)]
        subprocess.run([sys.executable, "-c", "import time; x = bytearray(b'x' * 1_200_000_000); time.sleep(60)"])


@register_method
class Crashes(Plain):
    name = "crashes"

    def act(self):
        os._exit(7)
"""


def runs(tmp_path, uri=None):
    from mlflow import MlflowClient

    client = MlflowClient(uri or f"sqlite:///{tmp_path / 'out' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("bench")
    found = client.search_runs([experiment.experiment_id], max_results=1000)
    kinds = {kind: [run for run in found if run.data.tags["kind"] == kind] for kind in ("job", "command", "summary")}
    jobs = {run.data.tags["job_id"]: run for run in kinds["job"]}
    assert len(jobs) == len(kinds["job"]), "a job was logged twice"
    summaries = {tuple(run.data.tags[name] for name in ("benchmark", "preset", "method")) for run in kinds["summary"]}
    assert len(summaries) == len(kinds["summary"]), "a summary was logged twice"
    assert not any("mlflow.parentRunId" in run.data.tags for run in found), "the list is flat"
    return client, jobs, kinds["command"]


def results(tmp_path):
    return {file.stem: json.loads(file.read_text()) for file in (tmp_path / "out" / "jobs").glob("*.json")}


@pytest.mark.slow
def test_a_run_ends_with_rows_leaderboard_and_mlflow_and_the_second_does_nothing(cli, tmp_path):
    arguments = ("run", "--methods", "pca,vae,no-change", *TINY, "--seeds", 2)
    first = cli(*arguments)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "python -m bench ui --out out" in first.stdout
    assert "skipped  no-change cannot embed, which reembedding needs (reembedding/pancancer-sim)" in first.stdout

    rows = pd.read_parquet(tmp_path / "out" / "results.parquet")
    ok = rows[rows["status"] == "ok"]
    assert set(ok["method"]) == {"pca", "vae", "floor", "baseline", "structure", "ceiling"}
    assert ok["value"].notna().all()
    assert ok.groupby("method")["job_id"].nunique().eq(2).all()
    assert set(ok[ok["method"] == "baseline"]["detail"]) == {"pca"}
    assert (ok["peak_memory_mb"] > 50).all()
    assert (ok[ok["method"] == "vae"]["fit_seconds"] > 0).all()
    assert "still improved at the end of its steps" in set(ok["warnings"])
    pca, n1 = (ok[ok["method"] == name].set_index(["unit", "seed", "metric"])["value"] for name in ("pca", "baseline"))
    pd.testing.assert_series_equal(pca.sort_index(), n1.sort_index(), check_names=False)

    board = (tmp_path / "out" / "leaderboard.md").read_text()
    for text in ("python -m bench run --methods pca,vae,no-change", "Commit:", "torch 2.13.0", "| vae", "no-change"):
        assert text in board
    assert {"pca", "vae", "floor", "baseline", "ceiling"} <= set(
        pd.read_csv(tmp_path / "out" / "leaderboard.csv")["method"]
    )

    client, children, (parent,) = runs(tmp_path)
    assert set(children) == set(results(tmp_path))
    assert parent.info.status == "FINISHED"
    artifacts = {artifact.path for artifact in client.list_artifacts(parent.info.run_id)}
    tables = {"leaderboard.html", "leaderboard.md", "leaderboard.csv", "leaderboard_suite.csv"}
    assert artifacts == {*tables, "results.parquet"}
    vae = next(run for run in children.values() if run.data.tags["method"] == "vae")
    result = results(tmp_path)[vae.data.tags["job_id"]]
    assert vae.data.tags["invocation"] == parent.data.tags["invocation"]
    assert vae.data.tags.items() >= {"task": "reembedding", "dataset": "pancancer-sim", "status": "ok"}.items()
    assert vae.data.metrics["secondary.displacement"] == result["scores"]["displacement"]
    assert vae.data.params["steps"] == "40"
    assert vae.data.tags["log"] == "training stopped: the end of its steps"
    passes = list(range(len(client.get_metric_history(vae.info.run_id, "curve/gaussian/kl"))))
    assert [m.step for m in client.get_metric_history(vae.info.run_id, "curve/gaussian/kl")] == passes
    assert len(passes) > 1
    (dataset_input,) = vae.inputs.dataset_inputs
    assert dataset_input.dataset.name == "pancancer-sim"
    assert vae.data.tags["data_sha256"] == result["job"]["data_digest"]

    before = results(tmp_path)
    second = cli(*arguments, PYTHONPROFILEIMPORTTIME="1")
    assert second.returncode == 0
    assert "nothing to run" in second.stdout
    imported = {line.rpartition("|")[2].strip() for line in second.stderr.splitlines()}
    assert "pandas" in imported
    assert not imported & {"jax", "mlflow", "sklearn", "umap"}, "a run without jobs starts what jobs need"
    assert results(tmp_path) == before
    assert len(runs(tmp_path)[1]) == len(children)

    again = cli("leaderboard", "--out", "out")
    assert again.returncode == 0
    assert "vae" in again.stdout


@pytest.mark.slow
def test_faults_take_one_job_each(cli, plugin, tmp_path):
    done = cli(
        "run", "--methods", "planted,pca", "--plugin", plugin(PLUGIN), *TINY, "--time-limit", 0.25,
        "--memory-limit", 1, "--jobs", 2, PID_FILE=str(tmp_path / "pids"),
    )  # fmt: skip
    assert done.returncode == 1
    by_method = {}
    for result in results(tmp_path).values():
        by_method.setdefault(result["job"]["method"], set()).add((result["status"], result["reason"]))
    status = {method: {status for status, _ in found} for method, found in by_method.items()}
    assert status == {
        "fine": {"ok"},
        "pca": {"ok"},
        "floor": {"ok"},
        "baseline": {"ok"},
        "structure": {"ok"},
        "ceiling": {"ok"},
        "raises": {"failed"},
        "crashes": {"failed"},
        "collapsed": {"ok"},
        "refuses": {"skipped"},
        "slow": {"timeout"},
        "hungry": {"out_of_memory"},
    }
    assert by_method["raises"] == {("failed", "ArithmeticError: planted failure")}
    assert (
        "failed: raises · reembedding/pancancer-sim · draw0/cancer0 · seed 0: ArithmeticError: planted" in done.stdout
    )
    assert by_method["refuses"] == {("skipped", "planted refusal")}
    (crash,) = {reason.partition(";")[0] for _, reason in by_method["crashes"]}
    assert crash == "the process ended with code 7 and no result"
    rows = pd.read_parquet(tmp_path / "out" / "results.parquet")
    failed = rows[rows["status"] != "ok"]
    assert failed["value"].isna().all()
    collapsed = rows[(rows["method"] == "collapsed") & (rows["metric"] == "displacement")]
    assert collapsed["value"].isna().all(), "a collapsed code has no displacement, and no number stands for one"
    board = (tmp_path / "out" / "leaderboard.md").read_text()
    assert "planted failure" in board
    assert "planted refusal" in board
    _, children, (parent,) = runs(tmp_path)
    assert parent.info.status == "FAILED"
    statuses = {run.data.tags["method"]: run.info.status for run in children.values()}
    assert statuses["raises"] == "FAILED"
    assert statuses["slow"] == statuses["hungry"] == "KILLED"
    assert statuses["fine"] == statuses["refuses"] == "FINISHED"


@pytest.mark.slow
def test_a_killed_job_is_killed_alone_and_tried_again(cli, start, plugin, tmp_path):
    pids = tmp_path / "pids"
    arguments = ("run", "--methods", "slow,fine", "--plugin", plugin(PLUGIN), *TINY, "--seeds", 2, "--jobs", 1)
    head = start(*arguments, PID_FILE=str(pids), SLEEP="1")
    os.kill(int(wait_for(lambda: pids.exists() and pids.read_text().splitlines())[0]), signal.SIGKILL)
    printed, _ = head.communicate(timeout=120)
    assert head.returncode == 1, printed
    statuses = sorted((r["job"]["method"], r["status"]) for r in results(tmp_path).values())
    assert statuses.count(("slow", "killed")) == 1
    assert statuses.count(("slow", "ok")) == 1
    assert {status for method, status in statuses if method != "slow"} == {"ok"}
    assert "SIGKILL" in printed

    again = cli(*arguments, PID_FILE=str(pids), SLEEP="0")
    assert again.returncode == 0, again.stdout
    assert {result["status"] for result in results(tmp_path).values()} == {"ok"}
    _, children, (parent,) = runs(tmp_path)
    assert {run.data.tags["status"] for run in children.values()} == {"ok"}
    assert {run.info.status for run in children.values()} == {"FINISHED"}
    assert parent.info.status == "FINISHED"


@pytest.mark.slow
def test_a_killed_head_loses_and_doubles_nothing(cli, start, plugin, tmp_path):
    pids = tmp_path / "pids"
    arguments = ("run", "--methods", "slow,fine,pca", "--plugin", plugin(PLUGIN), *TINY, "--jobs", 1)
    head = start(*arguments, PID_FILE=str(pids), SLEEP="60")
    worker = int(wait_for(lambda: pids.exists() and pids.read_text().splitlines())[0])
    wait_for((tmp_path / "out" / "mlflow-open").exists)
    wait_for((tmp_path / "out" / "logged.tsv").exists)
    head.kill()
    head.communicate()
    wait_for(lambda: not os.path.exists(f"/proc/{worker}"), 20)
    kept = results(tmp_path)
    assert kept
    _, _, (parent,) = runs(tmp_path)
    assert parent.info.status == "RUNNING"

    again = cli(*arguments, PID_FILE=str(pids), SLEEP="0")
    assert again.returncode == 0, again.stdout
    after = results(tmp_path)
    assert {cell: after[cell] for cell in kept} == kept
    assert {result["status"] for result in after.values()} == {"ok"}
    _, children, (parent,) = runs(tmp_path)
    assert set(children) == set(after)
    assert parent.info.status == "FINISHED"
    assert {run.info.status for run in children.values()} == {"FINISHED"}


@pytest.mark.slow
def test_a_run_whose_head_died_is_closed_as_failed_by_another_command(cli, start, plugin, tmp_path):
    pids = tmp_path / "pids"
    head = start(
        "run", "--methods", "slow,fine", "--plugin", plugin(PLUGIN), *TINY, "--jobs", 1, PID_FILE=str(pids), SLEEP="60"
    )
    wait_for((tmp_path / "out" / "logged.tsv").exists)
    head.kill()
    head.communicate()
    assert cli("run", "--methods", "pca", *TINY).returncode == 0
    _, _, parents = runs(tmp_path)
    assert sorted(run.info.status for run in parents) == ["FAILED", "FINISHED"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_jobs_and_says_how_to_go_on(start, plugin, tmp_path, number):
    pids = tmp_path / "pids"
    head = start("run", "--methods", "slow", "--plugin", plugin(PLUGIN), *TINY, PID_FILE=str(pids), SLEEP="1000")
    worker = int(wait_for(lambda: pids.exists() and pids.read_text().splitlines())[0])
    head.send_signal(number)
    printed, _ = head.communicate(timeout=100)
    assert head.returncode == 130
    assert "run the same command again to go on" in printed
    wait_for(lambda: not os.path.exists(f"/proc/{worker}"), 20)


#: An interrupt comes just after a job's process has started; prints the names of the processes that are left.
INTERRUPTED = """
import multiprocessing
from pathlib import Path
from bench.jobs.executors.local import LocalExecutor
from bench.keep.store import Store
from bench.plan import choose_methods, choose_tasks, make_plan

specs, plugins = choose_methods("pca", "smoke", [])
jobs = make_plan(specs, choose_tasks("reembedding/pancancer-sim"), "smoke", 1, plugins, {}).jobs

def interrupted(job):
    raise KeyboardInterrupt

try:
    LocalExecutor(2, 60, 8000).run(jobs, Store(Path("out")), interrupted, lambda result: None)
except KeyboardInterrupt:
    print([process.name for process in multiprocessing.active_children()])
"""


def test_an_interrupt_just_after_a_job_started_ends_it_too(tmp_path):
    """The run would wait for a process that is not on its list, for as long as the job takes."""
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED],
        cwd=tmp_path,
        env=process_environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "[]\n", done.stdout + done.stderr


def test_a_ten_line_file_gets_a_row(inside, plugin, tmp_path):
    file = plugin(
        """import numpy as np
from methods.base import Method


class GeneMean(Method):
    name = "gene-mean"

    def fit(self, data, seed):
        return self

    def embed(self, data):
        return np.asarray(data.X).mean(axis=1, keepdims=True)
"""
    )
    done = inside("run", "--methods", f"{file}:GeneMean", *TINY)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| gene-mean" in (tmp_path / "out" / "leaderboard.md").read_text()


@pytest.mark.slow
def test_a_good_run_leaves_nothing_on_stderr(cli, plugin, tmp_path):
    file = plugin(
        """
import multiprocessing
import numpy as np
from tqdm import tqdm
from methods.base import Method

held = []

class Locked(Method):
    name = "locked"

    def fit(self, data, seed):
        held.append(multiprocessing.get_context("spawn").Semaphore())
        held.append(tqdm(range(2), disable=True))  # which keeps a lock for all processes
        return self

    def embed(self, data):
        return np.asarray(data.X).mean(axis=1, keepdims=True)
"""
    )
    done = cli("run", "--methods", f"{file}:Locked,vae,umap", *TINY, "--seeds", 2, "--jobs", 4)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert {result["status"] for result in results(tmp_path).values()} == {"ok"}
    assert not list((tmp_path / "out" / "logs").iterdir())


def test_a_dry_run_says_all_and_runs_nothing(inside, tmp_path):
    done = inside("run", "--methods", "all", "--tasks", "ood", "--preset", "smoke", "--out", "out", "--dry-run",
               BENCH_CACHE_DIR=str(tmp_path / "cache"))  # fmt: skip
    assert done.returncode == 0
    (absent,) = (line for line in done.stdout.splitlines() if line.startswith("skipped  no data here for "))
    assert "unseen-cell-type/kang, " in absent
    assert "python -m bench data fetch NAME" in absent
    assert "umap cannot predict, which unseen-cell-type needs (unseen-cell-type/ifn-sim, " in done.stdout
    assert "jobs at a time (rough: not all of it has been measured here yet)" in done.stdout
    assert results(tmp_path) == {}
    assert not (tmp_path / "out" / "mlflow.db").exists()


def test_one_task_without_data_says_which_files_and_the_command(inside):
    done = inside("run", "--methods", "pca", "--tasks", "reembedding/tcga-paired,reembedding/pancancer-sim",
               "--preset", "smoke", "--out", "out", "--dry-run")  # fmt: skip
    assert "skipped  reembedding/tcga-paired: tcga-paired: 11 of 11 original files are not in" in done.stdout
    assert "python -m bench data fetch tcga-paired`" in done.stdout


def test_inline_and_local_give_the_same_scores(inside, tmp_path):
    scores = {}
    for executor, jobs in (("inline", 1), ("local", 2)):
        done = inside("run", "--methods", "vae,pca", *TINY[:-1], executor, "--executor", executor, "--jobs", jobs)
        assert done.returncode == 0, done.stdout + done.stderr
        rows = pd.read_parquet(tmp_path / executor / "results.parquet")
        scores[executor] = rows.set_index(["method", "unit", "seed", "metric"])["value"].sort_index()
    pd.testing.assert_series_equal(scores["inline"], scores["local"], check_exact=True)


def test_an_mlflow_server_that_is_down_costs_no_result(inside, tmp_path):
    arguments = ("run", "--methods", "pca", *TINY)
    environment = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "2"}
    done = inside(*arguments, "--mlflow-uri", "http://127.0.0.1:9", **environment)
    assert done.returncode == 1
    assert "results are safe" in " ".join(done.stdout.split())
    assert {result["status"] for result in results(tmp_path).values()} == {"ok"}
    assert inside(*arguments).returncode == 0
    assert len(runs(tmp_path)[1]) == len(results(tmp_path))


def test_doctor_and_data_list(cli):
    doctor = cli("doctor")
    assert doctor.returncode == 0
    assert "python -m bench data fetch kang" in doctor.stdout
    listed = cli("data", "list")
    assert listed.returncode == 0
    assert "embedded" in listed.stdout
