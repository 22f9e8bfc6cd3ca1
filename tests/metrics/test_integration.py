import numpy as np
import pytest
import scib_metrics
from numpy.testing import assert_allclose
from scib_metrics.nearest_neighbors import NeighborsResults
from scipy.spatial.distance import cdist
from scipy.stats import ortho_group
from sklearn.metrics import silhouette_samples
from sklearn.neighbors import NearestNeighbors

from metrics import METRICS, integration
from metrics.integration import (
    ari_leiden,
    bras,
    clisi,
    graph_connectivity,
    ilisi,
    isolated_labels,
    kbet_per_label,
    leiden_agreement,
    nmi_leiden,
    pcr_comparison,
    silhouette_batch,
    umap_graph,
)
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


def scib_graph(z, k):
    graph = neighbours(z, k)
    return NeighborsResults(indices=np.array(graph.indices), distances=np.array(graph.distances))


# agreement with scib-metrics and scikit-learn


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
        z[::6] = z[0]  # more than LISI has neighbours: all of those of some cells are as far
    elif request.param == "batches apart":
        z[:, 0] += 30 * batch
    elif request.param == "one batch a label":
        batch[labels > 1] = labels[labels > 1] - 2
    elif request.param == "constant columns":
        z[:, 3:] = 0.1
    return z, labels, batch


def test_scores_agree_with_scib_metrics(some_codes):
    z, labels, batch = some_codes
    centred, before = z - z.mean(0), z + 5 * np.eye(6)[batch]
    varies = z.std(0) > 1e-9  # scib-metrics has no number where a component has no variance
    leiden = scib_metrics.nmi_ari_cluster_labels_leiden(scib_graph(z, 15), labels, seed=0)
    expected = {
        clisi: (clisi(z, labels), scib_metrics.clisi_knn(scib_graph(z, 90), labels)),
        ilisi: (ilisi(z, batch), scib_metrics.ilisi_knn(scib_graph(z, 90), batch)),
        graph_connectivity: (
            graph_connectivity(z, labels),
            scib_metrics.graph_connectivity(scib_graph(z, 15), labels),
        ),
        bras: (bras(z, labels, batch), scib_metrics.bras(z, labels, batch)),
        silhouette_batch: (silhouette_batch(z, labels, batch), scib_metrics.silhouette_batch(centred, labels, batch)),
        isolated_labels: (isolated_labels(z, labels, batch), scib_metrics.isolated_labels(centred, labels, batch)),
        pcr_comparison: (
            pcr_comparison(before, z, batch),
            scib_metrics.pcr_comparison(
                (before - before.mean(0))[:, varies], centred[:, varies], batch, categorical=True
            ),
        ),
        ari_leiden: (ari_leiden(z, labels), leiden["ari"]),
        nmi_leiden: (nmi_leiden(z, labels), leiden["nmi"]),
    }
    for score, (got, wanted) in expected.items():
        assert isinstance(got, float)
        # they compute in single precision, LISI to an entropy of 1e-5
        assert_allclose(got, wanted, atol=5e-6, err_msg=score.__name__)


def test_kbet_agrees_with_scib_metrics(some_codes, monkeypatch):
    """It searches with pynndescent, which takes half a minute to compile; here the search is exact for both."""

    def exact(x, n_neighbors):
        distances, indices = NearestNeighbors(n_neighbors=n_neighbors).fit(x).kneighbors(x)
        return NeighborsResults(indices=indices, distances=distances)

    monkeypatch.setattr(scib_metrics.nearest_neighbors, "pynndescent", exact)
    z, labels, batch = some_codes
    # cells that coincide tie, and ties are broken otherwise
    tolerance = 2e-3 if len(np.unique(z, axis=0)) < len(z) else 1e-6
    wanted = scib_metrics.kbet_per_label(scib_graph(z, 50), batch, labels)
    assert_allclose(kbet_per_label(z, labels, batch), wanted, atol=tolerance)


def test_umap_weights_agree_with_umap_learn(some_codes):
    z = some_codes[0]
    for k in (15, 50):
        wanted = scib_graph(z, k).knn_graph_connectivities
        assert abs(umap_graph(z, k) - wanted).max() < 1e-5


def test_lisi_of_far_codes_that_underflow(rng):
    """exp(-distance) is 0 for all neighbours before the search for the perplexity has begun."""
    z = 1e4 * rng.normal(size=(N, D))
    assert_allclose(ilisi(z, BATCH), scib_metrics.ilisi_knn(scib_graph(z, 90), BATCH), atol=5e-6)


def test_chunks_do_not_change_the_result(mixed, monkeypatch):
    scores = [f(mixed, LABELS, BATCH) for f in (silhouette_batch, isolated_labels)] + [ilisi(mixed, BATCH)]
    monkeypatch.setattr(integration, "CHUNK_ENTRIES", 1000)
    again = [f(mixed, LABELS, BATCH) for f in (silhouette_batch, isolated_labels)] + [ilisi(mixed, BATCH)]
    assert_allclose(again, scores, atol=1e-12)


