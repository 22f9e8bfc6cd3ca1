"""All metrics of embedding and integration of one cell of the cross, on one core."""

import time

import numpy as np
import pytest

from metrics import METRICS, neighbours
from metrics.integration import integration
from metrics.neighbours import sharing

N_CELLS, N_LATENT, N_GENES = 10_000, 10, 50
LIMIT = 40.0


@pytest.fixture(scope="module")
def evaluation():
    """The arguments of all embedding metrics and of integration: six labels, three batches, a fifth held out."""
    rng = np.random.default_rng(0)
    labels = rng.choice(list("abcdef"), N_CELLS, p=[0.3, 0.25, 0.2, 0.1, 0.1, 0.05])
    batch = rng.integers(0, 3, N_CELLS)
    kinds = np.unique(labels, return_inverse=True)[1]
    z_in = 2.5 * rng.normal(size=(6, N_LATENT))[kinds] + 0.7 * rng.normal(size=(3, N_LATENT))[batch]
    z_in += rng.normal(size=z_in.shape)
    z = z_in + 0.3 * rng.normal(size=z_in.shape)
    x = (z_in @ rng.normal(size=(N_LATENT, N_GENES)) / 3 + rng.normal(size=(N_CELLS, N_GENES))).astype(np.float32)
    out, train = slice(0, N_CELLS // 5), slice(N_CELLS // 5, N_CELLS)
    of_embedding = {
        **dict.fromkeys(
            ("displacement", "displacement_two_seeds", "neighbour_agreement", "agreement_two_seeds"),
            (z_in[out], z[out], z_in[train], z[train]),
        ),
        "training_drift": (z_in[train], z[train]),
        "knn_recall": (x[out], x[train], z[out], z[train]),
        "label_transfer": (z[train], labels[train], z[out], labels[out]),
        **dict.fromkeys(("trustworthiness", "continuity", "distance_spearman"), (x, z)),
        **dict.fromkeys(("reconstruction_error", "training_reconstruction_error"), (x, x + 1)),
        "ood_distance": (x[out], x[train]),
    }
    return of_embedding, (z, batch, labels, x)


def test_all_metrics_of_a_cell(benchmark, evaluation, monkeypatch):
    searches, exact = [], neighbours._exact
    monkeypatch.setattr(neighbours, "_exact", lambda points, k: searches.append(points.shape) or exact(points, k))

    def evaluate():
        with sharing():
            of_embedding, of_integration = evaluation
            scores = {name: METRICS[name](*arguments) for name, arguments in of_embedding.items()}
            return scores | integration(*of_integration)

    started = time.process_time()
    scores = benchmark.pedantic(evaluate, rounds=1)
    # of the processor's time, so that what else runs on the machine does not count
    assert time.process_time() - started < LIMIT
    families = {"metrics.embedding", "metrics.integration"}
    every = {name for name in METRICS if METRICS[name].__module__ in families}
    assert set(scores) == every - {"kbet_per_label"}  # at the preset "paper" alone
    assert np.isfinite(list(scores.values())).all()
    # one in each space; held-out and training cells one after the other are the same cells, in the same order
    assert searches.count((N_CELLS, N_LATENT)) == 1
    assert searches.count((N_CELLS, N_GENES)) == 1
