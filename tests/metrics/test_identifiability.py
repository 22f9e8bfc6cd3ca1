from itertools import permutations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import ortho_group
from sklearn.linear_model import LinearRegression
from sklearn.metrics import average_precision_score, f1_score, r2_score

from metrics.identifiability import latent_r2, match_latents, mcc, mcc_rotated, mcc_within, target_auprc, target_f1


@pytest.fixture
def rng():
    return np.random.default_rng(5)


@pytest.fixture
def z(rng):
    return rng.normal(size=(500, 5))


@pytest.fixture
def groups():
    return np.repeat(np.arange(50), 10)


def brute_force(z_true, z):
    """The best mean absolute correlation over all one-to-one matchings, unmatched true latents at 0."""
    n_true = z_true.shape[1]
    correlation = np.abs(np.corrcoef(z_true.T, z.T)[:n_true, n_true:])
    if n_true <= z.shape[1]:
        return max(
            sum(correlation[range(n_true), columns]) / n_true for columns in permutations(range(z.shape[1]), n_true)
        )
    return max(sum(correlation[rows, range(z.shape[1])]) / n_true for rows in permutations(range(n_true), z.shape[1]))


# mcc, match_latents


@pytest.mark.parametrize("n_latent", [3, 5, 7])
def test_mcc_agrees_with_brute_force(z, rng, n_latent):
    learned = z @ rng.normal(size=(5, n_latent)) + rng.normal(size=(500, n_latent))
    assert_allclose(mcc(z, learned), brute_force(z, learned), atol=1e-6)


def test_mcc_known_answers(z, rng):
    assert mcc(z, z) == pytest.approx(1)
    assert mcc(z, -2 * z[:, ::-1] + 3) == pytest.approx(1)
    assert mcc(z, np.hstack([z, z])) == pytest.approx(1)
    assert mcc(np.vstack([z, z]), np.vstack([z, z])) == pytest.approx(1)
    assert mcc(z, np.full((500, 5), 0.1)) == 0
    assert mcc(z, rng.permutation(z)) < 0.15
    rotated = z @ ortho_group.rvs(5, random_state=rng)
    assert 0.3 < mcc(z, rotated) < 0.95


def test_mcc_counts_missing_latents_as_zero(z):
    assert mcc(z, z[:, :3]) == pytest.approx(3 / 5)
    padded = np.hstack([z[:, :3], np.full((500, 2), 0.1)])
    assert mcc(z, padded) == pytest.approx(3 / 5)


def test_match_latents_finds_the_order(z, rng):
    order = np.array([3, 0, 4, 1, 2])
    learned = -z[:, order]
    assert list(order[match_latents(z, learned)]) == list(range(5))
    assert list(match_latents(z, z[:, [2, 0]] + 0.1 * rng.normal(size=(500, 2)))) == [1, -1, 0, -1, -1]
    assert list(match_latents(z[:, :2], np.column_stack([np.full(500, 0.1), z[:, 1]]))) == [-1, 1]


def test_signed_matching_underrates_flipped_latents(z):
    """Why matching is by absolute correlation: the field's signed form calls these perfect latents poor."""
    from scipy.optimize import linear_sum_assignment

    flipped = z * np.array([1, -1, -1, 1, -1])
    signed = np.corrcoef(z.T, flipped.T)[:5, 5:]
    rows, columns = linear_sum_assignment(signed, maximize=True)
    assert np.abs(signed[rows, columns]).mean() < 0.7
    assert mcc(z, flipped) == pytest.approx(1)


# mcc_within


def test_mcc_within_known_answers(z, groups, rng):
    shifts = 5 * rng.normal(size=(50, 5))[groups]
    true = z + shifts
    assert mcc_within(true, true, groups) == pytest.approx(1)
    assert mcc_within(true, -z[:, ::-1], groups) == pytest.approx(1)
    assert mcc_within(true, np.hstack([true, true]), groups) == pytest.approx(1)
    assert mcc_within(true, np.full((500, 5), 0.1), groups) == 0
    order = rng.permutation(500)
    assert mcc_within(true[order], z[order], groups[order]) == pytest.approx(1)
    assert mcc_within(true, rng.permutation(true), groups) < 0.15
    rotated = true @ ortho_group.rvs(5, random_state=rng)
    assert 0.3 < mcc_within(true, rotated, groups) < 0.95
    assert mcc_within(true, true, np.array(list("ab"))[groups % 2]) == pytest.approx(1)


def test_mcc_within_agrees_with_brute_force_on_residuals(z, groups, rng):
    learned = z @ rng.normal(size=(5, 5)) + rng.normal(size=(50, 5))[groups]
    residuals = [values.copy() for values in (z, learned)]
    for values in residuals:
        for group in range(50):
            values[groups == group] -= values[groups == group].mean(0)
    assert_allclose(mcc_within(z, learned, groups), brute_force(*residuals), atol=1e-6)


def test_perturbation_means_have_a_high_mcc_and_nothing_within(z, groups, rng):
    """Why ``mcc`` is read with ``mcc_within``."""
    true = z + 5 * rng.normal(size=(50, 5))[groups]
    means = np.stack([true[groups == group].mean(0) for group in range(50)])[groups]
    assert mcc(true, means) > 0.95
    assert mcc_within(true, means, groups) == 0


