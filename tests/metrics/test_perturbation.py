import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import energy_distance as scipy_energy_distance
from scipy.stats import false_discovery_control, ortho_group, pearsonr, ttest_ind
from sklearn.metrics import average_precision_score, r2_score
from sklearn.metrics.pairwise import cosine_similarity, rbf_kernel

from metrics import METRICS
from metrics.perturbation import (
    correlation_error,
    deg_auprc,
    deg_mask,
    deg_sign_accuracy,
    deg_t_statistics,
    deg_weights,
    delta_cosine,
    delta_pearson,
    delta_pearson_perturbed,
    energy_distance,
    legacy,
    log_variance_error,
    mean_r2,
    mmd,
    retrieval,
    skill,
)


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def legacy_r2(true, predicted):
    return legacy(true, predicted, true, np.arange(2))["legacy_r2"]


def legacy_r2_top_degs(true, predicted, top):
    return legacy(true, predicted, true, top)["legacy_r2_top_degs"]


@pytest.fixture
def delta(rng):
    return rng.normal(size=200)


# weights and DEGs


def test_welch_agrees_with_scipy(rng):
    perturbed, control = rng.normal(size=(30, 50)) * 2 + 0.5, rng.normal(size=(90, 50))
    expected = ttest_ind(perturbed, control, equal_var=False)
    assert_allclose(deg_t_statistics(perturbed, control), expected.statistic, atol=1e-6)
    mask = false_discovery_control(expected.pvalue) <= 0.2
    assert 0 < mask.sum() < 50
    assert np.array_equal(deg_mask(perturbed, control, alpha=0.2), mask)


def test_constant_genes_have_defined_t_statistics():
    # Means of the float 0.1 over 7 and 13 cells differ in the last digit; that is no signal.
    perturbed, control = np.full((7, 3), 0.1), np.full((13, 3), 0.1)
    perturbed[:, 1], control[:, 2] = 0.2, 0.3
    assert list(deg_t_statistics(perturbed, control)) == [0, np.inf, -np.inf]
    assert list(deg_mask(perturbed, control)) == [False, True, True]


def test_weights_follow_the_signal(rng):
    control, perturbed = rng.normal(size=(100, 20)), rng.normal(size=(100, 20))
    perturbed[:, 3] += 5
    perturbed[:, 4] -= 5
    weights = deg_weights(perturbed, control)
    assert_allclose(weights.sum(), 1)
    assert weights.min() == 0
    assert weights[[3, 4]].sum() > 0.9
    order = rng.permutation(20)
    assert_allclose(deg_weights(perturbed[:, order], control[:, order]), weights[order])
    size = np.abs(ttest_ind(perturbed, control, equal_var=False).statistic)
    expected = ((size - size.min()) / (size.max() - size.min())) ** 2
    assert_allclose(weights, expected / expected.sum(), atol=1e-6)


def test_weights_of_constant_genes(rng):
    flat = np.full((5, 4), 0.1)
    assert_allclose(deg_weights(flat, flat), 0.25)
    moved = flat.copy()
    moved[:, 2] = 0.5
    assert_allclose(deg_weights(moved, flat), [0, 0, 1, 0])
    # One gene without variance does not outshine the others.
    perturbed, control = rng.normal(size=(50, 3)), rng.normal(size=(50, 3))
    perturbed[:, 0] += 4
    perturbed[:, 2], control[:, 2] = 1, 0
    weights = deg_weights(perturbed, control)
    assert_allclose(weights[0], weights[2])


# skill


def test_skill_known_answers(delta, rng):
    mean_shift, weights = delta + rng.normal(size=200), rng.random(200)
    assert skill(delta, delta, mean_shift, weights) == 1
    assert skill(delta, mean_shift, mean_shift, weights) == 0
    assert_allclose(skill(delta, (delta + mean_shift) / 2, mean_shift, weights), 0.75)
    assert skill(delta, delta + 2 * (mean_shift - delta), mean_shift, weights) == pytest.approx(-3)
    assert skill(delta, np.zeros(200), mean_shift, weights) < skill(delta, delta / 2, mean_shift, weights)
    assert np.isnan(skill(delta, delta, delta, weights))
    assert np.isnan(skill(delta, delta, mean_shift, np.zeros(200)))


