import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.spatial import procrustes as scipy_procrustes
from scipy.spatial.distance import pdist
from scipy.stats import ortho_group, spearmanr
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness as sklearn_trustworthiness
from sklearn.metrics import balanced_accuracy_score
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from metrics import embedding
from metrics.embedding import (
    continuity,
    displacement,
    distance_spearman,
    knn_recall,
    label_transfer,
    neighbour_agreement,
    ood_distance,
    procrustes,
    reconstruction_error,
    training_drift,
    trustworthiness,
    two_seeds,
)

RNG_SEED = 7


@pytest.fixture
def rng():
    return np.random.default_rng(RNG_SEED)


@pytest.fixture
def pair(rng):
    """Held-out and training samples in a latent space."""
    return rng.normal(size=(40, 4)) + 1.0, rng.normal(size=(120, 4))


def similar(z, rng, scale=3.0, shift=5.0):
    return scale * z @ ortho_group.rvs(z.shape[1], random_state=rng) + shift


# displacement, training_drift, procrustes


def test_displacement_is_blind_to_the_gauge(pair, rng):
    held_out, train = pair
    rotation = ortho_group.rvs(4, random_state=rng)
    rotation[:, 0] *= -1  # rotations and reflections alike
    assert_allclose(displacement(held_out, held_out, train, train), 0, atol=1e-12)
    assert_allclose(displacement(held_out, 3 * held_out @ rotation + 5, train, 3 * train @ rotation + 5), 0, atol=1e-12)
    columns = [2, 0, 3, 1]
    assert_allclose(displacement(held_out, held_out[:, columns], train, train[:, columns]), 0, atol=1e-12)
    assert_allclose(training_drift(train, similar(train, rng)), 0, atol=1e-12)


def test_displacement_of_a_known_shift(pair):
    held_out, train = pair
    moved = held_out + np.array([2.0, 0, 0, 0])
    total = np.vstack([held_out, train]).var(axis=0).sum()
    assert_allclose(displacement(held_out, moved, train, train), 4.0 / total)
    spaces = held_out, moved, train, train
    assert two_seeds.displacement_two_seeds(*spaces) == displacement(*spaces)


def test_a_tight_unit_is_not_far_off_because_it_is_tight(pair):
    held_out, train = pair
    tight = held_out.mean(axis=0) + 0.01 * held_out
    moved = displacement(tight, tight + 0.1, train, train)
    assert moved == pytest.approx(4 * 0.01 / np.vstack([tight, train]).var(axis=0).sum())
    assert moved < 0.02


def test_displacement_of_permuted_samples_is_about_two(rng):
    held_out, train = rng.normal(size=(2000, 4)), rng.normal(size=(500, 4))
    assert_allclose(displacement(held_out, rng.permutation(held_out), train, train), 2, atol=0.1)


def test_displacement_of_duplicated_samples_is_unchanged(pair, rng):
    held_out, train = pair
    moved = held_out + rng.normal(size=held_out.shape)
    twice = [np.vstack([z, z]) for z in (held_out, moved, train, train)]
    assert_allclose(displacement(*twice), displacement(held_out, moved, train, train))


def test_displacement_does_not_reward_collapse(pair):
    held_out, train = pair
    flat, flat_train = np.full_like(held_out, 0.1), np.full_like(train, 0.1)
    assert np.isnan(displacement(flat, flat, flat_train, flat_train))
    assert displacement(flat, held_out, train, train) > 0.5
    assert displacement(held_out, flat, train, flat_train) >= 1
    assert displacement(held_out, held_out, train, flat_train) >= 1
    assert training_drift(train, flat_train) == pytest.approx(1)
    assert np.isnan(training_drift(flat_train, train))


def test_displacement_pads_unequal_widths(pair):
    held_out, train = pair
    wide = [np.hstack([z, np.zeros((len(z), 2))]) for z in (held_out, train)]
    assert_allclose(displacement(held_out, wide[0], train, wide[1]), 0, atol=1e-12)
    assert_allclose(displacement(wide[0], held_out, wide[1], train), 0, atol=1e-12)


