"""How long jobs took on another machine, and how fast this one is beside it: an estimate for the first run.

``seconds.json`` has the mean seconds of a job by preset, task and method, of a run that is named there, and the seconds
of a :func:`yardstick` on its machine. ``python -m tests.benchmarks.seconds OUT`` makes it from a finished run.
"""

from __future__ import annotations

import json
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from bench.records import Job

FILE = Path(__file__).with_name("seconds.json")
#: Repeats of the yardstick, of which the fastest counts; together a fifth of a second.
REPEATS = 5


def known_seconds(job: Job) -> float | None:
    """Return the seconds that a job should take on this machine; None for a method or task that was not measured."""
    if job.own or (job.name and job.name != job.method):
        return None
    seconds = _table()["seconds"].get(job.preset, {}).get(job.task, {}).get(job.method)
    return None if seconds is None else seconds * _slowness()


def yardstick() -> float:
    """Return the seconds of a fixed piece of work: products of matrices as in a step, and small operations."""
    rng = np.random.default_rng(0)
    x, weights = rng.standard_normal((128, 500), np.float32), rng.standard_normal((500, 128), np.float32)
    times = []
    with threadpool_limits(1):  # as in a job
        for _ in range(REPEATS):
            clock = time.perf_counter()
            for _ in range(150):
                hidden = x @ weights
                for _ in range(150):
                    np.tanh(hidden[0])
            times.append(time.perf_counter() - clock)
    return min(times)


@cache
def _table() -> dict[str, Any]:
    return dict(json.loads(FILE.read_text()))


@cache
def _slowness() -> float:
    """Return how many times as long as there the yardstick takes here."""
    return yardstick() / float(_table()["yardstick"])
