"""Relative errors, intervals and the family of tests: closed forms, and simulated boards of known truth."""

import numpy as np
import pytest
from scipy import stats

from leaderboard import statistics
from leaderboard.statistics import (
    BETTER,
    EQUIVALENT,
    UNDECIDED,
    WORSE,
    Block,
    Means,
    adjusted,
    average,
    block,
    detectable,
    log_relative_errors,
    mean_of_finite,
    replicates_for,
    verdict,
)
from tests.held_back.boards import counts


def test_relative_errors_are_cut_at_the_floor_and_at_a_hundredth():
    errors = np.array([[2.0, 9.0, 1e-9, 1.0, 3.0, np.nan]])
    baseline = np.array([4.0, 1.0, 1.0, 0.0, 2.0, 1.0])
    floor = np.array([8.0, 3.0, 3.0, 1.0, 1.0, 3.0])
    found = np.exp(log_relative_errors(errors, baseline, floor))[0]
    # a unit without an error of the baseline says nothing; a floor that beats the baseline cuts nothing
    np.testing.assert_allclose(found, [0.5, 3.0, 0.01, np.nan, 1.5, np.nan])


def test_mean_of_finite():
    values = np.array([[1.0, np.nan, 3.0], [np.nan, np.nan, np.inf]])
    np.testing.assert_array_equal(mean_of_finite(values, axis=1), [2.0, np.nan])


def test_the_mean_of_one_sample_is_students():
    values = np.random.default_rng(0).normal(0.3, 1, size=(12, 4))
    found = Block(values).means()
    low, high = found.interval()
    np.testing.assert_allclose(found.p(), stats.ttest_1samp(values, 0).pvalue)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    np.testing.assert_allclose([low, high], [expected.low, expected.high])
    np.testing.assert_allclose(
        found.below_zero(),
        stats.ttest_1samp(values, 0, alternative="less").pvalue * 0 + stats.t.cdf(-found.value / found.error, 11),
    )


def test_folds_have_the_variance_of_correlated_errors():
    """Benavoli et al. 2017: 1/n + ρ/(1 − ρ) with ρ = 1/n."""
    values = np.random.default_rng(0).normal(size=(7, 3))
    plain, folds = Block(values).means(), Block(values, folds=True).means()
    rho = 1 / 7
    np.testing.assert_allclose((folds.error / plain.error) ** 2, 7 * (1 / 7 + rho / (1 - rho)))


def test_crossed_units_and_seeds_add_their_variances():
    values = np.random.default_rng(0).normal(size=(2, 20, 3))
    found = block(values, [None] * 20, one_fit=True).means()
    units, seeds = values.mean(axis=2).var(axis=1, ddof=1) / 20, values.mean(axis=1).var(axis=1, ddof=1) / 3
    np.testing.assert_allclose(found.error**2, units + seeds)
    np.testing.assert_allclose(found.freedom, (units + seeds) ** 2 / (units**2 / 19 + seeds**2 / 2))
    one = block(values[..., :1], [None] * 20, one_fit=True).means()
    np.testing.assert_allclose(one.freedom, 19)