def test_skill_is_blind_to_gene_order_to_duplicates_and_to_the_weights_sum(delta, rng):
    predicted, mean_shift, weights = rng.normal(size=(3, 200))
    weights = weights**2
    expected = skill(delta, predicted, mean_shift, weights)
    order = rng.permutation(200)
    assert_allclose(skill(delta[order], predicted[order], mean_shift[order], weights[order]), expected)
    assert_allclose(skill(*(np.tile(v, 2) for v in (delta, predicted, mean_shift, weights))), expected)
    assert_allclose(skill(delta, predicted, mean_shift, 7 * weights), expected)
    assert skill(delta, rng.permutation(delta), delta.mean() * np.ones(200), weights) < 0


def test_skill_ignores_genes_without_weight(delta, rng):
    weights = np.r_[np.ones(100), np.zeros(100)]
    predicted = np.r_[delta[:100], np.zeros(100)]
    assert skill(delta, predicted, np.zeros(200), weights) == 1


# direction of the response


def test_direction_agrees_with_scipy_and_scikit_learn(delta, rng):
    predicted = delta + rng.normal(size=200)
    assert_allclose(delta_pearson(delta, predicted), pearsonr(delta, predicted).statistic, atol=1e-6)
    assert_allclose(delta_cosine(delta, predicted), cosine_similarity([delta], [predicted])[0, 0], atol=1e-6)


@pytest.mark.parametrize("score", [delta_cosine, delta_pearson])
def test_direction_known_answers(score, delta, rng):
    assert score(delta, delta) == pytest.approx(1)
    assert score(delta, -delta) == pytest.approx(-1)
    assert score(delta, delta / 100) == pytest.approx(1)
    assert score(np.tile(delta, 2), np.tile(delta, 2)) == pytest.approx(1)
    assert abs(score(delta, rng.permutation(delta))) < 0.25
    zero = np.zeros(200)
    assert score(delta, zero) == score(zero, delta) == score(zero, zero) == 0


def test_no_change_has_no_direction_even_with_rounding_noise(rng):
    control = rng.gamma(1, 1, size=(500, 200)).astype(np.float32)
    delta = np.where(np.arange(200) < 20, 1.0, 0.0)
    # One mean, summed in two orders in single precision: not the same number, and not a response.
    noise = (control[::-1].cumsum(0)[-1] / np.float32(500) - control.mean(0)).astype(float)
    assert noise.any()
    assert delta_cosine(delta, noise) == delta_pearson(delta, noise) == 0


def test_a_constant_response_has_a_cosine_but_no_correlation(delta):
    assert delta_cosine(np.ones(200), np.full(200, 0.1)) == pytest.approx(1)
    assert delta_pearson(delta, np.full(200, 0.1)) == 0


# DEGs of the prediction


def test_deg_sign_accuracy_known_answers(delta, rng):
    degs = np.arange(200) < 50
    assert deg_sign_accuracy(delta, delta, degs) == 1
    assert deg_sign_accuracy(delta, -delta, degs) == 0
    assert deg_sign_accuracy(delta, np.zeros(200), degs) == 0
    assert deg_sign_accuracy(delta, np.ones(200), degs) == pytest.approx(np.mean(delta[:50] > 0))
    half = np.where(np.arange(200) < 25, delta, -delta)
    assert deg_sign_accuracy(delta, half, degs) == 0.5
    assert deg_sign_accuracy(np.tile(delta, 2), np.tile(half, 2), np.tile(degs, 2)) == 0.5
    order = rng.permutation(200)
    assert deg_sign_accuracy(delta[order], half[order], degs[order]) == 0.5
    assert np.isnan(deg_sign_accuracy(delta, delta, np.zeros(200, bool)))
    assert np.isnan(deg_sign_accuracy(np.zeros(200), delta, degs))


def test_deg_auprc_agrees_with_scikit_learn(delta, rng):
    degs = rng.random(200) < np.where(np.abs(delta) > 1, 0.6, 0.1)
    assert_allclose(deg_auprc(delta, degs), average_precision_score(degs, np.abs(delta)), atol=1e-6)
    rounded = np.round(delta, 1)
    assert_allclose(deg_auprc(rounded, degs), average_precision_score(degs, np.abs(rounded)), atol=1e-6)


def test_deg_auprc_known_answers(delta, rng):
    degs = np.abs(delta) > 1
    assert deg_auprc(delta, degs) == pytest.approx(1)
    assert deg_auprc(-delta, degs) == pytest.approx(1)
    order = rng.permutation(200)
    assert deg_auprc(delta[order], degs[order]) == pytest.approx(1)
    assert deg_auprc(np.tile(delta, 2), np.tile(degs, 2)) == pytest.approx(1)
    assert deg_auprc(np.full(200, -0.1), degs) == pytest.approx(degs.mean())
    shuffled = [deg_auprc(rng.permutation(delta), degs) for _ in range(50)]
    assert np.mean(shuffled) == pytest.approx(degs.mean(), abs=0.05)
    assert np.isnan(deg_auprc(delta, np.zeros(200, bool)))
    assert np.isnan(deg_auprc(delta, np.ones(200, bool)))