def test_procrustes_agrees_with_scipy(rng):
    source, target = rng.normal(size=(50, 5)), rng.normal(size=(50, 5)) + 3
    _, _, disparity = scipy_procrustes(target, source)
    assert_allclose(training_drift(target, source), disparity, atol=1e-6)
    rotation, scale, source_mean, target_mean = procrustes(source, target)
    assert_allclose(rotation @ rotation.T, np.eye(5), atol=1e-12)
    best = np.sum((scale * (source - source_mean) @ rotation + target_mean - target) ** 2)
    for other in (0.9 * scale, 1.1 * scale):
        assert np.sum((other * (source - source_mean) @ rotation + target_mean - target) ** 2) > best


def test_procrustes_of_a_constant_source_sends_everything_to_the_mean(rng):
    target = rng.normal(size=(10, 3))
    rotation, scale, source_mean, target_mean = procrustes(np.full((10, 2), 0.1), target)
    assert scale == 0
    assert_allclose(rotation, np.eye(3))
    assert_allclose(source_mean, [0.1, 0.1, 0])
    assert_allclose(target_mean, target.mean(0))


# neighbour_agreement


def test_neighbour_agreement_agrees_with_scikit_learn(pair, rng):
    held_out, train = pair
    other = rng.normal(size=(4, 3))
    nearest = [
        NearestNeighbors(n_neighbors=15).fit(t).kneighbors(z)[1]
        for z, t in ((held_out, train), (held_out @ other, train @ other))
    ]
    common = [len(set(a) & set(b)) / 15 for a, b in zip(*nearest, strict=True)]
    spaces = held_out, held_out @ other, train, train @ other
    assert_allclose(neighbour_agreement(*spaces), np.mean(common))
    assert two_seeds.agreement_two_seeds(*spaces) == neighbour_agreement(*spaces)


def test_neighbour_agreement_known_answers(pair, rng):
    held_out, train = pair
    rotation = ortho_group.rvs(4, random_state=rng)
    assert neighbour_agreement(held_out, held_out, train, train) == 1
    assert neighbour_agreement(held_out, 3 * held_out @ rotation + 5, train, 3 * train @ rotation + 5) == 1
    # how held-out samples lie among each other is not asked
    flat, flat_train = np.full_like(held_out, 0.1), np.full_like(train, 0.1)
    assert_allclose(neighbour_agreement(held_out, flat, train, flat_train), 15 / len(train))
    assert_allclose(neighbour_agreement(flat, flat, flat_train, flat_train), 15 / len(train))
    assert neighbour_agreement(held_out[:2], held_out[2:4], train[:3], train[:3], k=50) == 1


# knn_recall


def test_knn_recall_agrees_with_scikit_learn(pair, rng):
    held_out, train = pair
    z_held_out, z_train = held_out[:, :2], train[:, :2]
    k = 10
    index = []
    for queries, rest in ((held_out, train), (z_held_out, z_train)):
        everything = np.vstack([queries, rest])
        found = NearestNeighbors(n_neighbors=k + 1).fit(everything).kneighbors(queries)[1]
        index.append([set(row) - {i} for i, row in enumerate(found)])
    expected = np.mean([len(a & b) / k for a, b in zip(*index, strict=True)])
    assert_allclose(knn_recall(held_out, train, z_held_out, z_train, k), expected, atol=1e-6)


def test_knn_recall_of_faithful_codes_is_one(pair, rng):
    held_out, train = pair
    assert knn_recall(held_out, train, held_out, train) == 1
    rotation = ortho_group.rvs(4, random_state=rng)
    assert knn_recall(held_out, train, 3 * held_out @ rotation + 5, 3 * train @ rotation + 5) == 1
    assert knn_recall(held_out, train, held_out[:, ::-1], train[:, ::-1]) == 1


def test_knn_recall_of_duplicated_samples_is_one(pair, rng):
    held_out, train = (np.repeat(z, 2, axis=0) for z in pair)
    rotation = ortho_group.rvs(4, random_state=rng)
    assert_allclose(knn_recall(held_out, train, held_out @ rotation, train @ rotation), 1, atol=1e-12)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6])
def test_knn_recall_of_a_constant_code_is_chance(pair, value):
    held_out, train = pair
    held_out = held_out + 100  # its neighbours are all held out, and contiguous
    flat = [np.full((len(z), 3), value) for z in (held_out, train)]
    assert_allclose(knn_recall(held_out, train, *flat), 15 / 159)


