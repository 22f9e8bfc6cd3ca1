"""Known answers of the metrics of mixtures."""

import numpy as np
import pytest

from metrics import METRICS

composition_error, profile_error = METRICS["composition_error"], METRICS["profile_error"]


def test_composition_error_is_the_root_mean_square_over_cells_and_parts():
    true = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    assert composition_error(true, true) == 0.0
    assert composition_error(true, true + 0.1) == pytest.approx(0.1)
    # equal parts for a pure line: √((2/3)² + 2 (1/3)²) / √3
    assert composition_error(true[:1], np.full((1, 3), 1 / 3)) == pytest.approx(np.sqrt(6 / 9 / 3))


def test_profile_error_is_one_at_the_training_mean_and_grows_beyond():
    true, trained = np.array([2.0, 0.0, 1.0]), np.array([1.0, 1.0, 1.0])
    assert profile_error(true, true, trained) == 0.0
    assert profile_error(true, trained, trained) == 1.0
    assert profile_error(true, (true + trained) / 2, trained) == pytest.approx(0.25)
    assert profile_error(true, 2 * trained - true, trained) == pytest.approx(4.0)
    assert np.isnan(profile_error(true, trained, true))


@pytest.mark.parametrize("wrong", [np.array([1.0, 2.0]), np.array([1.0, np.nan, 0.0])])
def test_other_lengths_and_values_that_are_not_finite_are_refused(wrong):
    with pytest.raises(ValueError, match="mean_predicted"):
        profile_error(np.ones(3), wrong, np.zeros(3))
    with pytest.raises(ValueError, match="proportions_hat"):
        composition_error(np.ones((1, 3)), wrong[None])