# spread and dependence


def test_log_variance_error_known_answers(rng):
    x = rng.normal(size=(500, 30))
    assert log_variance_error(x, x) == 0
    assert log_variance_error(x, rng.permutation(x)) == pytest.approx(0)
    # Centred and doubled: the log ratio is log 4, but for the floor.
    assert log_variance_error(x, 2 * x + 3) == pytest.approx(np.log(4), abs=1e-2)
    assert log_variance_error(np.vstack([x, x]), np.vstack([x, x])) == 0
    flat = np.full_like(x, 0.1)
    expected = np.mean(np.log(x.var(0, ddof=1) + 1e-3) - np.log(1e-3))
    assert_allclose(log_variance_error(x, flat), expected)
    assert np.isnan(log_variance_error(flat, flat + 1))


def test_log_variance_error_leaves_out_genes_that_never_vary(rng):
    x, y = rng.normal(size=(50, 4)), 3 * rng.normal(size=(60, 4))
    padded = [np.hstack([z, np.full((len(z), 9), 0.1)]) for z in (x, y)]
    assert_allclose(log_variance_error(*padded), log_variance_error(x, y))


def test_correlation_error_agrees_with_numpy(rng):
    x, y = rng.normal(size=(40, 6)), rng.normal(size=(70, 6)) @ rng.normal(size=(6, 6))
    difference = (np.corrcoef(x.T) - np.corrcoef(y.T))[np.triu_indices(6, 1)]
    assert_allclose(correlation_error(x, y), np.sqrt(np.mean(difference**2)), atol=1e-6)


def test_correlation_error_known_answers(rng):
    x = rng.normal(size=(2000, 1)) + 0.01 * rng.normal(size=(2000, 5))
    assert correlation_error(x, x) == 0
    assert correlation_error(x, 3 * x + 5) == pytest.approx(0, abs=1e-9)
    assert correlation_error(x, rng.permutation(x)) == pytest.approx(0, abs=1e-9)
    assert correlation_error(np.vstack([x, x]), x) == pytest.approx(0, abs=1e-9)
    assert correlation_error(x, np.full_like(x, 0.1)) == pytest.approx(1, abs=1e-3)
    assert correlation_error(x, rng.permuted(x, axis=0)) == pytest.approx(1, abs=0.1)
    flip = np.array([1, -1])
    assert correlation_error(x[:, :2], x[:, :2] * flip) == pytest.approx(2, abs=1e-3)


# populations


def test_energy_distance_agrees_with_scipy_up_to_its_bias(rng):
    x, y = rng.normal(size=(60, 1)), 2 * rng.normal(size=(60, 1)) + 0.3
    # scipy's is the square root of half the V-statistic, self-pairs included.
    v_statistic = scipy_energy_distance(x[:, 0], y[:, 0]) ** 2
    bias = sum(np.abs(z - z.T).sum() / 60**2 / 59 for z in (x, y))
    assert_allclose(energy_distance(x, y), v_statistic - bias, atol=1e-6)


def test_mmd_agrees_with_scikit_learn(rng):
    x, y = rng.normal(size=(30, 3)), rng.normal(size=(40, 3)) + 1
    pooled = np.vstack([x, y])
    distances = np.linalg.norm(pooled[:, None] - pooled[None], axis=2)
    median = np.median(distances[np.triu_indices(70, 1)])
    expected = 0.0
    for c in (0.5, 1, 2):
        gamma = 1 / (2 * (c * median) ** 2)
        xx, yy, xy = rbf_kernel(x, gamma=gamma), rbf_kernel(y, gamma=gamma), rbf_kernel(x, y, gamma=gamma)
        expected += (xx.sum() - 30) / (30 * 29) + (yy.sum() - 40) / (40 * 39) - 2 * xy.mean()
    assert_allclose(mmd(x, y), expected / 3, atol=1e-6)


@pytest.mark.parametrize("distance", [energy_distance, mmd])
def test_population_distances_are_unbiased(rng, distance):
    same = [distance(rng.normal(size=(20, 3)), rng.normal(size=(20, 3))) for _ in range(300)]
    standard_error = np.std(same, ddof=1) / np.sqrt(300)
    assert abs(np.mean(same)) < 4 * standard_error
    assert min(same) < 0 < max(same)
    assert distance(rng.normal(size=(200, 3)), rng.normal(size=(200, 3)) + 3) > 20 * np.std(same)