def test_knn_recall_of_permuted_samples_is_near_chance(rng):
    held_out, train = rng.normal(size=(300, 5)), rng.normal(size=(300, 5))
    recall = knn_recall(held_out, train, rng.permutation(held_out), rng.permutation(train))
    assert_allclose(recall, 15 / 599, atol=0.015)


def test_knn_recall_clips_k(rng):
    z = rng.normal(size=(6, 2))
    assert knn_recall(z[:2], z[2:], rng.normal(size=(2, 2)), rng.normal(size=(4, 2)), k=50) == 1


def test_chunks_do_not_change_the_result(pair, monkeypatch):
    held_out, train = pair
    whole = (
        knn_recall(held_out, train, held_out[:, :2], train[:, :2]),
        trustworthiness(train, train[:, :2]),
        distance_spearman(train, train[:, :2]),
    )
    monkeypatch.setattr(embedding, "CHUNK_ENTRIES", 500)
    assert_allclose(knn_recall(held_out, train, held_out[:, :2], train[:, :2]), whole[0])
    assert_allclose(trustworthiness(train, train[:, :2]), whole[1])
    assert_allclose(distance_spearman(train, train[:, :2]), whole[2])


def test_a_frozen_random_projection_is_stable_but_loses_neighbours(rng):
    """Why stability is never read alone."""
    organs = rng.integers(0, 6, size=600)
    programs = rng.normal(size=(600, 8)) * np.linspace(3, 1, 8)
    programs[:, 7] += 3 * rng.normal(size=600) * (organs == 0)  # varies in the held-out organ alone
    expression = programs @ rng.normal(size=(8, 300)) / 2 + rng.normal(size=(600, 300))
    held_out, train = expression[organs == 0], expression[organs != 0]

    frozen = rng.normal(size=(300, 4))
    frozen_codes = (held_out @ frozen, train @ frozen)
    assert_allclose(displacement(frozen_codes[0], frozen_codes[0], frozen_codes[1], frozen_codes[1]), 0, atol=1e-12)
    pca_in, pca_out = PCA(4).fit(expression), PCA(4).fit(train)
    moved = displacement(
        pca_in.transform(held_out), pca_out.transform(held_out), pca_in.transform(train), pca_out.transform(train)
    )
    assert moved > 0.001
    pca_recall = knn_recall(held_out, train, pca_out.transform(held_out), pca_out.transform(train))
    assert knn_recall(held_out, train, *frozen_codes) < pca_recall - 0.1


# trustworthiness, continuity


@pytest.mark.parametrize("k", [1, 5, 15, 39])
def test_trustworthiness_agrees_with_scikit_learn(rng, k):
    reference = rng.normal(size=(80, 10))
    z = reference[:, :2] + 0.1 * rng.normal(size=(80, 2))
    assert_allclose(trustworthiness(reference, z, k), sklearn_trustworthiness(reference, z, n_neighbors=k), atol=1e-6)
    assert_allclose(continuity(reference, z, k), sklearn_trustworthiness(z, reference, n_neighbors=k), atol=1e-6)


@pytest.mark.parametrize("score", [trustworthiness, continuity])
def test_neighbourhoods_of_faithful_codes_are_kept(rng, score):
    x = rng.normal(size=(60, 4))
    assert score(x, x) == 1
    assert score(x, similar(x, rng)) == 1
    assert score(x, x[:, ::-1]) == 1
    # Groups of 4 duplicates: a sample's 15 nearest are its 3 twins and 3 whole groups.
    assert score(np.repeat(x, 4, axis=0), np.repeat(similar(x, rng), 4, axis=0)) == 1


@pytest.mark.parametrize("score", [trustworthiness, continuity])
def test_neighbourhoods_of_a_constant_code_are_chance(rng, score):
    n, k = 60, 15
    x = rng.normal(size=(n, 4))
    chance = 1 - (n - 1 - k) * (n - k) / ((n - 1) * (2 * n - 3 * k - 1))
    assert_allclose(score(x, np.full((n, 2), 0.1)), chance)
    permuted = [score(x, rng.permutation(x)) for _ in range(20)]
    assert_allclose(np.mean(permuted), chance, atol=0.02)


