"""What a run costs besides fitting and evaluating, on a fifth of the default run: three minutes by one worker."""

import os
import subprocess
import sys
import time
from collections import namedtuple

import pandas as pd
import psutil
import pytest

from bench.keep.store import Store
from tests.bench.conftest import ROOT
from tests.benchmarks.conftest import in_seconds

#: Of the default main job.
METHODS = next(
    text.partition("?=")[2].strip()
    for text in (ROOT / "Makefile").read_text().splitlines()
    if text.startswith("METHODS ?=")
)
PART = ("--methods", METHODS, "--tasks", "unseen-perturbation/doubles-sim")
LABEL = "default methods on one task"
#: Per cent of the cores that other programs may have while two workers are timed.
IDLE = 10.0

Run = namedtuple("Run", "arguments out seconds")


def run(out, data, *arguments):
    """Run ``bench run`` with its data in ``data``, results in ``out``."""
    command = [sys.executable, "-m", "bench", "run", *arguments, "--out", str(out)]
    environment = {**os.environ, "BENCH_DATA_DIR": str(data), "BENCH_CACHE_DIR": str(data)}
    start = time.perf_counter()
    subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, check=True)
    return Run(arguments, out, time.perf_counter() - start)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A directory in which the embedded data are built."""
    directory = tmp_path_factory.mktemp("data")
    run(tmp_path_factory.mktemp("dry"), directory, *PART, "--dry-run")
    return directory


@pytest.fixture(scope="module")
def by_one_worker(data, tmp_path_factory):
    """That part of the default run, by one worker."""
    return run(tmp_path_factory.mktemp("one"), data, *PART, "--jobs", "1")


def seconds_of(values):
    return in_seconds(values, "run")


def test_time_outside_fit_and_evaluate(line, by_one_worker):
    line.describe(f"time outside fit and evaluate, {LABEL}, one worker, against its wall time", at_most=0.03)
    cells = Store(by_one_worker.out).gather().rows.drop_duplicates("job_id")
    inside = (pd.to_datetime(cells["finished"]) - pd.to_datetime(cells["started"])).dt.total_seconds().sum()
    line.compare(by_one_worker.seconds - inside, by_one_worker.seconds, spell=seconds_of)
    line.judge()


def test_finished_run_again(line, data, by_one_worker):
    line.describe(f"{LABEL} again, finished, against 5 s", at_most=1)
    again = line.once(lambda: run(by_one_worker.out, data, *by_one_worker.arguments))
    line.compare(again.seconds, 5.0, spell=seconds_of)
    line.judge()


def test_two_workers(line, data, by_one_worker, tmp_path):
    line.describe(f"{LABEL}, two workers against one", faster=1.8)
    busy = psutil.cpu_percent(interval=2.0)
    if busy > IDLE or psutil.cpu_count() < 2:
        line.skip(f"needs two idle cores; there are {psutil.cpu_count()}, of which {busy:.0f} % are at work")
    by_two = line.once(lambda: run(tmp_path, data, *PART, "--jobs", "2"))
    line.compare(by_two.seconds, by_one_worker.seconds, spell=seconds_of)
    line.judge()


def test_main_job(line, request, tmp_path):
    line.describe("the default main job from nothing, two workers, against 8 minutes", at_most=1)
    if not request.config.getoption("--main-job"):
        line.skip("takes minutes, asked for by --main-job")
    job = line.once(
        lambda: run(tmp_path / "out", tmp_path / "data", "--methods", METHODS, "--tasks", "ood", "--jobs", "2")
    )
    line.compare(job.seconds, 480.0, spell=seconds_of)
    line.judge()
