import numpy as np
import pytest
from scipy import stats

from leaderboard import statistics
from leaderboard.statistics import (
    holm,
    interquartile_mean,
    mean_over_units,
    minimum_detectable,
    p_values,
    ratio_of_means,
    ratios_of_means,
)

HIGHER = np.ones(2)


def scaled_difference(method, reference, floor, ceiling, sign):
    return ratio_of_means(sign * (method - reference), sign * (ceiling - floor))


@pytest.fixture
def fewer_resamples(monkeypatch):
    monkeypatch.setattr(statistics, "N_RESAMPLES", 1000)
    statistics.resample_weights.cache_clear()
    yield
    statistics.resample_weights.cache_clear()


def draw(rng, n_units, level=0.6):
    """Skewed units with a shared difficulty: method, floor and ceiling; the true task score is ``level``."""
    difficulty = rng.normal(size=(n_units, 1))
    floor = 0.1 * difficulty + 0.05 * rng.normal(size=(n_units, 2))
    ceiling = 1 + 0.3 * difficulty + 0.1 * rng.normal(size=(n_units, 2))
    skew = rng.lognormal(-0.08, 0.4, size=(n_units, 2))  # mean 1
    return floor + level * (ceiling - floor) * skew, floor, ceiling


@pytest.mark.parametrize("n_units", [1, 2, 5, 8, 30])
def test_floor_is_0_ceiling_is_1_and_a_difference_to_oneself_is_0(n_units):
    method, floor, ceiling = draw(np.random.default_rng(n_units), n_units)
    sign = np.array([1.0, 1.0])
    assert scaled_difference(floor, floor, floor, ceiling, sign).value == 0
    assert scaled_difference(ceiling, floor, floor, ceiling, sign).value == 1
    same = scaled_difference(method, method, floor, ceiling, sign)
    assert same.value == 0
    if n_units > 1:
        assert same.low == same.high == 0
        top = scaled_difference(ceiling, floor, floor, ceiling, sign)
        assert (top.low, top.high) == pytest.approx((1, 1), abs=1e-12)


def test_ratio_of_means_by_hand():
    # Metric 1: (1 + 3) / (2 + 6) = .5, not the mean of ratios; metric 2, lower is better: (−1 − 2) / (−2 − 2) = .75.
    floor = np.array([[0.0, 5.0], [1.0, 5.0]])
    ceiling = np.array([[2.0, 3.0], [7.0, 3.0]])
    method = np.array([[1.0, 4.0], [4.0, 3.0]])
    estimate = scaled_difference(method, floor, floor, ceiling, np.array([1.0, -1.0]))
    assert estimate.value == pytest.approx((0.5 + 0.75) / 2)
    assert estimate.n_units == 2


def test_scores_are_not_clipped():
    floor, ceiling = np.zeros((3, 1)), np.ones((3, 1))
    assert scaled_difference(floor - 2, floor, floor, ceiling, np.ones(1)).value == -2
    assert scaled_difference(ceiling + 2, floor, floor, ceiling, np.ones(1)).value == 3


def test_only_units_with_every_metric_of_everyone_count():
    method, floor, ceiling = draw(np.random.default_rng(0), 12)
    method[0, 1] = floor[1, 0] = ceiling[2, 1] = np.nan
    method[3, 0] = np.inf
    estimate = scaled_difference(method, floor, floor, ceiling, HIGHER)
    assert estimate.n_units == 8
    alone = scaled_difference(method[4:], floor[4:], floor[4:], ceiling[4:], HIGHER)
    assert (estimate.value, alone.n_units) == (pytest.approx(alone.value), 8)
    # The same resamples of all 12 units, where 8 of them count: as wide, but not the same draws
    assert (estimate.low, estimate.high) == pytest.approx((alone.low, alone.high), abs=0.03)


def test_bootstrap_equals_a_plain_loop_over_resamples(fewer_resamples):
    method, floor, ceiling = draw(np.random.default_rng(1), 10)
    baseline, _, _ = draw(np.random.default_rng(2), 10)
    rng = np.random.default_rng(statistics._SEED)
    draws = []
    for _ in range(statistics.N_RESAMPLES):
        units = np.repeat(np.arange(10), rng.multinomial(10, [0.1] * 10))
        scores = []
        for who in (method, baseline):
            parts = []
            for k in range(2):
                above = np.mean([who[u, k] - floor[u, k] for u in units])
                below = np.mean([ceiling[u, k] - floor[u, k] for u in units])
                parts.append(above / below)
            scores.append(np.mean(parts))
        draws.append((scores[0], scores[0] - scores[1]))
    tail = stats.norm.cdf(-np.sqrt(10 / 9) * stats.t.ppf(0.975, 9))
    expected = np.quantile(draws, [tail, 1 - tail], axis=0)
    score = scaled_difference(method, floor, floor, ceiling, HIGHER)
    difference = scaled_difference(method, baseline, floor, ceiling, HIGHER)
    np.testing.assert_allclose([score.low, score.high], expected[:, 0], rtol=1e-10)
    np.testing.assert_allclose([difference.low, difference.high], expected[:, 1], rtol=1e-10)


