from itertools import product

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.linear_model import LinearRegression
from sklearn.metrics import balanced_accuracy_score, mutual_info_score, r2_score

from metrics import METRICS
from metrics.arrays import adjusted_accuracy, r2
from metrics.disentanglement import (
    _information,
    beta_vae_score,
    dci,
    discretise,
    factor_vae_score,
    irs,
    mig,
    sap,
)

modularity, infom, infoc = (METRICS[name] for name in ("modularity", "infom", "infoc"))
explicitness, infoe = METRICS["explicitness"], METRICS["infoe"]
FAST = [mig, sap, infoc, modularity, infom, explicitness, infoe, beta_vae_score, factor_vae_score, irs]
VOTES = [beta_vae_score, factor_vae_score]
DCI = ("dci_disentanglement", "dci_completeness", "dci_informativeness")
dci_disentanglement = METRICS["dci_disentanglement"]


@pytest.fixture
def rng():
    return np.random.default_rng(3)


@pytest.fixture
def factors(rng):
    """All combinations of 4, 4 and 3 levels, ten times each, so that the factors are exactly independent."""
    return rng.permutation(np.array(list(product(range(4), range(4), [0.1, 0.2, 0.7])) * 10))


@pytest.fixture
def continuous(rng):
    return rng.normal(size=(1000, 3))


def rotated(codes):
    """The first two codes, at the same variance, turned by 45 degrees."""
    z = (codes - codes.mean(0)) / codes.std(0)
    z[:, :2] = z[:, :2] @ np.array([[1, -1], [1, 1]]) / np.sqrt(2)
    return z


def gauge(codes):
    """Axes permuted, scaled, shifted and flipped."""
    return codes[:, [2, 0, 1]] * [0.01, -3, 100] + [5, 0, -1]


# every metric


@pytest.mark.parametrize("score", FAST, ids=lambda score: score.__name__)
def test_the_factors_themselves_are_best(score, factors, continuous):
    assert score(factors, factors) == pytest.approx(1, abs=2e-3)
    assert score(gauge(factors), factors) == pytest.approx(1, abs=2e-3)
    # Of a continuous factor's bins a code knows all, but a bin is wide and moves it.
    assert score(gauge(continuous), continuous) > (0.8 if score is irs else 0.92 if score is mig else 0.99)


@pytest.mark.parametrize("score", FAST, ids=lambda score: score.__name__)
@pytest.mark.parametrize("value", [0.0, 0.1, 1e6])
def test_a_constant_code_is_worst(score, factors, value):
    chance = {beta_vae_score: 1 / 3}.get(score, 0)
    assert score(np.full((480, 3), value), factors) == pytest.approx(chance, abs=0.04 if chance else 0)


@pytest.mark.parametrize("score", FAST, ids=lambda score: score.__name__)
def test_permuted_samples_are_chance(score, factors, continuous, rng):
    chance = 1 / 3 if score in VOTES else 0
    assert score(rng.permutation(factors), factors) == pytest.approx(chance, abs=0.06)
    # A continuous factor's bins hold 50 samples, whose extremes the .99 quantile of IRS does not see.
    assert score(rng.permutation(continuous), continuous) == pytest.approx(chance, abs=0.15 if score is irs else 0.06)


def test_a_duplicated_code_is_compact_no_more_but_as_modular_and_explicit(factors):
    twice = np.hstack([factors, -factors])
    assert mig(twice, factors) == pytest.approx(0)
    assert sap(twice, factors) == pytest.approx(0)
    assert infoc(twice, factors) == pytest.approx((1 / 2 - 1 / 6) / (1 - 1 / 6))
    for score in (modularity, infom, explicitness, infoe, irs, *VOTES):
        assert score(twice, factors) == pytest.approx(1, abs=2e-3), score


@pytest.mark.parametrize("case", ["factors", "continuous"])
def test_a_rotated_code_is_explicit_but_neither_modular_nor_compact(case, request):
    truth = request.getfixturevalue(case)
    z = rotated(truth)
    for score in (mig, sap, infoc, modularity, infom, irs, factor_vae_score):
        assert score(z, truth) < 0.8, score
    for score in (explicitness, infoe):
        assert score(z, truth) == pytest.approx(1, abs=5e-3), score
    assert mig(z, truth) == pytest.approx(1 / 3, abs=0.03)  # one factor of the three is left alone


def test_surplus_noise_codes_cost_modularity_but_not_infom(factors, rng):
    z = np.hstack([factors, rng.normal(size=(480, 3))])
    assert modularity(z, factors) == pytest.approx(1 / 2)
    assert infom(z, factors) == infoc(z, factors) == pytest.approx(1)
    assert explicitness(z, factors) > 0.99


