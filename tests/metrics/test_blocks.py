import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import ortho_group
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.preprocessing import StandardScaler

from metrics import METRICS
from metrics.blocks import (
    N_FOLDS,
    bayes_accuracy,
    block_diagonality,
    conditional_leakage,
    findability,
    leakage_boosted,
    leakage_linear,
    probe_accuracy,
    transfer_error,
)

N = 300
cluster_ari, cluster_nmi = METRICS["cluster_ari"], METRICS["cluster_nmi"]


@pytest.fixture
def rng():
    return np.random.default_rng(17)


@pytest.fixture
def labels(rng):
    return rng.permutation(np.repeat(["a", "b", "c"], [150, 100, 50]))


@pytest.fixture
def codes(labels, rng):
    """Two latents that hold the label and one that does not."""
    centres = {"a": [0, 0, 0], "b": [9, 0, 0], "c": [0, 9, 0]}
    return np.array([centres[label] for label in labels]) + rng.normal(size=(N, 3))


# probes


def test_linear_probes_agree_with_scikit_learn(labels, rng):
    z = rng.normal(size=(N, 3)) + (labels == "a")[:, None]
    scaled = StandardScaler().fit_transform(z)
    folds = StratifiedKFold(N_FOLDS, shuffle=True, random_state=4)
    # scikit-learn gives plain balanced accuracy: adjusting it for chance is linear.
    accuracy = cross_val_score(
        LogisticRegression(class_weight="balanced"), scaled, labels, cv=folds, scoring="balanced_accuracy"
    ).mean()
    assert_allclose(probe_accuracy(z, labels, seed=4), (accuracy - 1 / 3) / (1 - 1 / 3), atol=1e-6)
    assert leakage_linear(z, labels, seed=4) == probe_accuracy(z, labels, "linear", seed=4)


@pytest.mark.parametrize("leakage", [leakage_linear, leakage_boosted])
def test_leakage_known_answers(codes, labels, rng, leakage):
    assert leakage(codes, labels) == pytest.approx(1, abs=0.02)
    assert leakage(-3 * codes[:, ::-1] + 5, labels) == pytest.approx(1, abs=0.02)
    assert leakage(np.hstack([codes, codes]), labels) == pytest.approx(1, abs=0.02)
    assert leakage(codes @ ortho_group.rvs(3, random_state=rng), labels) == pytest.approx(1, abs=0.03)
    assert leakage(np.full((N, 2), 0.1), labels) == 0
    assert leakage(np.empty((N, 0)), labels) == 0
    assert leakage(rng.permutation(codes), labels) == pytest.approx(0, abs=0.15)
    assert np.isnan(leakage(codes, np.full(N, "a")))


def test_naming_the_frequent_label_is_no_leakage(rng):
    """Why accuracy is balanced: a plain one would be .9 here."""
    rare = rng.permutation(np.repeat([0, 1], [270, 30]))
    z = rng.normal(size=(N, 3))
    assert leakage_linear(z, rare) == pytest.approx(0, abs=0.2)
    assert leakage_boosted(z, rare) == pytest.approx(0, abs=0.2)


def test_a_label_can_hide_from_a_linear_probe(rng):
    """Why leakage is asked of both probes."""
    z = rng.normal(size=(600, 2))
    ring = np.linalg.norm(z, axis=1) > 1.2
    assert leakage_linear(z, ring) == pytest.approx(0, abs=0.12)
    assert leakage_boosted(z, ring) > 0.85


def test_rare_labels_are_left_out(codes, labels):
    rare = labels.astype("U4")
    rare[:2] = "rare"
    assert probe_accuracy(codes, rare) == pytest.approx(1, abs=0.02)


def test_below_chance_is_chance():
    # each part's most frequent label is the rarer one elsewhere: a probe of nothing is wrong more often than not
    rng = np.random.default_rng(0)
    values = [leakage_linear(rng.normal(size=(60, 1)), np.repeat([0, 1], 30)) for _ in range(10)]
    assert min(values) == 0


# transfer


def test_transferred_cells_are_asked_of_a_classifier_of_real_ones(rng):
    centres = 8 * np.eye(4, 30)
    names = np.repeat(["a1", "a2", "b1", "b2"], 40)
    real = np.repeat(centres, 40, axis=0) + rng.normal(size=(160, 30))
    moved = centres[[1, 1, 1, 3]] + 0.1 * rng.normal(size=(4, 30))
    assert transfer_error(real, names, moved, ["a2", "a2", "a2", "b2"]) == 0
    # the class is left, the content changed, or nothing done
    assert transfer_error(real, names, moved, ["a1", "b2", "a2", "b2"]) == 0.5


# draws