@pytest.mark.parametrize("distance", [energy_distance, mmd])
def test_population_distances_are_blind_to_gauge_and_order(rng, distance):
    x, y = rng.normal(size=(50, 4)), 2 * rng.normal(size=(50, 4))
    rotation = ortho_group.rvs(4, random_state=rng)
    assert_allclose(distance(x @ rotation + 3, y @ rotation + 3), distance(x, y))
    assert_allclose(distance(rng.permutation(x), rng.permutation(y)), distance(x, y))
    assert_allclose(distance(y, x), distance(x, y))


@pytest.mark.parametrize("distance", [energy_distance, mmd])
def test_population_distances_see_collapse(rng, distance):
    x, again = rng.normal(size=(2, 200, 4))
    collapsed = np.tile(x.mean(0), (200, 1))
    assert distance(x, collapsed) > 10 * abs(distance(x, again))
    assert distance(collapsed, collapsed) == 0
    # A prediction that copies the truth's cells is at zero, too, but for the pairs it leaves out.
    assert abs(distance(x, rng.permutation(x))) < 0.05


def test_squared_energy_distance_is_blind_to_variance(rng):
    """Why the distance is not squared."""
    x, y = rng.normal(size=(300, 5)), 3 * rng.normal(size=(300, 5))
    x, y = x - x.mean(0), y - y.mean(0)
    assert energy_distance(x, y) > 1

    def squared(a, b):
        return np.sum((a[:, None] - b[None]) ** 2, axis=2).mean()

    assert_allclose(2 * squared(x, y) - squared(x, x) - squared(y, y), 0, atol=1e-9)


# gene means


def test_mean_r2_agrees_with_scikit_learn(rng):
    true = rng.gamma(1, 1, 100)
    predicted = true + 0.3 * rng.normal(size=100)
    assert_allclose(mean_r2(true, predicted), r2_score(true, predicted), atol=1e-6)


def test_mean_r2_known_answers(rng):
    true = rng.gamma(1, 1, 100)
    assert mean_r2(true, true) == 1
    assert mean_r2(true, np.full(100, true.mean())) == pytest.approx(0)
    assert mean_r2(true, rng.permutation(true)) < 0
    assert_allclose(mean_r2(np.tile(true, 2), np.tile(true / 2, 2)), mean_r2(true, true / 2))
    assert np.isnan(mean_r2(np.full(100, 0.1), true))


def test_legacy_r2_agrees_with_scipy(rng):
    true = rng.gamma(1, 1, 100)
    predicted = true + rng.normal(size=100)
    assert_allclose(legacy_r2(true, predicted), pearsonr(true, predicted).statistic ** 2, atol=1e-6)
    top = np.array([5, 80, 41, 7])
    expected = pearsonr(true[top], predicted[top]).statistic ** 2
    assert_allclose(legacy_r2_top_degs(true, predicted, top), expected, atol=1e-6)


def test_legacy_r2_known_answers(rng):
    true = rng.gamma(1, 1, 100)
    top = np.arange(20)
    assert legacy_r2(true, true) == legacy_r2_top_degs(true, true, top) == pytest.approx(1)
    assert legacy_r2(true, np.full(100, 0.1)) == legacy_r2_top_degs(true, np.full(100, 0.1), top) == 0
    assert legacy_r2(true, rng.permutation(true)) < 0.1
    assert legacy_r2(np.tile(true, 2), np.tile(true**2, 2)) == pytest.approx(legacy_r2(true, true**2))
    order = rng.permutation(100)
    assert legacy_r2(true[order], true[order] ** 2) == pytest.approx(legacy_r2(true, true**2))
    assert_allclose(legacy_r2_top_degs(true, true**2, top[::-1]), legacy_r2_top_degs(true, true**2, top))


def test_legacy_r2_is_blind_to_scale_and_high_for_no_change(rng):
    """Why it is kept for comparison with papers only, and beside its no-change value."""
    control = rng.gamma(0.5, 1, 1000)
    true = control + np.where(np.arange(1000) < 50, 0.5, 0)
    assert legacy_r2(true, true / 2) == pytest.approx(1)
    assert mean_r2(true, true / 2) < 0.75
    assert legacy(true, true, control, np.arange(2))["legacy_r2_no_change"] > 0.95
    assert skill(true - control, np.zeros(1000), np.full(1000, 0.025), np.ones(1000)) < 0


