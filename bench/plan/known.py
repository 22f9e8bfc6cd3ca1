"""How long jobs took on another machine, and how fast this one is beside it: an estimate for the first run.

``seconds.json`` has the mean seconds of a job by preset, task and method, of a run that is named there, and the seconds
of a :func:`yardstick` on its machine. ``python -m tests.benchmarks.seconds OUT`` makes it from a finished run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from bench.environment import ROOT, THREADS
from bench.plan.cost import length
from bench.records import Job
from methods import METHODS

FILE = Path(__file__).with_name("seconds.json")
#: Seconds for which the yardstick's work is repeated.
SECONDS = 1.0


def known_seconds(n_workers: int) -> Callable[[Job], float | None]:
    """Return what tells the seconds that a job should take here beside ``n_workers`` - 1 others.

    It answers None for a method or task that was not measured. Of a method with other settings it says what the method
    itself takes, in proportion to the steps.
    """

    def seconds(job: Job) -> float | None:
        if job.own:
            return None
        measured = _table()["seconds"].get(job.preset, {}).get(job.task, {})
        if job.method in measured:
            return measured[job.method] * _slowness(n_workers)
        if job.name in measured:
            longer = length(job.config) / length(vars(METHODS[job.name].configure(job.preset)))
            return measured[job.name] * longer * _slowness(n_workers)
        return None

    return seconds


def yardstick(n_workers: int) -> float:
    """Return the mean seconds of a fixed piece of work, done by as many processes at once as jobs will run.

    It is the mean, not the fastest: jobs meet whatever else the machine does, and each other, too.
    """
    command = [sys.executable, "-m", "bench.plan.known"]
    environment = {**os.environ, **THREADS, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
    n_workers = min(n_workers, len(os.sched_getaffinity(0)))  # those of a cluster run elsewhere
    processes = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(n_workers)
    ]
    return fmean(float(process.communicate()[0]) for process in processes)


def _work() -> float:
    """Return the mean seconds of a round of work: products of matrices as in a step, and small operations."""
    rng = np.random.default_rng(0)
    x, weights = rng.standard_normal((128, 500), np.float32), rng.standard_normal((500, 128), np.float32)
    clock, rounds = time.perf_counter(), 0
    while time.perf_counter() - clock < SECONDS:
        hidden = x @ weights
        for _ in range(150):
            np.tanh(hidden[0])
        rounds += 1
    return (time.perf_counter() - clock) / rounds


@cache
def _table() -> dict[str, Any]:
    return dict(json.loads(FILE.read_text()))


@cache
def _slowness(n_workers: int) -> float:
    """Return how many times as long as there the yardstick takes here."""
    return yardstick(n_workers) / float(_table()["yardstick"])


if __name__ == "__main__":
    print(_work())
