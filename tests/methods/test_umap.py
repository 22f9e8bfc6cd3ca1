"""UMAP: two clusters stay apart, and new cells land with their own.

That another process gives the same codes is a check of every method ("no leak" in tests/contract).
"""

import numpy as np
import pytest

from methods import METHODS, CannotFit


def test_clusters_stay_apart_and_new_cells_land_with_their_own(labelled):
    rng = np.random.default_rng(0)
    side = np.arange(80) % 2
    x = rng.standard_normal((80, 10)) + 20 * side[:, None]
    data = labelled(x[:60], ["control"] * 60)
    cls = METHODS["umap"]
    method = cls(cls.configure(n_neighbors=10)).fit(data, 0)
    codes, new = method.embed(data), method.embed(labelled(x[60:], ["control"] * 20))
    assert codes.shape == (60, 2)
    centres = np.stack([codes[side[:60] == s].mean(axis=0) for s in (0, 1)])
    nearest = np.linalg.norm(new[:, None] - centres, axis=2).argmin(axis=1)
    np.testing.assert_array_equal(nearest, side[60:])
    spread = np.linalg.norm(codes - centres[side[:60]], axis=1).mean()
    assert np.linalg.norm(centres[0] - centres[1]) > 3 * spread


def test_a_fit_says_that_another_processor_lays_the_cells_out_anew(labelled):
    method = METHODS["umap"]().fit(labelled(np.random.default_rng(0).standard_normal((40, 5)), ["control"] * 40), 0)
    assert method.log == ["the layout depends on rounding: another processor gives another one"]


def test_too_few_cells_are_refused(labelled):
    with pytest.raises(CannotFit, match="more than 4 cells, got 4"):
        METHODS["umap"]().fit(labelled(np.eye(4), ["control"] * 4), 0)