def test_merged_and_torn_neighbourhoods_are_told_apart(rng):
    line = np.linspace(0, 1, 101)[:, None]
    folded = np.abs(line - 0.503)  # merges far samples
    torn = line + 10 * (line > 0.503)
    shuffled = np.hstack([line, np.arange(101)[:, None] % 2 * 100])
    assert trustworthiness(line, folded, 4) < 0.8 < continuity(line, folded, 4)
    assert continuity(line, torn, 4) < 1
    assert trustworthiness(line, shuffled, 4) > continuity(line, shuffled, 4)


def test_trustworthiness_clips_k_below_half(rng):
    x, z = rng.normal(size=(21, 4)), rng.normal(size=(21, 2))
    assert trustworthiness(x, z, k=50) == trustworthiness(x, z, k=10)


# distance_spearman


def test_distance_spearman_agrees_with_scipy(rng):
    x = rng.normal(size=(50, 6))
    z = x[:, :2]
    assert_allclose(distance_spearman(x, z), spearmanr(pdist(x), pdist(z)).statistic, atol=1e-6)


def test_distance_spearman_known_answers(rng):
    x = rng.normal(size=(200, 4))
    assert_allclose(distance_spearman(x, x), 1)
    assert_allclose(distance_spearman(x, similar(x, rng)), 1, atol=1e-6)
    assert_allclose(distance_spearman(np.repeat(x, 2, axis=0), np.repeat(x, 2, axis=0)), 1)
    assert distance_spearman(x, np.full((200, 2), 0.1)) == 0
    assert_allclose(distance_spearman(x, rng.permutation(x)), 0, atol=0.1)


def test_distance_spearman_subsamples_deterministically(rng, monkeypatch):
    monkeypatch.setattr(embedding, "MAX_PAIRWISE", 100)
    x = rng.normal(size=(300, 4))
    z = x[:, :2]
    assert distance_spearman(x, z) == distance_spearman(x, z)
    assert_allclose(distance_spearman(x, z), spearmanr(pdist(x), pdist(z)).statistic, atol=0.1)


# reconstruction_error


def test_reconstruction_error_known_answers(rng):
    x = rng.normal(size=(100, 8)) + 3
    assert reconstruction_error(x, x) == 0
    assert_allclose(reconstruction_error(x, np.tile(x.mean(0), (100, 1))), 1)
    noisy = x + 0.1
    assert_allclose(reconstruction_error(np.vstack([x, x]), np.vstack([noisy, noisy])), reconstruction_error(x, noisy))
    assert 1.5 < reconstruction_error(x, rng.permutation(x)) < 2.5
    assert np.isnan(reconstruction_error(np.full((5, 3), 0.1), np.zeros((5, 3))))
    pca = PCA(3).fit(x)
    assert_allclose(
        reconstruction_error(x, pca.inverse_transform(pca.transform(x))), 1 - pca.explained_variance_ratio_.sum()
    )


# label_transfer


def test_label_transfer_agrees_with_scikit_learn(rng):
    labels, held_out_labels = rng.integers(0, 2, 200), rng.integers(0, 2, 80)
    train, held_out = rng.normal(size=(200, 3)) + labels[:, None], rng.normal(size=(80, 3)) + held_out_labels[:, None]
    expected = balanced_accuracy_score(held_out_labels, KNeighborsClassifier(15).fit(train, labels).predict(held_out))
    assert_allclose(label_transfer(train, labels, held_out, held_out_labels), expected, atol=1e-6)


def test_label_transfer_known_answers(rng):
    names = np.array(["a", "b", "c", "d"])
    labels, held_out_labels = names[np.repeat(range(4), 50)], names[np.repeat(range(4), 10)]
    centres = 20 * np.eye(4)
    train = np.repeat(centres, 50, axis=0) + rng.normal(size=(200, 4))
    held_out = np.repeat(centres, 10, axis=0) + rng.normal(size=(40, 4))
    assert label_transfer(train, labels, held_out, held_out_labels) == 1
    rotation = ortho_group.rvs(4, random_state=rng)
    assert label_transfer(train @ rotation, labels, held_out @ rotation, held_out_labels) == 1
    twice = [np.repeat(values, 2, axis=0) for values in (train, labels, held_out, held_out_labels)]
    assert label_transfer(*twice) == 1
    # Four labels of equal size tie everywhere: chance, whatever the order.
    flat = label_transfer(np.full((200, 2), 0.1), labels, np.full((40, 2), 0.1), held_out_labels)
    assert_allclose(flat, 0.25)
    assert_allclose(label_transfer(train, rng.permutation(labels), held_out, held_out_labels), 0.25, atol=0.25)


