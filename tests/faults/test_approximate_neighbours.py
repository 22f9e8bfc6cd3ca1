"""Neighbours of more cells than are searched exactly: the search and the scores that rest on it come near."""

import numpy as np
from numpy.testing import assert_allclose

from metrics import METRICS
from metrics import neighbours as module
from metrics.integration import integration
from metrics.neighbours import neighbours, sharing


def test_the_approximate_search_finds_nearly_all(monkeypatch):
    rng = np.random.default_rng(23)
    n = 4_000
    labels, batch = rng.integers(0, 6, n), rng.integers(0, 3, n)
    codes = 3 * rng.normal(size=(6, 10))[labels] + 0.3 * rng.normal(size=(3, 10))[batch] + rng.normal(size=(n, 10))
    x = codes @ rng.normal(size=(10, 30)) + rng.normal(size=(n, 30))
    codes[:200] = codes[200:400]

    def scores():
        integrated = integration(codes, batch, labels)
        return [
            *(integrated[name] for name in ("clisi", "ilisi", "graph_connectivity", "ari_leiden")),
            METRICS["knn_recall"](x[:500], x[500:], codes[:500], codes[500:]),
            METRICS["trustworthiness"](x, codes),
        ]

    with sharing():
        exact, exact_scores = neighbours(codes), scores()
    monkeypatch.setattr(module, "EXACT", n - 1)
    with sharing():
        near, near_scores = neighbours(codes), scores()
    assert np.array_equal(near.indices[:, 0], np.arange(n))
    assert (np.diff(near.distances, axis=1) >= 0).all()
    rows = np.arange(n)[:, None]
    assert_allclose(near.distances, np.linalg.norm(codes[rows] - codes[near.indices], axis=2), atol=1e-6)
    for k in (15, 30, 50, 90):
        recall = np.mean([len(set(a[:k]) & set(b[:k])) / k for a, b in zip(exact.indices, near.indices, strict=True)])
        assert recall > 0.95
    assert all(len(set(row)) == 90 for row in near.indices)
    assert_allclose(near_scores, exact_scores, atol=5e-3)
    assert np.array_equal(neighbours(codes).indices, near.indices)
