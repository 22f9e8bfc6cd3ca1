import os
import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import ortho_group
from sklearn.metrics import silhouette_samples
from sklearn.neighbors import NearestNeighbors

from metrics.integration import integration
from metrics.neighbours import neighbours

N, D = 240, 4
LABELS = np.repeat(["t", "b", "nk"], 80)
BATCH = np.tile([3, 7], 120)


@pytest.fixture
def rng():
    return np.random.default_rng(19)


@pytest.fixture
def mixed(rng):
    """Three labels apart, the batches mixed within each."""
    return 7 * np.eye(D)[np.repeat([0, 1, 2], 80)] + rng.normal(size=(N, D))


@pytest.fixture
def batchy(mixed):
    """The same, and the two batches apart."""
    return mixed + 9 * np.eye(D)[3] * (BATCH == 7)[:, None]


@pytest.fixture(scope="module")
def scib_metrics():
    """Imported when a test needs it, not by every worker that only lists the tests: it takes seconds."""
    import scib_metrics

    return scib_metrics


@pytest.fixture
def exact_kbet(monkeypatch, scib_metrics):
    """kBET searches with pynndescent, which takes half a minute to compile; here its search is exact."""

    def exact(x, n_neighbors):
        distances, indices = NearestNeighbors(n_neighbors=n_neighbors).fit(x).kneighbors(x)
        return scib_metrics.nearest_neighbors.NeighborsResults(indices=indices, distances=distances)

    monkeypatch.setattr(scib_metrics.nearest_neighbors, "pynndescent", exact)


# agreement with plain calls of scib-metrics, and with scikit-learn


@pytest.fixture(params=["clusters", "large", "duplicates", "batches apart", "one batch a label", "constant columns"])
def some_codes(request, rng):
    """Codes, labels and batches, unequal in size."""
    n = 700
    labels, batch = rng.choice(5, n, p=[0.4, 0.3, 0.15, 0.1, 0.05]), rng.integers(0, 3, n)
    batch[labels == 4] = 0
    z = 2 * rng.normal(size=(5, 6))[labels] + 0.5 * rng.normal(size=(3, 6))[batch] + rng.normal(size=(n, 6))
    if request.param == "large":
        z = 300 * z
    elif request.param == "duplicates":
        z[::6] = z[0]  # more than LISI has neighbours: all neighbours of some cells are equally far
    elif request.param == "batches apart":
        z[:, 0] += 30 * batch
    elif request.param == "one batch a label":
        batch[labels > 1] = labels[labels > 1] - 2
    elif request.param == "constant columns":
        z[:, 3:] = 0.1
    return z, labels, batch


def test_scores_are_those_of_plain_calls(some_codes, exact_kbet, scib_metrics):
    def graph(z, k):
        found = neighbours(z, k)
        return scib_metrics.nearest_neighbors.NeighborsResults(found.indices.copy(), found.distances.copy())

    z, labels, batch = some_codes
    centred, before = z - z.mean(0), z + 5 * np.eye(6)[batch]
    varies = z.std(0) > 1e-9  # scib-metrics has no number where a component has no variance
    leiden = scib_metrics.nmi_ari_cluster_labels_leiden(graph(z, 15), labels, seed=0)
    plain = {
        "clisi": scib_metrics.clisi_knn(graph(z, 90), labels),
        "ilisi": scib_metrics.ilisi_knn(graph(z, 90), batch),
        "graph_connectivity": scib_metrics.graph_connectivity(graph(z, 15), labels),
        "bras": scib_metrics.bras(z, labels, batch),
        "isolated_labels": scib_metrics.isolated_labels(centred, labels, batch),
        "silhouette_label": scib_metrics.silhouette_label(centred, labels),
        "pcr_comparison": scib_metrics.pcr_comparison(
            (before - before.mean(0))[:, varies], centred[:, varies], batch, categorical=True
        ),
        "ari_leiden": leiden["ari"],
        "nmi_leiden": leiden["nmi"],
        "kbet_per_label": scib_metrics.kbet_per_label(graph(z, 50), batch, labels),
    }
    scores = integration(z, batch, labels, before, kbet=True)
    assert scores.keys() == plain.keys()
    for name, value in plain.items():
        assert_allclose(scores[name], value, atol=2e-6, err_msg=name)


def test_silhouettes_agree_with_scikit_learn(mixed):
    scores = integration(mixed, BATCH, LABELS)
    every = silhouette_samples(mixed, LABELS)
    assert_allclose(scores["silhouette_label"], (every.mean() + 1) / 2, atol=1e-5)
    assert_allclose(scores["isolated_labels"], (every.mean() + 1) / 2, atol=1e-5)


def test_pcr_agrees_with_variances(mixed, batchy):
    """Weighted by variance, the components' R² add up to the share of the total that lies between batches."""

    def explained(z):
        between = sum(np.mean(cells) * (z[cells].mean(0) - z.mean(0)) ** 2 for cells in (BATCH == 3, BATCH == 7))
        return between.sum() / z.var(axis=0).sum()

    half = (mixed + batchy) / 2
    score = integration(half, BATCH, before=batchy)["pcr_comparison"]
    assert_allclose(score, 1 - explained(half) / explained(batchy), atol=1e-4)


# known answers