def test_one_code_for_one_factor_of_three(factors):
    z = factors[:, :1]
    assert mig(z, factors) == sap(z, factors) == infoc(z, factors) == pytest.approx(1 / 3)
    assert modularity(z, factors) == infom(z, factors) == pytest.approx(1)
    assert infoe(z, factors) == pytest.approx(1 / 3, abs=0.01)


def test_a_code_that_holds_two_factors_is_compact_but_not_modular(factors):
    z = np.column_stack([4 * factors[:, 0] + factors[:, 1], factors[:, 2]])
    assert mig(z, factors) == infoc(z, factors) == pytest.approx(1)
    assert modularity(z, factors) == pytest.approx(np.mean([1 - 1 / 2, 1]), abs=0.01)
    assert infom(z, factors) == pytest.approx(np.mean([(1 / 2 - 1 / 3) / (1 - 1 / 3), 1]))


@pytest.mark.parametrize("score", [*FAST, dci_disentanglement], ids=lambda score: score.__name__)
def test_constant_factors_are_left_out(score, factors):
    z = factors + 0.1 * np.random.default_rng(0).normal(size=factors.shape)
    padded = np.column_stack([factors, np.full(480, 0.1)])
    if score is not dci_disentanglement:
        assert score(z, padded) == score(z, factors)
    assert np.isnan(score(z, padded[:, 3:]))
    needs_two = score in (modularity, infom, dci_disentanglement, *VOTES)
    assert np.isnan(score(z, factors[:, :1])) == needs_two


@pytest.mark.parametrize("score", [sap, explicitness, infom, *VOTES], ids=lambda score: score.__name__)
def test_seeds_reproduce(score, factors, rng):
    z = factors + rng.normal(size=factors.shape)
    assert score(z, factors, seed=1) == score(z, factors, seed=1)


# discretise, mutual_information, mig


def test_discretise_bins_by_frequency_and_keeps_levels(rng):
    x = np.column_stack([rng.normal(size=1000), rng.choice([-2, 0.5, 7], 1000), np.full(1000, 0.1)])
    levels = discretise(x)
    assert set(np.bincount(levels[:, 0])) == {50}
    assert np.array_equal(np.array([-2, 0.5, 7])[levels[:, 1]], x[:, 1])
    assert not levels[:, 2].any()
    assert np.array_equal(discretise(np.exp(x))[:, :2], levels[:, :2])
    tied = np.where(x[:, :1] < 1, 0, x[:, :1])  # equal values share a bin
    assert len(np.unique(discretise(tied)[x[:, 0] < 1])) == 1


def test_information_and_gap_agree_with_scikit_learn(rng):
    factors = np.column_stack([rng.integers(0, 5, 600), rng.normal(size=600)])
    codes = factors @ rng.normal(size=(2, 3)) + rng.normal(size=(600, 3))
    z, f = discretise(codes), discretise(factors)
    expected = np.array([[mutual_info_score(z[:, i], f[:, j]) for j in range(2)] for i in range(3)])
    assert_allclose(_information(z, f), expected, atol=1e-6)
    entropy = np.array([mutual_info_score(f[:, j], f[:, j]) for j in range(2)])
    ordered = np.sort(expected, axis=0)
    assert_allclose(mig(codes, factors), np.mean((ordered[-1] - ordered[-2]) / entropy), atol=1e-6)


# the others against independent code


def test_held_out_scores_agree_with_scikit_learn(rng):
    truth, predicted = rng.integers(0, 4, 100), rng.integers(0, 4, 100)
    assert_allclose(adjusted_accuracy(truth, predicted), balanced_accuracy_score(truth, predicted, adjusted=True))
    y, guess = rng.normal(size=(2, 100))
    assert_allclose(r2(y, guess), r2_score(y, guess))


def test_sap_of_continuous_factors_agrees_with_scikit_learn(continuous, rng):
    codes = continuous @ rng.normal(size=(3, 4)) + rng.normal(size=(1000, 4))
    order = np.random.default_rng(5).permutation(1000)
    fit, score = order[:500], order[500:]
    scores = np.zeros((4, 3))
    for i, j in product(range(4), range(3)):
        model = LinearRegression().fit(codes[fit, i : i + 1], continuous[fit, j])
        scores[i, j] = max(0, model.score(codes[score, i : i + 1], continuous[score, j]))
    ordered = np.sort(scores, axis=0)
    assert_allclose(sap(codes, continuous, seed=5), np.mean(ordered[-1] - ordered[-2]), atol=1e-6)