# adapting


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
    with pytest.raises(ValueError, match="n_genes is 29"):
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
    with pytest.raises(ValueError, match="n_cells is 3, but 2"):
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
    for wrong, message in (([3], "at least 2"), ([0.5, 1.5], "indices of genes"), ([2, 30], "from 0 to 29")):
        with pytest.raises(ValueError, match=message):
            METRICS["delta_pearson_top_degs"](truth, other, np.array(wrong))


# errors


def test_errors_quote_what_was_got(delta, rng):
    x = rng.normal(size=(5, 3))
    with pytest.raises(ValueError, match=r"delta_predicted has shape \(199,\); n_genes is 199, but 200 in delta_true"):
        delta_cosine(delta, delta[1:])
    with pytest.raises(ValueError, match="lowest is -1"):
        skill(delta, delta, delta, np.full(200, -1.0))
    with pytest.raises(ValueError, match="1 of 200 values"):
        delta_pearson(delta, np.where(delta == delta[0], np.inf, delta))
    with pytest.raises(ValueError, match="n_true must be at least 2"):
        energy_distance(x[:1], x)
    with pytest.raises(ValueError, match="n_genes is 2, but 3 in x_true"):
        correlation_error(x, x[:, :2])
    with pytest.raises(ValueError, match="n_genes must be at least 2"):
        correlation_error(x[:, :1], x[:, :1])
    with pytest.raises(ValueError, match=r"degs has shape \(3,\)"):
        deg_auprc(delta, np.ones(3, bool))
    with pytest.raises(ValueError, match="only 0 and 1"):
        deg_auprc(delta, delta)
    with pytest.raises(ValueError, match="alpha is 5"):
        deg_mask(x, x, alpha=5)
    with pytest.raises(ValueError, match="indices of genes from 0 to 199"):
        legacy_r2_top_degs(delta, delta, np.array([0, 200]))
    with pytest.raises(ValueError, match="n_top must be at least 2"):
        legacy_r2_top_degs(delta, delta, np.array([3]))


# --- one perturbation among others


def ranks_by_hand(predicted, means, power):
    """Share of the other means that are farther from each prediction than its own, in plain Python."""
    scores = []
    for own, prediction in enumerate(predicted):
        distances = [sum(abs(a - b) ** power for a, b in zip(prediction, mean, strict=True)) for mean in means]
        others = [distance for k, distance in enumerate(distances) if k != own]
        scores.append(sum(distance > distances[own] for distance in others) / len(others))
    return scores


def test_retrieval_agrees_with_a_plain_count(rng):
    means = rng.normal(size=(12, 30))
    predicted = means + 3.0 * rng.normal(size=(12, 30))
    found = [retrieval(row, means, own) for own, row in enumerate(predicted)]
    by_l1, by_l2 = (ranks_by_hand(predicted, means, power) for power in (1, 2))
    assert [scores["perturbation_discrimination"] for scores in found] == pytest.approx(by_l1)
    assert [scores["centroid_accuracy"] for scores in found] == [float(share == 1.0) for share in by_l2]
    assert 0 < np.mean([scores["centroid_accuracy"] for scores in found]) < 1


def test_retrieval_known_answers():
    means = np.arange(5.0)[:, None] * np.ones((5, 4))
    assert retrieval(means[1], means, 1) == {"perturbation_discrimination": 1.0, "centroid_accuracy": 1.0}
    # beyond the last: the first is the farthest
    assert retrieval(means[4] + 1, means, 0) == {"perturbation_discrimination": 0.0, "centroid_accuracy": 0.0}
    # in the middle of two: one as far counts half
    assert retrieval((means[1] + means[2]) / 2, means, 1) == {
        "perturbation_discrimination": 3.5 / 4,
        "centroid_accuracy": 0.0,
    }
    # one prediction for all of them is at chance
    same = [retrieval(means.mean(axis=0), means, own) for own in range(5)]
    assert np.mean([scores["perturbation_discrimination"] for scores in same]) == 0.5
    with pytest.raises(ValueError, match="own is 5; the index of one of 5 perturbations is needed"):
        retrieval(means[0], means, 5)


def test_delta_pearson_perturbed_gives_nothing_for_what_all_have_in_common(rng):
    common, own = 10.0 + rng.normal(size=50), rng.normal(size=50)
    assert delta_pearson_perturbed(common + own, common, common) == 0.0
    assert delta_pearson_perturbed(common + own, common + 3 * own, common) == pytest.approx(1.0)
    other = rng.normal(size=50)
    assert delta_pearson_perturbed(common + own, common + other, common) == pytest.approx(np.corrcoef(own, other)[0, 1])
