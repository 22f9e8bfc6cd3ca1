import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import ortho_group
from sklearn.neighbors import NearestNeighbors

from metrics.geometry import cka, local_distortion, ood_distance


@pytest.fixture
def rng():
    return np.random.default_rng(13)


@pytest.fixture
def x(rng):
    return rng.normal(size=(200, 4)) * [1, 2, 0.5, 1]


# local_distortion


def test_local_distortion_agrees_with_a_loop(x):
    z = np.tanh(x[:, :3])
    found = NearestNeighbors(n_neighbors=6).fit(x).kneighbors(x, return_distance=False)[:, 1:]
    ratios = [
        np.log(np.linalg.norm(z[a] - z[b]) / np.linalg.norm(x[a] - x[b])) for a, near in enumerate(found) for b in near
    ]
    assert_allclose(local_distortion(x, z, k=5), np.std(ratios), atol=1e-6)


def test_local_distortion_known_answers(x, rng):
    rotation = ortho_group.rvs(4, random_state=rng)
    assert local_distortion(x, x) == 0
    assert local_distortion(x, 3 * x @ rotation + 5) == pytest.approx(0, abs=1e-9)
    assert local_distortion(x, -0.01 * x[:, ::-1]) == pytest.approx(0, abs=1e-9)
    assert local_distortion(x, np.hstack([x, x])) == pytest.approx(0, abs=1e-9)
    assert np.isnan(local_distortion(x, np.full((200, 2), 0.1)))
    stretched = [local_distortion(x, x * [factor, 1, 1, 1]) for factor in (1, 2, 4, 8)]
    assert stretched == sorted(stretched)
    assert local_distortion(x, rng.permutation(x)) > local_distortion(x, x * [2, 1, 1, 1])


def test_two_scales_far_apart_are_spread_by_half_their_log_ratio(rng):
    x = rng.normal(size=(100, 3))
    twice = np.vstack([x, x + 1000])
    z = np.vstack([x, 5 * x + 1000])
    assert local_distortion(twice, z) == pytest.approx(np.log(5) / 2)


def test_collapsed_and_coinciding_pairs(x):
    torn = x.copy()
    torn[:20] = x[0]  # these fall together in the code
    assert np.isfinite(local_distortion(x, torn))
    assert local_distortion(x, torn) > 1
    doubled = np.repeat(x, 2, axis=0)
    assert local_distortion(doubled, 3 * doubled) == pytest.approx(0, abs=1e-9)
    assert np.isnan(local_distortion(np.repeat(x[:1], 20, axis=0), x[:20]))


def test_local_distortion_clips_k(x):
    z = x[:, :2]
    assert local_distortion(x[:6], z[:6], k=50) == local_distortion(x[:6], z[:6], k=5)


# cka


def test_cka_agrees_with_gram_matrices(x, rng):
    y = np.tanh(x @ rng.normal(size=(4, 3)))
    centre = np.eye(200) - 1 / 200
    k, m = (centre @ z @ z.T @ centre for z in (x, y))
    assert_allclose(cka(x, y), np.sum(k * m) / np.sqrt(np.sum(k * k) * np.sum(m * m)), atol=1e-6)


def test_cka_known_answers(x, rng):
    rotation = ortho_group.rvs(4, random_state=rng)
    assert cka(x, x) == pytest.approx(1)
    assert cka(x, -3 * x[:, ::-1] @ rotation + 5) == pytest.approx(1)
    assert cka(x, np.hstack([x, x])) == pytest.approx(1)
    assert cka(x, np.full((200, 2), 0.1)) == 0
    assert cka(x, rng.permutation(x)) < 0.1


def test_cka_is_moved_by_one_direction_and_biased_when_wide(x, rng):
    """Its caveats."""
    dominant = 30 * rng.normal(size=(200, 1))
    a, b = (np.hstack([dominant, rng.normal(size=(200, 9))]) for _ in range(2))
    assert cka(a, b) > 0.99
    assert cka(a[:, 1:], b[:, 1:]) < 0.1
    assert cka(rng.normal(size=(50, 500)), rng.normal(size=(50, 500))) > 0.8


def test_errors_quote_what_was_got(x):
    with pytest.raises(ValueError, match=r"reference \(200, 4\), z \(199, 4\)"):
        local_distortion(x, x[1:])
    with pytest.raises(ValueError, match="k is 0"):
        local_distortion(x, x, k=0)
    with pytest.raises(ValueError, match=r"x \(200, 4\), y \(5, 4\)"):
        cka(x, x[:5])


# ood_distance


def test_ood_distance_agrees_with_all_pairs(x, rng):
    new = rng.normal(size=(30, 4)) + 2
    among = np.sort(np.linalg.norm(x[:, None] - x[None], axis=-1), axis=1)[:, 5]  # the first is the sample itself
    to_new = np.sort(np.linalg.norm(new[:, None] - x[None], axis=-1), axis=1)[:, 4]
    assert_allclose(ood_distance(new, x, k=5), np.median(to_new) / np.median(among), rtol=1e-6)


def test_ood_distance_known_answers(x, rng):
    # a unit apart on a line the 2nd neighbour of most points is 1 away; that of a point 10 beyond the last is 11 away
    line = np.arange(9.0)[:, None]
    assert ood_distance([[18.0]], line, k=2) == pytest.approx(11)
    draws = rng.normal(size=(2000, 3))
    assert ood_distance(draws[:1000], draws[1000:]) == pytest.approx(1, abs=0.05)
    far = [ood_distance(x + shift * np.eye(4)[0], x) for shift in (0, 5, 10, 20)]
    assert (np.diff(far) > 0).all()
    assert_allclose(ood_distance(3 * x + 22, 3 * x + 2), ood_distance(x + 20 / 3, x), rtol=1e-6)  # no unit


def test_ood_distance_is_not_defined_among_duplicates_and_refuses_nothing(x):
    assert np.isnan(ood_distance(x, np.ones((20, 4))))
    with pytest.raises(ValueError, match="k is 15 for 200 held-out and 1 training"):
        ood_distance(x, x[:1])
    with pytest.raises(ValueError, match="k is 0"):
        ood_distance(x, x, k=0)
    with pytest.raises(ValueError, match="held_out has shape"):
        ood_distance(x[:0], x)
    with pytest.raises(ValueError, match="lengths along axis 1 must agree"):
        ood_distance(x[:, :2], x)
