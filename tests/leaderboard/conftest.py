"""Tidy rows with a known answer."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

METRICS = {"skill": "higher", "error": "lower"}
BEST = {"skill": 1.0, "error": 0.0}
# The error of a label as a multiple of the baseline's, on every metric and unit.
RATIOS = {"floor": 4.0, "baseline": 1.0, "ceiling": 0.1, "vae": 0.5, "pca": 1.3, "trvae": 0.25}


def cell(method, unit, seed, values, **changes):
    """The rows of one cell: one per metric of ``values``."""
    shared = {
        "role": "reference" if method in ("floor", "baseline", "ceiling") else "method",
        "method": method,
        "config": json.dumps({"name": method}),
        "task": "reembedding/sim",
        "task_version": 1,
        "unit": unit,
        "draw": None,
        "seed": seed,
        "preset": "default",
        "primary": True,
        "two_sided": False,
        "one_fit": False,
        "status": "ok",
        "reason": "",
        "fit_seconds": 2.0,
        "evaluate_seconds": 0.5,
        "peak_memory_mb": 512.0,
        "started": "2026-01-01T00:00:00+00:00",
        "finished": "2026-01-01T00:00:10+00:00",
        "data_digest": "d1",
        "git_commit": "abc",
        "dirty": False,
        "replay": f"python -m bench run --methods {method}",
        "detail": "nearest_shift" if method == "baseline" else "",
    } | changes
    key = [shared[name] for name in ("method", "config", "task", "task_version", "preset", "data_digest")]
    job_id = "/".join(map(str, [*key, unit, seed]))
    return [
        shared | {"job_id": job_id, "metric": metric, "value": value, "better": METRICS[metric], "best": BEST[metric]}
        for metric, value in values.items()
    ]


def failed(method, unit, seed, status="failed", **changes):
    return cell(method, unit, seed, dict.fromkeys(METRICS, np.nan), status=status, **changes)


def skipped(method, reason, **changes):
    return failed(method, "*", 0, status="skipped", reason=reason, **changes)


def truth(method, n_units, noise=0.0, ratios=RATIOS):
    """Values (n_units, 2) of skill and error; the baseline's error differs between units and metrics."""
    baseline = np.array([0.3, 5.0]) * np.random.default_rng(100).uniform(0.5, 1.5, size=(n_units, 2))
    spread = noise * np.random.default_rng([*method.encode()]).normal(size=(n_units, 2))
    errors = baseline * ratios[method] * np.exp(spread)
    return np.stack([1 - errors[:, 0], errors[:, 1]], axis=1)


def rows(methods=("vae", "pca", "trvae"), n_units=9, n_seeds=3, noise=0.0, ratios=RATIOS, n_draws=0, **changes):
    """A whole task: the three references without noise, the methods with it, alike over seeds but for a percent.

    With ``n_draws`` the units are of draws, as many of each.
    """
    found = []
    for method in ("floor", "baseline", "ceiling", *methods):
        for u, values in enumerate(truth(method, n_units, noise if method in methods else 0.0, ratios=ratios)):
            draw = u % n_draws if n_draws else None
            name = f"unit{u:02d}" if draw is None else f"draw{draw}/unit{u:02d}"
            for seed in range(n_seeds):
                factor = np.exp(0.01 * (seed - (n_seeds - 1) / 2)) if method in methods else 1.0
                scores = {"skill": 1 - (1 - values[0]) * factor, "error": values[1] * factor}
                found += cell(method, name, seed, scores, draw=draw, **changes)
    return pd.DataFrame(found).astype({"draw": "Int64"})


def row_of(table, method):
    """The single row of a method."""
    (row,) = table.frame[table.frame["method"] == method].itertuples(index=False)
    return row


@pytest.fixture
def sim():
    return SimpleNamespace(rows=rows, cell=cell, failed=failed, skipped=skipped, truth=truth, row_of=row_of)
