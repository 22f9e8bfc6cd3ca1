import numpy as np
import pytest
from numpy.testing import assert_allclose

from metrics import METRICS


@pytest.fixture
def means():
    rng = np.random.default_rng(0)
    truth = rng.standard_normal(30)
    return truth, truth + 0.3 * rng.standard_normal(30)


def test_skill_half_is_one_for_the_truth_zero_for_the_half_and_quadratic_between(means):
    truth, half = means
    for share, score in ((0.0, 0.0), (0.5, 0.75), (1.0, 1.0), (-1.0, -3.0)):
        assert METRICS["skill_half"](truth, half + share * (truth - half), half) == pytest.approx(score)
    assert np.isnan(METRICS["skill_half"](truth, half, truth))
    with pytest.raises(ValueError, match="shapes must agree"):
        METRICS["skill_half"](truth, half[1:], half)


def test_the_noiseless_mean_gets_a_half():
    rng = np.random.default_rng(1)
    mean = rng.standard_normal(4000)
    scored, half = (mean + 0.2 * rng.standard_normal(4000) for _ in range(2))
    assert METRICS["skill_half"](scored, mean, half) == pytest.approx(0.5, abs=0.03)


def test_likelihood_gain_is_the_mean_difference_per_gene():
    before = np.array([-100.0, -120.0, -80.0])
    assert METRICS["likelihood_gain"](before, before, 10) == 0.0
    assert METRICS["likelihood_gain"](before + 5, before, 10) == pytest.approx(0.5)
    assert METRICS["likelihood_gain"](before - [1, 2, 6], before, 3) == pytest.approx(-1.0)
    with pytest.raises(ValueError, match="n_genes is 0"):
        METRICS["likelihood_gain"](before, before, 0)
    with pytest.raises(ValueError, match="shapes must agree"):
        METRICS["likelihood_gain"](before[1:], before, 3)
    with pytest.raises(ValueError, match="1 of 3 values"):
        METRICS["likelihood_gain"]([0.0, 1.0, np.inf], before, 3)


def test_delta_pearson_of_the_top_genes(means):
    truth, other = means
    top = np.array([3, 7, 11, 20])
    expected = np.corrcoef(truth[top], other[top])[0, 1]
    assert_allclose(METRICS["delta_pearson_top_degs"](truth, other, top), expected, atol=1e-9)
    assert METRICS["delta_pearson_top_degs"](truth, 2 * truth, top) == pytest.approx(1.0)
    assert METRICS["delta_pearson_top_degs"](truth, np.zeros(30), top) == 0.0
    for wrong, message in (([3], "at least 2"), ([0.5, 1.5], "at least 2"), ([2, 30], "from 2 to 30; there are 30")):
        with pytest.raises(ValueError, match=message):
            METRICS["delta_pearson_top_degs"](truth, other, np.array(wrong))