def test_irs_agrees_with_a_loop(factors, rng):
    codes = factors @ rng.normal(size=(3, 4)) + 0.3 * rng.normal(size=(480, 4))
    best, weights = [], []
    for z in codes.T:
        overall = np.quantile(abs(z - z.mean()), 0.99)
        robust = [0.0]
        for f in factors.T:
            moved = [np.quantile(abs(z[f == v] - z[f == v].mean()), 0.99) * np.mean(f == v) for v in np.unique(f)]
            robust.append(1 - sum(moved) / overall)
        best.append(max(robust))
        weights.append(overall)
    assert_allclose(irs(codes, factors), np.average(best, weights=weights), atol=1e-6)


def test_explicitness_singles_out_middle_levels(factors):
    """Why there is one multinomial model: a regression of a middle level against the rest cannot find it."""
    assert explicitness(factors[:, :1], factors[:, :1]) > 0.99


# DCI


def test_dci_known_answers(factors, rng):
    def scores(codes):
        return list(dci(codes, factors).values())

    assert_allclose(scores(gauge(factors)), 1, atol=1e-3)
    assert scores(np.full((480, 3), 0.1)) == [0, 0, 0]
    assert_allclose(scores(rng.permutation(factors)), 0, atol=0.08)
    disentanglement, completeness, informativeness = scores(np.hstack([factors, factors]))
    assert_allclose([disentanglement, informativeness], 1, atol=1e-3)
    assert completeness == pytest.approx(1 - np.log(2) / np.log(6), abs=0.03)
    disentanglement, completeness, informativeness = scores(rotated(factors))
    assert max(disentanglement, completeness) < 0.75
    assert informativeness > 0.95


def test_dci_completeness_of_two_codes_twice_is_half(factors):
    f = factors[:, :2]
    assert METRICS["dci_completeness"](np.hstack([f, f]), f) == pytest.approx(1 / 2, abs=0.03)
    assert METRICS["dci_completeness"](f[:, :1], f[:, :1]) == 1  # one code: nothing to spread over


def test_dci_of_continuous_factors(continuous):
    f = continuous[:400]
    assert min(dci(gauge(f), f).values()) > 0.97
    assert max(dci(rotated(f), f)[name] for name in DCI[:2]) < 0.75


def test_a_member_of_the_family_is_its_value(factors, rng):
    z = factors[:200] + rng.normal(size=(200, 3))
    scores = dci(z, factors[:200], seed=2)
    assert {name: METRICS[name](z, factors[:200], seed=2) for name in DCI} == scores


def test_dci_takes_a_subsample(factors, monkeypatch):
    import metrics.disentanglement

    monkeypatch.setattr(metrics.disentanglement, "MAX_SAMPLES", 100)
    assert dci(factors, factors)["dci_informativeness"] > 0.9


# pitfalls


def test_uncorrected_modularity_praises_noise(rng):
    """Why information is less what shuffled samples show: its bias grows with a factor's levels."""
    factors = rng.integers(0, [2, 3, 40], size=(1000, 3))
    noise = rng.normal(size=(1000, 4))
    squared = _information(discretise(noise), discretise(factors.astype(float))) ** 2
    spill = (squared.sum(axis=1) - squared.max(axis=1)) / (2 * squared.max(axis=1))
    assert np.mean(1 - spill) > 0.95
    assert modularity(noise, factors) == infom(noise, factors) == infoc(noise, factors) == 0


def test_the_factor_vae_score_is_blind_to_leakage(factors):
    """Why it is never read alone: each code may hold a good part of another factor."""
    z = (factors - factors.mean(0)) / factors.std(0)
    leaky = z + 0.5 * z[:, [1, 2, 0]]
    assert factor_vae_score(leaky, factors) == beta_vae_score(leaky, factors) == 1
    assert mig(leaky, factors) < 0.8
    assert infom(leaky, factors) < 0.8


# errors and registry


def test_errors_quote_what_was_got(factors):
    with pytest.raises(ValueError, match=r"factors has shape \(480, 3\); n_samples is 480, but 479 in codes"):
        mig(factors[1:], factors)
    with pytest.raises(ValueError, match=r"codes has shape \(480,\)"):
        infom(factors[:, 0], factors)
    with pytest.raises(ValueError, match="1 of 1440 values"):
        irs(factors, np.where(np.arange(1440).reshape(480, 3) == 7, np.nan, factors))
    with pytest.raises(ValueError, match="3 samples; at least 4"):
        sap(factors[:3] + np.arange(3)[:, None], factors[:3] + np.arange(3)[:, None])