def test_few_units_get_the_students_interval_of_a_plain_mean_when_the_range_is_constant():
    values = np.array([0.1, 0.5, 0.4, 0.7, 0.2])
    estimate = ratio_of_means(values[:, None] * 3, np.full((5, 1), 3.0))
    expected = stats.t.interval(0.95, 4, loc=values.mean(), scale=stats.sem(values))
    assert (estimate.low, estimate.high) == pytest.approx(expected)


def test_pairing_takes_the_difficulty_of_a_unit_out():
    rng = np.random.default_rng(3)
    floor, ceiling = np.zeros((12, 1)), np.ones((12, 1))
    difficulty = rng.normal(size=(12, 1))
    method, baseline = difficulty + 0.1, difficulty
    score = scaled_difference(method, floor, floor, ceiling, np.ones(1))
    difference = scaled_difference(method, baseline, floor, ceiling, np.ones(1))
    assert score.high - score.low > 0.5
    assert difference.high - difference.low < 1e-12


def simulate(rng, n_boards, n_units, n_seeds, unit_noise, seed_noise, levels):
    """Many leaderboards at once: method − floor, method − baseline, ceiling − floor, each (units, boards × methods, 2).

    Units have a difficulty that all share, methods have skewed noise by unit and noise by seed; baseline is at .4.
    """
    at = np.append(levels, 0.4)[:, None, None, None]
    difficulty = rng.normal(size=(n_boards, 1, n_units, 1, 1))
    floor = 0.1 * difficulty + 0.05 * rng.normal(size=(n_boards, 1, n_units, 1, 2))
    span = 1 + 0.2 * difficulty + 0.1 * rng.normal(size=floor.shape)
    spread = np.sqrt(np.log(1 + unit_noise**2))
    skew = rng.lognormal(-(spread**2) / 2, spread, size=(n_boards, len(at), n_units, 1, 2))  # mean 1
    noise = seed_noise * rng.normal(size=(n_boards, len(at), n_units, n_seeds, 2))
    values = (floor + span * (at * skew + noise)).mean(axis=3)
    methods, baseline, floor = values[:, :-1], values[:, -1:], floor[:, :, :, 0]
    span = np.broadcast_to(span[:, :, :, 0], methods.shape)
    return [np.moveaxis(part, 2, 0).reshape(n_units, -1, 2) for part in (methods - floor, methods - baseline, span)]


@pytest.mark.parametrize(("n_seeds", "unit_noise", "seed_noise"), [(1, 0.4, 0.0), (3, 0.4, 0.2), (5, 0.1, 0.3)])
@pytest.mark.parametrize("n_units", [3, 5, 8, 12, 30])
def test_coverage_over_500_leaderboards(fewer_resamples, n_units, n_seeds, unit_noise, seed_noise):
    rng = np.random.default_rng(n_units)
    levels = np.array([0.1, 0.4, 0.7, 1.0])
    score, difference, span = simulate(rng, 500, n_units, n_seeds, unit_noise, seed_noise, levels)
    truth = np.tile(levels, 500)
    for found, true in ((ratios_of_means(score, span), truth), (ratios_of_means(difference, span), truth - 0.4)):
        assert 0.92 <= ((found.low <= true) & (true <= found.high)).mean() <= 0.98


@pytest.mark.parametrize("n_units", [3, 8, 20])
def test_false_positives_under_the_null(n_units):
    _, difference, span = simulate(np.random.default_rng(n_units), 1000, n_units, 3, 0.4, 0.2, np.full(10, 0.4))
    value, error, _, counts = statistics.linearised(difference, span)
    p = p_values(value, error, counts).reshape(1000, 10)
    assert 0.035 <= (p < 0.05).mean() <= 0.065
    # 5 % of families, give or take two and a half standard errors
    assert np.mean([(holm(family) < 0.05).any() for family in p]) <= 0.067


def test_seeds_drawn_again_within_units_would_count_twice():
    """Why a drawn unit brings its seeds along: with noise of seeds alone, the nested variance is (2S − 1)/S times."""
    n_units, n_seeds = 40, 4
    rng = np.random.default_rng(0)
    values = rng.normal(size=(n_units, n_seeds))
    units = rng.integers(n_units, size=(20_000, n_units))
    seeds = rng.integers(n_seeds, size=(20_000, n_units, n_seeds))
    nested = values[units[..., None], seeds].mean(axis=(1, 2))
    _, error, _, _ = statistics.linearised(values.mean(axis=1)[:, None, None], np.ones((n_units, 1, 1)))
    draws = statistics.draw(
        statistics.resample_weights(n_units), values.mean(axis=1)[:, None, None], np.ones((n_units, 1, 1))
    )
    assert draws.std() == pytest.approx(error[0], rel=0.03)
    assert error[0] == pytest.approx(1 / np.sqrt(n_units * n_seeds), rel=0.2)  # the true error
    assert nested.var() / error[0] ** 2 > 1.5