def test_findability_asks_within_groups(rng):
    groups, programs = np.repeat(["a", "b"], 60), np.repeat(["a0", "a1", "b0", "b1"], 30)
    plain = 20.0 * np.repeat([0, 1, 0, 1], 30)[:, None] + rng.normal(size=(120, 1))
    assert findability(plain, programs, groups) == 1
    assert findability(rng.permutation(plain), programs, groups) == pytest.approx(0, abs=0.1)
    half = np.where(np.arange(120)[:, None] < 60, plain, 0.0)
    assert findability(half, programs, groups) == 0.5


def test_bayes_accuracy_by_hand():
    posterior = np.array([[0.9, 0.1, 0.0], [0.9, 0.1, 0.0], [0.5, 0.5, 0.0]])
    assert bayes_accuracy(posterior, np.eye(3)[[0, 1, 1]]) == pytest.approx((1 + 0 + 0.5) / 3)


# conditional leakage


def test_conditional_leakage_forgives_what_the_group_says(rng):
    """A code that knows nothing but the cell type leaks a group of which the types' shares differ."""
    kind = np.repeat([0, 1, 2], 100)
    group = rng.random(N) < np.array([0.1, 0.5, 0.9])[kind]
    z = 5 * np.eye(3)[kind] + rng.normal(size=(N, 3))
    assert leakage_linear(z, group) > 0.3
    assert conditional_leakage(z, group, kind) == pytest.approx(0, abs=0.15)
    told = np.hstack([z, 5.0 * group[:, None]])
    assert conditional_leakage(told, group, kind) > 0.9


def test_conditional_leakage_is_weighted_and_skips_what_cannot_be_asked(rng):
    given = np.repeat(["large", "small", "pure"], [180, 60, 60])
    y = np.tile([0, 1], 150)
    y[given == "pure"] = 0
    z = 9.0 * (y * (given == "large"))[:, None] + 0.01 * rng.normal(size=(N, 1))
    inner = [probe_accuracy(z[given == name], y[given == name], "boosted") for name in ("large", "small")]
    assert inner[0] == 1
    expected = (180 * inner[0] + 60 * inner[1]) / 240
    assert_allclose(conditional_leakage(z, y, given), expected)
    assert np.isnan(conditional_leakage(z, y, y))
    assert conditional_leakage(np.empty((N, 0)), y, given) == 0


# block diagonality


def test_block_diagonality_known_answers():
    assert block_diagonality(np.eye(3)) == 1
    assert block_diagonality(1 - np.eye(3)) == -1
    assert block_diagonality(np.full((2, 2), 0.7)) == 0
    assert block_diagonality([[0.8, 0.1], [0.3, 0.6]]) == pytest.approx(0.7 - 0.2)
    assert np.isnan(block_diagonality([[1, np.nan], [0, 1]]))


# clusters


def test_clusters_agree_with_scikit_learn(labels, rng):
    z = rng.normal(size=(N, 3)) + 2 * (labels == "a")[:, None]
    found = KMeans(3, n_init=10, random_state=6).fit_predict(z - z.mean(axis=0))
    assert_allclose(cluster_ari(z, labels, seed=6), adjusted_rand_score(labels, found), atol=1e-6)
    assert_allclose(cluster_nmi(z, labels, seed=6), normalized_mutual_info_score(labels, found), atol=1e-6)


@pytest.mark.parametrize("score", [cluster_ari, cluster_nmi])
def test_clusters_known_answers(codes, labels, rng, score):
    assert score(codes, labels) > 0.97
    assert score(-3 * codes[:, ::-1] + 5, labels) > 0.97
    assert score(np.hstack([codes, codes]), labels) > 0.97
    assert score(np.full((N, 2), 0.1), labels) == 0
    assert score(rng.permutation(codes), labels) == pytest.approx(0, abs=0.05)
    assert np.isnan(score(codes, np.zeros(N)))
    # Fewer distinct points than labels: fewer clusters, no failure.
    assert 0 < score((labels == "a")[:, None], labels) < 1


# errors


def test_errors_quote_what_was_got(codes, labels):
    with pytest.raises(ValueError, match=r"attribute has shape \(299,\); n_cells is 299, but 300 in codes"):
        leakage_linear(codes, labels[1:])
    with pytest.raises(ValueError, match=r"given has shape \(1,\)"):
        conditional_leakage(codes, labels, labels[:1])
    with pytest.raises(ValueError, match="probe is 'svm'; 'linear' or 'boosted'"):
        probe_accuracy(codes, labels, "svm")
    with pytest.raises(ValueError, match="n_blocks is 3, but 2 in matrix"):
        block_diagonality(np.ones((2, 3)))
    with pytest.raises(ValueError, match="scores in"):
        block_diagonality([[1, -0.1], [0, 1]])
    with pytest.raises(ValueError, match="2 of 300 labels that are NaN"):
        cluster_ari(codes, np.r_[np.nan, np.nan, np.ones(298)])
