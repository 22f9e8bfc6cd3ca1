import threading

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.spatial.distance import cdist

from metrics import METRICS
from metrics import neighbours as module
from metrics.integration import integration
from metrics.neighbours import neighbours, sharing

N = 240


@pytest.fixture
def rng():
    return np.random.default_rng(23)


@pytest.fixture
def codes(rng):
    return 3 * np.eye(4)[rng.integers(0, 4, N)] + rng.normal(size=(N, 4))


@pytest.fixture
def searches(monkeypatch):
    """The searches that are made, as the shapes of what is searched."""
    made = []
    exact = module._exact

    def counted(points, k):
        made.append((*points.shape, k))
        return exact(points, k)

    monkeypatch.setattr(module, "_exact", counted)
    return made


# the graph


@pytest.mark.parametrize("shift", [0, 1e6])
def test_neighbours_are_exact(codes, shift):
    graph = neighbours(codes + shift, 20)
    distances = cdist(codes, codes)
    assert_allclose(graph.distances, np.sort(distances, axis=1)[:, :20], atol=1e-6)
    assert np.array_equal(graph.indices, np.argsort(distances, axis=1)[:, :20])


def test_in_many_dimensions_too(rng):
    codes = rng.normal(size=(N, 60)) + 1e4
    assert np.array_equal(neighbours(codes, 20).indices, np.argsort(cdist(codes, codes), axis=1)[:, :20])


def test_fewer_neighbours_are_the_first_of_more(codes):
    graph = neighbours(codes, 120)
    for k in (2, 15, 50, 90):
        assert np.array_equal(neighbours(codes, k).indices, graph.indices[:, :k])
        assert_allclose(neighbours(codes, k).distances, graph.distances[:, :k])


def test_the_cell_itself_comes_first_and_k_is_clipped(codes):
    doubled = np.repeat(codes[:50], 2, axis=0)
    graph = neighbours(doubled, 500)
    assert graph.indices.shape == (100, 99)
    assert np.array_equal(graph.indices[:, 0], np.arange(100))
    assert not graph.distances[:, :2].any()
    assert all(len(set(row)) == 99 for row in graph.indices)
    assert np.array_equal(neighbours(codes).indices, neighbours(codes).indices)


def test_neighbours_of_a_constant_code_are_random():
    graph = neighbours(np.full((N, 2), 0.1), 30)
    assert np.array_equal(graph.indices[:, 0], np.arange(N))
    assert all(len(set(row)) == 30 for row in graph.indices)
    # Not the first cells, nor the same ones for every cell.
    assert np.bincount(graph.indices.ravel(), minlength=N).max() < 60


def test_errors_quote_what_was_got(codes):
    with pytest.raises(ValueError, match="k is 1"):
        neighbours(codes, 1)
    with pytest.raises(ValueError, match="n_cells must be at least 3"):
        neighbours(codes[:2], 15)


# sharing


def test_one_search_serves_all_metrics_of_the_same_codes(codes, searches, rng):
    labels, batch, x = rng.integers(0, 3, N), rng.integers(0, 2, N), rng.normal(size=(N, 6))

    def all_scores():
        return {
            **integration(codes, batch, labels),
            **{name: METRICS[name](x, codes) for name in ("trustworthiness", "continuity")},
            "knn_recall": METRICS["knn_recall"](x[:40], x[40:], codes[:40], codes[40:]),
        }

    alone = all_scores()
    assert searches.count((N, 4, 89)) == 3
    searches.clear()
    with sharing():
        assert all_scores() == alone
    assert sorted(searches) == [(N, 4, 89), (N, 6, 89)]


def test_a_search_for_more_is_made_once_more(codes, searches):
    with sharing():
        for k in (15, 90, 120, 50, 120):
            neighbours(codes, k)
    assert searches == [(N, 4, 89), (N, 4, 119)]


def test_codes_changed_in_place_are_searched_anew(codes, searches):
    with sharing():
        before = neighbours(codes, 15)
        codes[:] = codes[::-1].copy()
        assert np.array_equal(neighbours(codes, 15).indices, N - 1 - before.indices[::-1])
        codes[0, 0] += 1e-9
        neighbours(codes, 15)
    assert len(searches) == 3


def test_equal_codes_are_found_wherever_they_are(codes, searches):
    with sharing():
        for copy in (codes.copy(), np.asfortranarray(codes), codes.astype(np.float32).astype(np.float64), codes):
            neighbours(copy, 15)
        neighbours(codes.reshape(2 * N, 2), 15)  # the same bytes in another shape
    assert [search[0] for search in searches] == [N, N, 2 * N]  # single precision changed them once


def test_nothing_is_remembered_after_or_outside(codes, searches):
    with sharing():
        neighbours(codes)
    with sharing():
        neighbours(codes)
    neighbours(codes)
    neighbours(codes)
    assert len(searches) == 4


def test_nothing_is_remembered_after_an_error(codes, searches):
    with pytest.raises(ValueError, match="k is 1"), sharing():
        neighbours(codes, neighbours(codes).indices[0, 0] + 1)
    neighbours(codes)
    assert len(searches) == 2


def test_another_thread_shares_nothing(codes, searches):
    with sharing():
        neighbours(codes)
        other = threading.Thread(target=neighbours, args=(codes,))
        other.start()
        other.join()
    assert len(searches) == 2


def test_a_shared_graph_cannot_be_changed(codes):
    with sharing(), pytest.raises(ValueError, match="read-only"):
        neighbours(codes).indices[0, 0] = 3


def test_the_search_is_approximate_beyond_some_cells(codes, monkeypatch):
    """How near it comes is measured by `make faults`, as its compilation takes a minute of a processor."""
    asked, exact = [], module._exact
    monkeypatch.setattr(module, "_approximate", lambda points, k: asked.append((len(points), k)) or exact(points, k))
    expected = neighbours(codes)
    assert asked == []
    monkeypatch.setattr(module, "EXACT", N - 1)
    found = neighbours(codes)
    assert asked == [(N, 89)]
    assert np.array_equal(found.indices, expected.indices)