def test_silhouettes_of_pairs_agree_with_their_sums(rng):
    """The sums of cosine distances that stand for all pairs of ``bras``."""
    batch = rng.integers(0, 3, N)
    z = rng.normal(size=(N, D)) + batch[:, None]
    pairs = cdist(z, z, "cosine")
    own = batch[:, None] == batch
    within = (pairs * own).sum(1) / (own.sum(1) - 1)
    between = (pairs * ~own).sum(1) / (~own).sum(1)
    expected = np.mean(1 - np.abs((between - within) / np.maximum(within, between)))
    assert_allclose(bras(z, np.zeros(N), batch), expected, atol=1e-12)


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


def test_mixed_batches_and_labels_apart_are_best(mixed, rng):
    rotation = ortho_group.rvs(D, random_state=rng)
    for z in (mixed, -3 * mixed[:, ::-1], mixed @ rotation, np.hstack([mixed, mixed])):
        assert clisi(z, LABELS) > 0.98
        assert leiden_agreement(z, LABELS)["ari"] > 0.97
        assert leiden_agreement(z, LABELS)["nmi"] > 0.95
        assert graph_connectivity(z, LABELS) > 0.95
        assert ilisi(z, BATCH) > 0.85
        assert kbet_per_label(z, LABELS, BATCH) > 0.8
        assert bras(z, LABELS, BATCH) > 0.85
    assert isolated_labels(mixed, LABELS, BATCH) > 0.75
    assert silhouette_batch(mixed, LABELS, BATCH) > 0.9


def test_batches_apart_are_worst(batchy):
    assert ilisi(batchy, BATCH) < 0.1
    assert kbet_per_label(batchy, LABELS, BATCH) < 0.05
    assert bras(batchy, LABELS, BATCH) < 0.5
    assert silhouette_batch(batchy, LABELS, BATCH) < 0.4
    assert graph_connectivity(batchy, LABELS) < 0.75
    assert pcr_comparison(batchy, batchy, BATCH) == pytest.approx(0, abs=1e-4)
    assert clisi(batchy, LABELS) > 0.95  # the labels are still apart


def test_pcr_comparison_known_answers(mixed, batchy):
    assert pcr_comparison(batchy, mixed, BATCH) > 0.97
    assert pcr_comparison(mixed, batchy, BATCH) == 0  # worse than before
    assert np.isnan(pcr_comparison(batchy, np.full((N, D), 0.1), BATCH))
    assert np.isnan(pcr_comparison(np.full((N, D), 0.1), mixed, BATCH))
    assert np.isnan(pcr_comparison(batchy, mixed, np.zeros(N)))


def test_permuted_samples_lose_the_labels(mixed, rng):
    z = rng.permutation(mixed)
    assert clisi(z, LABELS) < 0.2
    assert ari_leiden(z, LABELS) == pytest.approx(0, abs=0.05)
    assert nmi_leiden(z, LABELS) < 0.15
    assert graph_connectivity(z, LABELS) < 0.6
    assert isolated_labels(z, LABELS, BATCH) == pytest.approx(0.5, abs=0.05)


def test_collapse_mixes_batches_and_loses_labels():
    """Why no score of batch removal is read alone."""
    flat = np.full((N, D), 0.1)
    assert silhouette_batch(flat, LABELS, BATCH) == 1
    assert bras(flat, LABELS, BATCH) > 0.9
    assert ilisi(flat, BATCH) > 0.9
    assert kbet_per_label(flat, LABELS, BATCH) > 0.8
    assert graph_connectivity(flat, LABELS) > 0.9
    assert clisi(flat, LABELS) < 0.1
    assert ari_leiden(flat, LABELS) == pytest.approx(0, abs=0.05)
    assert isolated_labels(flat, LABELS, BATCH) == 0.5


def test_silhouette_sees_the_nearest_batch_alone(rng):
    """Why it is legacy: two pairs of batches, mixed within and far apart between, look integrated."""
    batch = np.tile([0, 1, 2, 3], 60)
    z = rng.normal(size=(N, D)) + 20 * (batch > 1)[:, None]
    one = np.zeros(N)
    assert silhouette_batch(z, one, batch) > 0.85
    assert bras(z - z.mean(0), one, batch) < 0.6
    assert ilisi(z, batch) < 0.4


def test_what_cannot_be_asked_is_no_number(mixed):
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
    with pytest.raises(ValueError, match="before has 10 cells and after 240"):
        pcr_comparison(mixed[:10], mixed, BATCH)


def test_registered():
    for score in (
        *(clisi, ari_leiden, nmi_leiden, isolated_labels, ilisi, bras),
        *(silhouette_batch, graph_connectivity, kbet_per_label, pcr_comparison),
    ):
        assert METRICS[score.__name__] is score