def test_holm_by_hand():
    # Sorted .01, .02, .03, .04 times 4, 3, 2, 1 = .04, .06, .06, .04; never falling: .04, .06, .06, .06.
    np.testing.assert_allclose(holm(np.array([0.03, 0.01, np.nan, 0.04, 0.02])), [0.06, 0.04, np.nan, 0.06, 0.06])
    np.testing.assert_allclose(holm(np.array([0.4, 0.6])), [0.8, 0.8])
    np.testing.assert_allclose(holm(np.array([0.7, 0.6])), [1, 1])
    assert np.isnan(holm(np.array([np.nan]))).all()
    assert holm(np.empty(0)).shape == (0,)


def test_p_value_is_the_paired_t_tests_when_the_range_is_constant():
    rng = np.random.default_rng(0)
    method, baseline = rng.normal(size=(2, 9))
    value, error, _, n_units = statistics.linearised(3 * (method - baseline)[:, None, None], np.full((9, 1, 1), 3.0))
    assert p_values(value, error, n_units)[0] == pytest.approx(stats.ttest_rel(method, baseline).pvalue)


def test_p_value_of_no_difference_at_all_is_1_and_of_one_unit_none():
    p = p_values(
        np.array([0.0, 1e-17, 0.5, 0.5, np.nan]), np.array([0, 1e-18, 0, np.nan, np.nan]), np.array([5, 5, 5, 1, 0])
    )
    np.testing.assert_array_equal(p, [1, 1, 0, np.nan, np.nan])


def test_minimum_detectable_difference():
    # 2.262 + 0.883 errors with ten units (tables of Student's t), and found with 80 % power by simulation.
    error = 1 / np.sqrt(10)
    mdd = minimum_detectable(np.array([error, 1.0, 0.0]), np.array([10, 1, 10]))
    assert mdd[0] == pytest.approx((2.262 + 0.883) * error, abs=1e-3)
    assert np.isnan(mdd[1:]).all()
    draws = np.random.default_rng(0).normal(mdd[0], 1, size=(10, 20_000))
    assert (stats.ttest_1samp(draws, 0).pvalue < 0.05).mean() == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize("n_values", [4, 20, 100])
def test_interquartile_mean_is_scipys_trimmed_mean(n_values):
    values = np.random.default_rng(n_values).normal(size=n_values)
    gaps = np.append(values, [np.nan, np.nan])
    found = interquartile_mean(gaps, np.ones((1, n_values + 2)))
    assert found[0] == pytest.approx(stats.trim_mean(values, 0.25))


def test_interquartile_mean_cuts_through_values_and_weighs():
    # Of 1 to 5, the middle 2.5: three quarters of 2, 3, three quarters of 4, and the same with 2 as one of weight 2.
    values, even = np.array([5.0, 1, 3, 2, 4]), np.ones((1, 5))
    assert interquartile_mean(values, even)[0] == pytest.approx((0.75 * 2 + 3 + 0.75 * 4) / 2.5)
    assert interquartile_mean(np.array([10.0, 2, 1]), np.array([[1.0, 2, 1]]))[0] == pytest.approx(2)
    assert np.isnan(interquartile_mean(values, 0 * even)).all()
    assert np.isnan(interquartile_mean(np.array([np.nan]), np.ones((2, 1)))).all()


def test_interquartile_mean_of_resamples_is_that_of_what_was_drawn():
    values = np.random.default_rng(0).normal(size=8)
    weights = statistics.resample_weights(8)[:50]
    drawn = [np.repeat(values, np.round(8 * row).astype(int)) for row in weights]
    np.testing.assert_allclose(interquartile_mean(values, weights), [stats.trim_mean(row, 0.25) for row in drawn])


def test_nothing_and_one_unit_have_no_interval():
    none = ratio_of_means(np.empty((0, 2)), np.empty((0, 2)))
    assert none.n_units == 0
    assert np.isnan([none.value, none.low, none.high]).all()
    one = ratio_of_means(np.array([[1.0]]), np.array([[2.0]]))
    assert (one.value, one.n_units) == (0.5, 1)
    assert np.isnan([one.low, one.high]).all()
    assert mean_over_units(np.empty(0)).n_units == 0


def test_a_range_that_is_not_positive_gives_no_score():
    estimate = ratio_of_means(np.ones((9, 1)), -np.ones((9, 1)))
    assert np.isnan(estimate.value)
    assert estimate.n_units == 9


def test_same_rows_same_interval():
    method, floor, ceiling = draw(np.random.default_rng(1), 10)
    first = scaled_difference(method, floor, floor, ceiling, HIGHER)
    statistics.resample_weights.cache_clear()
    assert scaled_difference(method, floor, floor, ceiling, HIGHER) == first
