import numpy as np
import pytest
import scib_metrics
from numpy.testing import assert_allclose
from scib_metrics.nearest_neighbors import NeighborsResults
from scipy.spatial.distance import cdist
from scipy.stats import ortho_group
from sklearn.metrics import silhouette_samples
from sklearn.neighbors import NearestNeighbors

from metrics import METRICS
from metrics.integration import (
    ari_leiden,
    bras,
    clisi,
    graph_connectivity,
    ilisi,
    isolated_labels,
    kbet_per_label,
    leiden_agreement,
    neighbours,
    nmi_leiden,
    pcr_comparison,
    silhouette_batch,
)

# One shape throughout: scib-metrics compiles for every new one.
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


@pytest.fixture
def exact_pynndescent(monkeypatch):
    """Neighbours by scikit-learn inside kBET: pynndescent takes half a minute to compile."""

    def exact(x, n_neighbors):
        distances, indices = NearestNeighbors(n_neighbors=n_neighbors).fit(x).kneighbors(x)
        return NeighborsResults(indices=indices, distances=distances)

    monkeypatch.setattr(scib_metrics.nearest_neighbors, "pynndescent", exact)


# neighbours


def test_neighbours_are_exact(mixed):
    graph = neighbours(mixed, 20)
    distances = cdist(mixed, mixed)
    assert_allclose(graph.distances, np.sort(distances, axis=1)[:, :20], atol=1e-6)
    assert np.array_equal(graph.indices, np.argsort(distances, axis=1)[:, :20])


def test_neighbours_have_the_cell_itself_first_and_clip_k(mixed, rng):
    doubled = np.repeat(mixed[:50], 2, axis=0)
    graph = neighbours(doubled, 500)
    assert graph.indices.shape == (100, 99)
    assert np.array_equal(graph.indices[:, 0], np.arange(100))
    assert not graph.distances[:, :2].any()
    assert all(len(set(row)) == 99 for row in graph.indices)
    assert np.array_equal(neighbours(mixed).indices, neighbours(mixed).indices)


def test_neighbours_of_a_constant_code_are_random():
    graph = neighbours(np.full((N, 2), 0.1), 30)
    assert np.array_equal(graph.indices[:, 0], np.arange(N))
    assert all(len(set(row)) == 30 for row in graph.indices)
    # Not the first cells, nor the same ones for every cell.
    assert np.bincount(graph.indices.ravel(), minlength=N).max() < 60


# agreement with scib-metrics and scikit-learn


def test_scores_agree_with_scib_metrics(batchy, mixed, exact_pynndescent):
    z = 0.8 * mixed + 0.2 * batchy
    order = np.argsort(cdist(z, z), axis=1)
    near = {
        k: NeighborsResults(indices=order[:, :k], distances=np.sort(cdist(z, z), axis=1)[:, :k]) for k in (90, 50, 15)
    }
    graph = neighbours(z)
    centred = z - z.mean(0)
    expected = {
        clisi(z, LABELS, graph): scib_metrics.clisi_knn(near[90], LABELS),
        ilisi(z, BATCH, graph): scib_metrics.ilisi_knn(near[90], BATCH),
        graph_connectivity(z, LABELS, graph): scib_metrics.graph_connectivity(near[15], LABELS),
        kbet_per_label(z, LABELS, BATCH, graph): scib_metrics.kbet_per_label(near[50], BATCH, LABELS),
        bras(z, LABELS, BATCH): scib_metrics.bras(z, LABELS, BATCH),
        silhouette_batch(z, LABELS, BATCH): scib_metrics.silhouette_batch(centred, LABELS, BATCH),
        isolated_labels(z, LABELS, BATCH): scib_metrics.isolated_labels(centred, LABELS, BATCH),
        pcr_comparison(batchy, z, BATCH): scib_metrics.pcr_comparison(batchy, z, BATCH, categorical=True),
    }
    leiden = scib_metrics.nmi_ari_cluster_labels_leiden(near[15], LABELS, seed=0)
    expected |= {ari_leiden(z, LABELS, graph): leiden["ari"], nmi_leiden(z, LABELS, graph): leiden["nmi"]}
    for got, wanted in expected.items():
        assert isinstance(got, float)
        assert_allclose(got, wanted, atol=1e-6)


def test_a_given_graph_changes_nothing(mixed):
    graph = neighbours(mixed)
    assert clisi(mixed, LABELS, graph) == clisi(mixed, LABELS)
    assert graph_connectivity(mixed, LABELS, graph) == graph_connectivity(mixed, LABELS)
    assert leiden_agreement(mixed, LABELS, graph) == leiden_agreement(mixed, LABELS)


def test_silhouette_agrees_with_scikit_learn(mixed):
    within = [
        np.mean(1 - np.abs(silhouette_samples(mixed[own], BATCH[own])))
        for own in (name == LABELS for name in np.unique(LABELS))
    ]
    assert_allclose(silhouette_batch(mixed, LABELS, BATCH), np.mean(within), atol=1e-5)
    every = silhouette_samples(mixed, LABELS)
    assert_allclose(isolated_labels(mixed, LABELS, BATCH), (every.mean() + 1) / 2, atol=1e-5)


def test_pcr_agrees_with_variances(mixed, batchy):
    """Weighted by variance, the components' R² add up to the share of the total that lies between batches."""

    def explained(z):
        between = sum(np.mean(own) * (z[own].mean(0) - z.mean(0)) ** 2 for own in (BATCH == 3, BATCH == 7))
        return between.sum() / z.var(axis=0).sum()

    half = (mixed + batchy) / 2
    assert_allclose(pcr_comparison(batchy, half, BATCH), 1 - explained(half) / explained(batchy), atol=1e-4)


# known answers