def test_draws_are_the_replicates_and_units_lie_within():
    values = np.random.default_rng(0).normal(size=(2, 12, 2))
    draws = [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    found = block(values, draws, one_fit=False)
    np.testing.assert_allclose(found.by_replicate, values.mean(axis=2).reshape(2, 4, 3).mean(axis=2).T)
    assert not found.folds
    assert block(values, [None] * 12, one_fit=False).folds
    assert len(block(values[:, :3], [0, 0, 0], one_fit=False).by_replicate) == 3  # one draw: its units


def test_the_average_of_tasks_is_over_those_that_there_are():
    first = Block(np.random.default_rng(0).normal(size=(8, 2))).means()
    second = Block(np.random.default_rng(1).normal(size=(5, 2)) * [1, np.nan]).means()
    found = average([first, second])
    assert found.n.tolist() == [2, 1]
    assert found.value[0] == pytest.approx((first.value[0] + second.value[0]) / 2)
    assert found.error[0] == pytest.approx(np.hypot(first.error[0], second.error[0]) / 2)
    assert (found.value[1], found.error[1]) == pytest.approx((first.value[1], first.error[1]))
    assert average([first]) is first


def test_one_replicate_has_a_value_and_nothing_else():
    found = Block(np.array([[0.3, np.nan]])).means()
    assert found.value[0] == 0.3
    assert found.n.tolist() == [1, 0]
    assert np.isnan([*found.error, *found.p(), *found.interval()[0]]).all()
    assert np.isnan(adjusted([Block(np.array([[0.3, np.nan]]))], found)[0]).all()


def test_no_difference_is_no_difference():
    found = Block(np.zeros((9, 2))).means()
    assert found.p().tolist() == [1.0, 1.0]
    assert adjusted([Block(np.zeros((9, 2)))], found)[0].tolist() == [1.0, 1.0]


def test_adjusted_p_of_one_difference_is_that_of_all_sign_flips():
    """With one difference the family is a plain permutation test, here with every flip counted by hand."""
    values = np.random.default_rng(3).normal(0.8, 1, size=(9, 1))
    one = Block(values)
    p, _ = adjusted([one], one.means())
    signs = np.array(np.meshgrid(*[[1, -1]] * 9)).reshape(9, -1).T
    expected = (np.abs(signs @ values[:, 0]) >= abs(values.sum()) - 1e-12).mean()
    assert p[0] == pytest.approx(expected)


def test_adjusted_p_rise_with_p_and_are_never_below_them():
    values = np.random.default_rng(0).normal([0, 0.3, 0.6, 1, 2], 1, size=(14, 5))
    one = Block(values)
    p, critical = adjusted([one], one.means())
    order = np.argsort(one.means().p())
    assert (np.diff(p[order]) >= 0).all()
    assert (p >= one.means().p() - 0.01).all()
    assert critical > stats.t.ppf(0.975, 13)


def test_few_replicates_and_crossed_seeds_are_adjusted_by_holm():
    values = np.random.default_rng(0).normal([0, 1, 3], 1, size=(5, 3))
    one = Block(values)
    p = one.means().p()
    order = np.argsort(p)
    holm = np.minimum(np.maximum.accumulate(p[order] * [3, 2, 1]), 1)
    np.testing.assert_allclose(adjusted([one], one.means())[0][order], holm)


@pytest.mark.parametrize(
    ("value", "low", "high", "p", "word"),
    [
        (-0.5, -0.7, -0.3, 0.01, BETTER),
        (0.5, 0.3, 0.7, 0.01, WORSE),
        (-0.5, -1.0, 0.1, 0.2, UNDECIDED),
        (-0.01, -0.04, 0.02, 0.6, EQUIVALENT),
        (-0.02, -0.03, -0.01, 0.01, EQUIVALENT),  # told from 1, but surely within 5 %
        (-0.5, np.nan, np.nan, np.nan, ""),
    ],
)
def test_verdicts(value, low, high, p, word):
    assert verdict(value, low, high, p) == word


def test_what_is_detectable_is_detected_in_80_percent():
    rng = np.random.default_rng(0)
    n, sd, critical = 12, 0.4, stats.t.ppf(0.975, 11)
    step = detectable(sd / np.sqrt(n), 11, critical)
    t = [stats.ttest_1samp(rng.normal(step, sd, n), 0).pvalue < 0.05 for _ in range(3000)]
    assert np.mean(t) == pytest.approx(0.8, abs=0.035)
    assert replicates_for(step, sd / np.sqrt(n), 11, critical, n) == pytest.approx(n)
    assert np.isnan(detectable(0.0, 11, critical))


@pytest.mark.parametrize("kinds", [("draws",), ("folds",), ("fit",), ("draws", "folds")], ids="+".join)
@pytest.mark.parametrize("spaced", [False, True], ids=["tied", "spaced"])
def test_coverage_and_false_positives_on_simulated_boards(kinds, spaced, monkeypatch):
    """Bounds are 4 standard errors from 95 % and 5 % at this number of boards; docs/scores.md has 500 a case."""
    monkeypatch.setattr(statistics, "N_FLIPS", 1000)
    n_boards = 150
    covered, wrong, _, best_kept = counts(kinds, 8, spaced, n_boards, 7)
    assert 0.93 <= covered <= 0.97
    assert wrong <= 0.05 + 4 * np.sqrt(0.05 * 0.95 / n_boards)
    if spaced:
        assert best_kept >= 0.98


def test_a_mean_without_error_has_no_p():
    one = Means(np.array([0.2]), np.array([np.nan]), np.array([np.nan]), np.array([1]))
    assert np.isnan(one.p()).all()
