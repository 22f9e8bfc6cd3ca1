"""Tidy rows with a known answer."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

METRICS = {"skill": "higher", "error": "lower"}
# Where a label stands between floor (0) and ceiling (1), on every metric and unit.
LEVELS = {"floor": 0.0, "baseline": 0.4, "ceiling": 1.0, "vae": 0.6, "pca": 0.3, "trvae": 1.2}


def cell(method, unit, seed, values, **changes):
    """The rows of one cell: one per metric of ``values``."""
    shared = {
        "role": "reference" if method in ("floor", "baseline", "ceiling") else "method",
        "method": method,
        "config": json.dumps({"name": method}),
        "task": "reembedding/sim",
        "task_version": 1,
        "unit": unit,
        "seed": seed,
        "preset": "default",
        "primary": True,
        "two_sided": False,
        "status": "ok",
        "reason": "",
        "fit_seconds": 2.0,
        "evaluate_seconds": 0.5,
        "peak_memory_mb": 512.0,
        "data_digest": "d1",
        "git_commit": "abc",
        "dirty": False,
        "replay": f"python -m bench run --methods {method}",
        "detail": "nearest_shift" if method == "baseline" else "",
    } | changes
    key = [shared[name] for name in ("method", "config", "task", "task_version", "preset", "data_digest")]
    job_id = "/".join(map(str, [*key, unit, seed]))
    return [
        shared | {"job_id": job_id, "metric": metric, "value": value, "better": METRICS[metric]}
        for metric, value in values.items()
    ]


def failed(method, unit, seed, status="failed", **changes):
    return cell(method, unit, seed, dict.fromkeys(METRICS, np.nan), status=status, **changes)


def skipped(method, reason, **changes):
    return failed(method, "*", 0, status="skipped", reason=reason, **changes)


def truth(method, n_units, noise=0.0, seed=0, levels=LEVELS):
    """Values (n_units, 2) of skill and error; units differ in floor and in range."""
    units = np.random.default_rng(100).uniform(0.5, 1.5, size=(n_units, 2))
    floor, span = np.array([0.1, 3.0]) * units, np.array([0.7, -2.0]) * units
    level = levels[method] + noise * np.random.default_rng([seed, *method.encode()]).normal(size=(n_units, 2))
    return floor + span * level


def rows(methods=("vae", "pca", "trvae"), n_units=9, n_seeds=3, noise=0.0, levels=LEVELS, **changes):
    """A whole task: the three references without noise, the methods with it."""
    found = []
    for method in ("floor", "baseline", "ceiling", *methods):
        for u, values in enumerate(truth(method, n_units, noise if method in methods else 0.0, levels=levels)):
            for seed in range(n_seeds):
                shift = (seed - (n_seeds - 1) / 2) * 0.01 if method in methods else 0.0
                scores = dict(zip(METRICS, values + shift, strict=True))
                found += cell(method, f"unit{u:02d}", seed, scores, **changes)
    return pd.DataFrame(found)


def row_of(table, method):
    """The single row of a method."""
    (row,) = table.frame[table.frame["method"] == method].itertuples(index=False)
    return row


@pytest.fixture
def sim():
    return SimpleNamespace(rows=rows, cell=cell, failed=failed, skipped=skipped, truth=truth, row_of=row_of)