def test_label_transfer_of_a_constant_code_names_the_most_frequent_label():
    labels = np.array(["rare", "common", "common"])
    assert label_transfer(np.zeros((3, 2)), labels, np.zeros((2, 2)), np.array(["rare", "common"]), k=1) == 0.5


def test_label_transfer_counts_an_unseen_label_as_wrong(rng):
    train = rng.normal(size=(20, 2))
    score = label_transfer(train, np.array(["a"] * 20), train, np.array(["a"] * 10 + ["new"] * 10))
    assert score == 0.5


# ood_distance


def test_ood_distance_agrees_with_all_pairs(rng):
    x = rng.normal(size=(200, 4))
    new = rng.normal(size=(30, 4)) + 2
    among = np.sort(np.linalg.norm(x[:, None] - x[None], axis=-1), axis=1)[:, 5]  # the first is the sample itself
    to_new = np.sort(np.linalg.norm(new[:, None] - x[None], axis=-1), axis=1)[:, 4]
    assert_allclose(ood_distance(new, x, k=5), np.median(to_new) / np.median(among), rtol=1e-6)


def test_ood_distance_known_answers(rng):
    x = rng.normal(size=(200, 4))
    # a unit apart on a line the 2nd neighbour of most points is 1 away; that of a point 10 beyond the last is 11 away
    line = np.arange(9.0)[:, None]
    assert ood_distance([[18.0]], line, k=2) == pytest.approx(11)
    draws = rng.normal(size=(2000, 3))
    assert ood_distance(draws[:1000], draws[1000:]) == pytest.approx(1, abs=0.05)
    far = [ood_distance(x + shift * np.eye(4)[0], x) for shift in (0, 5, 10, 20)]
    assert (np.diff(far) > 0).all()
    assert_allclose(ood_distance(3 * x + 22, 3 * x + 2), ood_distance(x + 20 / 3, x), rtol=1e-6)  # no unit


def test_ood_distance_is_not_defined_among_duplicates_and_refuses_nothing(rng):
    x = rng.normal(size=(200, 4))
    assert np.isnan(ood_distance(x, np.ones((20, 4))))
    with pytest.raises(ValueError, match="n_training must be at least 2"):
        ood_distance(x, x[:1])
    with pytest.raises(ValueError, match="k is 0"):
        ood_distance(x, x, k=0)
    with pytest.raises(ValueError, match="held_out has shape"):
        ood_distance(x[:0], x)
    with pytest.raises(ValueError, match="n_features is 4, but 2 in held_out"):
        ood_distance(x[:, :2], x)


# errors


def test_errors_quote_what_was_got(rng):
    z = rng.normal(size=(5, 2))
    with pytest.raises(ValueError, match=r"z_out has shape \(4, 2\); n_held_out is 4, but 5 in z_in"):
        displacement(z, z[:4], z, z)
    with pytest.raises(ValueError, match=r"z_in has shape \(5,\)"):
        displacement(z[:, 0], z, z, z)
    with pytest.raises(ValueError, match="1 of 10 values"):
        reconstruction_error(z, np.where(z == z[0, 0], np.nan, z))
    with pytest.raises(ValueError, match="k is 0"):
        knn_recall(z, z, z, z, k=0)
    with pytest.raises(ValueError, match="n_samples must be at least 3"):
        trustworthiness(z[:2], z[:2])
    with pytest.raises(ValueError, match="n_samples must be at least 3"):
        distance_spearman(z[:2], z[:2])
    with pytest.raises(ValueError, match="n_train is 4, but 5 in z_train"):
        label_transfer(z, np.zeros(4), z, np.zeros(5))