def test_mixed_batches_and_labels_apart_are_best(mixed, rng, exact_pynndescent):
    rotation = ortho_group.rvs(D, random_state=rng)
    for z in (mixed, -3 * mixed[:, ::-1], mixed @ rotation, np.hstack([mixed, mixed])):
        graph = neighbours(z)
        assert clisi(z, LABELS, graph) > 0.98
        assert leiden_agreement(z, LABELS, graph)["ari"] > 0.97
        assert leiden_agreement(z, LABELS, graph)["nmi"] > 0.95
        assert graph_connectivity(z, LABELS, graph) > 0.95
        assert ilisi(z, BATCH, graph) > 0.85
        assert kbet_per_label(z, LABELS, BATCH, graph) > 0.8
        assert bras(z, LABELS, BATCH) > 0.85
    assert isolated_labels(mixed, LABELS, BATCH) > 0.75
    assert silhouette_batch(mixed, LABELS, BATCH) > 0.9


def test_batches_apart_are_worst(batchy, exact_pynndescent):
    graph = neighbours(batchy)
    assert ilisi(batchy, BATCH, graph) < 0.1
    assert kbet_per_label(batchy, LABELS, BATCH, graph) < 0.05
    assert bras(batchy, LABELS, BATCH) < 0.5
    assert silhouette_batch(batchy, LABELS, BATCH) < 0.4
    assert graph_connectivity(batchy, LABELS, graph) < 0.75
    assert pcr_comparison(batchy, batchy, BATCH) == pytest.approx(0, abs=1e-4)
    assert clisi(batchy, LABELS, graph) > 0.95  # the labels are still apart


def test_pcr_comparison_known_answers(mixed, batchy):
    assert pcr_comparison(batchy, mixed, BATCH) > 0.97
    assert pcr_comparison(mixed, batchy, BATCH) == 0  # worse than before
    assert np.isnan(pcr_comparison(batchy, np.full((N, D), 0.1), BATCH))
    assert np.isnan(pcr_comparison(np.full((N, D), 0.1), mixed, BATCH))
    assert np.isnan(pcr_comparison(batchy, mixed, np.zeros(N)))


def test_permuted_samples_lose_the_labels(mixed, rng):
    z = rng.permutation(mixed)
    graph = neighbours(z)
    assert clisi(z, LABELS, graph) < 0.2
    assert ari_leiden(z, LABELS, graph) == pytest.approx(0, abs=0.05)
    assert nmi_leiden(z, LABELS, graph) < 0.15
    assert graph_connectivity(z, LABELS, graph) < 0.6
    assert isolated_labels(z, LABELS, BATCH) == pytest.approx(0.5, abs=0.05)


def test_collapse_mixes_batches_and_loses_labels(exact_pynndescent):
    """Why no score of batch removal is read alone."""
    flat = np.full((N, D), 0.1)
    graph = neighbours(flat)
    assert silhouette_batch(flat, LABELS, BATCH) == 1
    assert bras(flat, LABELS, BATCH) > 0.9
    assert ilisi(flat, BATCH, graph) > 0.9
    assert kbet_per_label(flat, LABELS, BATCH, graph) > 0.8
    assert graph_connectivity(flat, LABELS, graph) > 0.9
    assert clisi(flat, LABELS, graph) < 0.1
    assert ari_leiden(flat, LABELS, graph) == pytest.approx(0, abs=0.05)
    assert isolated_labels(flat, LABELS, BATCH) == 0.5


def test_silhouette_sees_the_nearest_batch_alone(rng):
    """Why it is legacy: two pairs of batches, mixed within and far apart between, look integrated."""
    batch = np.tile([0, 1, 2, 3], 60)
    z = rng.normal(size=(N, D)) + 20 * (batch > 1)[:, None]
    one = np.zeros(N)
    assert silhouette_batch(z, one, batch) > 0.85
    assert bras(z - z.mean(0), one, batch) < 0.6
    assert ilisi(z, batch) < 0.4


def test_what_cannot_be_asked_is_no_number(mixed, exact_pynndescent):
    one, own = np.zeros(N), (LABELS == "t").astype(int)
    assert np.isnan(ilisi(mixed, one))
    assert np.isnan(clisi(mixed, one))
    assert np.isnan(ari_leiden(mixed, one))
    assert np.isnan(isolated_labels(mixed, one, BATCH))
    for score in (bras, silhouette_batch, kbet_per_label):
        assert np.isnan(score(mixed, own, own))


def test_few_cells(mixed):
    """k is clipped, not an error."""
    some = np.arange(0, N, 20)
    z, labels, batch = mixed[some], LABELS[some], BATCH[some + some // 20 % 2]
    assert 0 <= ilisi(z, batch) <= 1
    assert 0 <= clisi(z, labels) <= 1
    assert -0.5 <= ari_leiden(z, labels) <= 1
    assert 0 <= graph_connectivity(z, labels) <= 1


def test_errors_quote_what_was_got(mixed):
    with pytest.raises(ValueError, match=r"batch has shape \(3,\) for 240 samples"):
        bras(mixed, LABELS, BATCH[:3])
    with pytest.raises(ValueError, match="graph has 100 cells and codes 240"):
        clisi(mixed, LABELS, neighbours(mixed[:100]))
    with pytest.raises(ValueError, match=r"k is 1 for 240 cell\(s\)"):
        neighbours(mixed, 1)
    with pytest.raises(ValueError, match="before has 10 cells and after 240"):
        pcr_comparison(mixed[:10], mixed, BATCH)


def test_registered():
    for score in (
        *(clisi, ari_leiden, nmi_leiden, isolated_labels, ilisi, bras),
        *(silhouette_batch, graph_connectivity, kbet_per_label, pcr_comparison),
    ):
        assert METRICS[score.__name__] is score