def test_mixed_batches_and_labels_apart_are_best(mixed, rng, exact_kbet):
    rotation = ortho_group.rvs(D, random_state=rng)
    for z in (mixed, -3 * mixed[:, ::-1], mixed @ rotation, np.hstack([mixed, mixed])):
        scores = integration(z, BATCH, LABELS, kbet=True)
        assert scores["clisi"] > 0.98
        assert scores["ari_leiden"] > 0.97
        assert scores["nmi_leiden"] > 0.95
        assert scores["graph_connectivity"] > 0.95
        assert scores["ilisi"] > 0.85
        assert scores["kbet_per_label"] > 0.8
        assert scores["bras"] > 0.85
        assert scores["isolated_labels"] > 0.75


def test_batches_apart_are_worst(batchy, exact_kbet):
    scores = integration(batchy, BATCH, LABELS, batchy, kbet=True)
    assert scores["ilisi"] < 0.1
    assert scores["kbet_per_label"] < 0.05
    assert scores["bras"] < 0.5
    assert scores["graph_connectivity"] < 0.75
    assert scores["pcr_comparison"] == pytest.approx(0, abs=1e-4)
    assert scores["clisi"] > 0.95  # the labels are still apart


def test_pcr_comparison_known_answers(mixed, batchy):
    def pcr(before, after, batch=BATCH):
        return integration(after, batch, before=before)["pcr_comparison"]

    assert pcr(batchy, mixed) > 0.97
    assert pcr(mixed, batchy) == 0  # worse than before
    assert np.isnan(pcr(batchy, np.full((N, D), 0.1)))
    assert np.isnan(pcr(np.full((N, D), 0.1), mixed))
    assert np.isnan(pcr(batchy, mixed, np.zeros(N)))


def test_permuted_samples_lose_the_labels(mixed, rng):
    scores = integration(rng.permutation(mixed), BATCH, LABELS)
    assert scores["clisi"] < 0.2
    assert scores["ari_leiden"] == pytest.approx(0, abs=0.05)
    assert scores["nmi_leiden"] < 0.15
    assert scores["graph_connectivity"] < 0.6
    assert scores["silhouette_label"] == pytest.approx(0.5, abs=0.05)
    assert scores["isolated_labels"] == pytest.approx(0.5, abs=0.05)


def test_collapse_mixes_batches_and_loses_labels(exact_kbet):
    """Why no score of batch removal is read alone."""
    scores = integration(np.full((N, D), 0.1), BATCH, LABELS, kbet=True)
    assert scores["bras"] > 0.9
    assert scores["ilisi"] > 0.9
    assert scores["kbet_per_label"] > 0.8
    assert scores["graph_connectivity"] > 0.9
    assert scores["clisi"] < 0.1
    assert scores["ari_leiden"] == pytest.approx(0, abs=0.05)
    assert scores["silhouette_label"] == scores["isolated_labels"] == 0.5


def test_batches_that_mix_in_pairs_are_not_mixed(rng):
    """Why the batch silhouette is BRAS: the silhouette of the nearest batch calls two pairs far apart integrated."""
    batch = np.tile([0, 1, 2, 3], 60)
    z = rng.normal(size=(N, D)) + 20 * (batch > 1)[:, None]
    scores = integration(z - z.mean(0), batch, np.zeros(N))
    assert scores["bras"] < 0.6
    assert scores["ilisi"] < 0.4


# edges


def test_what_cannot_be_asked_is_left_out_or_no_number(mixed):
    one, same = np.zeros(N), (LABELS == "t").astype(int)
    assert integration(mixed, BATCH).keys() == {"ilisi"}
    assert np.isnan(integration(mixed, one)["ilisi"])
    assert integration(mixed, BATCH, one).keys() == {"ilisi", "graph_connectivity", "bras"}
    scores = integration(mixed, same, same, kbet=True)
    assert np.isnan(scores["bras"])
    assert "kbet_per_label" not in scores


def test_few_cells(mixed):
    """k is clipped, not an error."""
    some = np.arange(0, N, 20)
    scores = integration(mixed[some], BATCH[some + some // 20 % 2], LABELS[some])
    assert len(scores) == 8
    assert all(-0.5 <= value <= 1 for value in scores.values())


def test_errors_quote_what_was_got(mixed):
    with pytest.raises(ValueError, match=r"batches has shape \(3,\); n_cells is 3, but 240 in codes"):
        integration(mixed, BATCH[:3])
    with pytest.raises(ValueError, match="before has shape"):
        integration(mixed, BATCH, before=mixed[:10])


@pytest.mark.slow
def test_compiled_code_is_kept_and_one_thread_is_used(tmp_path):
    """A second process finds what the first has compiled; neither starts threads that compute."""
    code = """
import numpy as np, time
from metrics.integration import integration
wall, cpu = time.perf_counter(), time.process_time()
rng = np.random.default_rng(0)
integration(rng.normal(size=(300, 5)), rng.integers(0, 2, 300), rng.integers(0, 3, 300))
assert time.process_time() - cpu < 1.2 * (time.perf_counter() - wall) + 0.5
"""
    environment = os.environ | {"BENCH_CACHE_DIR": str(tmp_path), "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    kept = []
    for _ in range(2):
        subprocess.run([sys.executable, "-c", code], env=environment, check=True)
        kept.append({file.name for file in (tmp_path / "compiled").rglob("*-cache")})
    assert kept[0]
    assert kept[1] == kept[0]
    assert any(file.suffix == ".nbc" for file in (tmp_path / "compiled").rglob("*"))