# latent_r2


def test_mcc_rotated_undoes_a_rotation_by_sparse_shifts_and_is_blind_to_it(rng):
    shifts = 5.0 * (rng.random((80, 6)) < 0.15) * rng.choice([-1, 1], (80, 6))
    z = np.repeat(shifts, 20, axis=0) + rng.normal(size=(1600, 6))
    for seed in range(3):
        rotation = ortho_group.rvs(6, random_state=seed)
        assert mcc(z, z @ rotation) < 0.8
        assert mcc_rotated(z, z @ rotation, shifts @ rotation) > 0.97
    assert mcc_rotated(z, z, shifts) > 0.97
    assert mcc_rotated(z, np.ones_like(z), np.ones_like(shifts)) == 0
    # more perturbations than cells are no matter, nor are fewer latents
    assert 0.4 < mcc_rotated(z, z[:, :3], shifts[:, :3]) <= 0.5


def test_latent_r2_agrees_with_scikit_learn(z, rng):
    learned = z @ rng.normal(size=(5, 4)) + rng.normal(size=(500, 4))
    order = np.random.default_rng(3).permutation(500)
    fit, score = order[:250], order[250:]
    predicted = LinearRegression().fit(learned[fit], z[fit]).predict(learned[score])
    assert_allclose(latent_r2(z, learned, seed=3), r2_score(z[score], predicted), atol=1e-6)


def test_latent_r2_known_answers(z, rng):
    assert latent_r2(z, z) == pytest.approx(1)
    assert latent_r2(z, 3 * z @ ortho_group.rvs(5, random_state=rng) + 5) == pytest.approx(1)
    assert latent_r2(z, z[:, ::-1]) == pytest.approx(1)
    assert latent_r2(z, np.hstack([z, z])) == pytest.approx(1)
    assert -0.05 < latent_r2(z, np.full((500, 2), 0.1)) <= 0
    assert latent_r2(z, rng.permutation(z)) < 0.02
    assert latent_r2(z, z[:, :3]) == pytest.approx(3 / 5, abs=0.05)
    assert latent_r2(np.column_stack([z, np.full(500, 0.1)]), z) == pytest.approx(1)
    assert np.isnan(latent_r2(np.full((500, 2), 0.1), z))


def test_latent_r2_does_not_reward_memory(rng):
    """Scored on the cells it was fitted on, as many random latents as cells would be perfect."""
    true, noise = rng.normal(size=(40, 3)), rng.normal(size=(40, 19))
    assert LinearRegression().fit(noise[:20], true[:20]).score(noise[:20], true[:20]) > 0.99
    assert latent_r2(true, noise) < 0


# targets


def test_target_scores_agree_with_scikit_learn(rng):
    targets = (rng.random((30, 5)) < 0.2).astype(int)
    scores = np.round(np.clip(0.4 * targets + 0.6 * rng.random((30, 5)), 0, 1), 1)
    expected = average_precision_score(targets.ravel(), scores.ravel())
    assert_allclose(target_auprc(targets, scores), expected, atol=1e-6)
    assert_allclose(target_f1(targets, scores), f1_score(targets.ravel(), scores.ravel() > 0.5), atol=1e-6)


@pytest.mark.parametrize("score", [target_auprc, target_f1])
def test_target_scores_known_answers(score, rng):
    targets = rng.random((40, 6)) < 0.2
    assert score(targets, targets.astype(float)) == pytest.approx(1)
    assert score(np.hstack([targets, targets]), np.hstack([targets, targets])) == pytest.approx(1)
    order = rng.permutation(40)
    assert score(targets[order], targets[order]) == pytest.approx(1)
    assert score(targets, rng.permuted(targets)) < 0.5
    assert np.isnan(score(np.zeros((3, 2)), np.zeros((3, 2))))


def test_target_scores_of_a_constant_belief(rng):
    targets = rng.random((40, 6)) < 0.2
    prevalence = targets.mean()
    for value in (0.1, 0.5, 0.9):
        assert target_auprc(targets, np.full((40, 6), value)) == pytest.approx(prevalence)
    assert target_f1(targets, np.full((40, 6), 0.5)) == 0
    assert target_f1(targets, np.full((40, 6), 0.9)) == pytest.approx(2 * prevalence / (1 + prevalence))


def test_targets_of_a_rotated_code_are_found_after_matching(z, rng):
    targets = rng.random((30, 5)) < 0.3
    order = rng.permutation(5)
    match = match_latents(z, -z[:, order])
    assert target_auprc(targets, targets[:, order][:, match]) == pytest.approx(1)


# errors


def test_errors_quote_what_was_got(z):
    with pytest.raises(ValueError, match=r"z has shape \(499, 5\); n_cells is 499, but 500 in z_true"):
        mcc(z, z[1:])
    with pytest.raises(ValueError, match="n_cells is 3, but 500 in z_true"):
        mcc_within(z, z, np.zeros(3))
    with pytest.raises(ValueError, match="3 samples; at least 4"):
        latent_r2(z[:3], z[:3])
    with pytest.raises(ValueError, match="only 0 and 1"):
        target_auprc(z, z)
    with pytest.raises(ValueError, match="1 of 2500 values"):
        mcc(z, np.where(z == z[0, 0], np.nan, z))
