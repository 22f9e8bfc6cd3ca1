import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from metrics import METRICS
from metrics.fate import N_NEIGHBOURS, PENALTIES, PSEUDOCOUNTS, clone_probabilities

NAMES = ("fate_skill", "fate_auroc", "fate_skill_knn", "fate_auroc_knn")
SKILLS = [name for name in NAMES if "skill" in name]
AUROCS = [name for name in NAMES if "auroc" in name]
N_TRAIN, N = 120, 60


def cells(rng, n_clones, first, separation, n_latent=4):
    """Codes, fates and clones of clones of 1 to 4 cells; the first three latents hold the three fates."""
    fate = rng.choice(3, n_clones, p=[0.5, 0.3, 0.2])
    clone = np.repeat(np.arange(n_clones), rng.integers(1, 5, n_clones))
    codes = rng.standard_normal((len(clone), n_latent))
    codes[np.arange(len(clone)), fate[clone]] += separation
    return codes, np.array(["a", "b", "c"])[fate[clone]], first + clone


def both_sides(seed=0, separation=3.0):
    rng = np.random.default_rng(seed)
    return [*cells(rng, N_TRAIN, 0, separation), *cells(rng, N, N_TRAIN, separation)]


def by_clone(values, clones):
    return np.stack([values[clones == clone].mean(axis=0) for clone in np.unique(clones)])


# independent implementations


@pytest.mark.parametrize("probe", ["linear", "knn"])
def test_scores_agree_with_scikit_learn_at_the_chosen_strength(probe):
    codes, fates, clones, queries, own, asked = both_sides(separation=1.5)
    weights = 1 / np.array([(clones == clone).sum() for clone in clones])
    one_each = np.unique(clones, return_index=True)[1]
    base = np.array([(fates[one_each] == fate).mean() for fate in "abc"])
    truth = own[np.unique(asked, return_index=True)[1]]
    found, rates, index = clone_probabilities(probe, codes, fates, clones, queries, own, asked)
    assert_allclose(rates, base)
    np.testing.assert_array_equal(np.array(list("abc"))[index], truth)
    candidates = []
    for strength in PENALTIES if probe == "linear" else PSEUDOCOUNTS:
        if probe == "linear":
            scale = StandardScaler().fit(codes)
            model = LogisticRegression(C=strength, max_iter=1000)
            model.fit(scale.transform(codes), fates, sample_weight=weights)
            cellwise = model.predict_proba(scale.transform(queries))
        else:
            near = KNeighborsClassifier(N_NEIGHBOURS).fit(codes, fates).kneighbors(queries, return_distance=False)
            votes = np.stack([(weights[near] * (fates[near] == fate)).sum(axis=1) for fate in "abc"], axis=1)
            cellwise = (votes + strength * base) / (weights[near].sum(axis=1, keepdims=True) + strength)
        candidates.append(by_clone(cellwise, asked))
    errors = [np.abs(found - candidate).max() for candidate in candidates]
    assert min(errors) < 1e-8
    suffix = "" if probe == "linear" else "_knn"
    arguments = (codes, fates, clones, queries, own, asked)
    expected = 1 - log_loss(truth, found) / log_loss(truth, np.tile(base, (len(truth), 1)))
    assert_allclose(METRICS[f"fate_skill{suffix}"](*arguments), expected, atol=1e-8)
    expected = roc_auc_score(truth, found, multi_class="ovr", average="macro")
    assert_allclose(METRICS[f"fate_auroc{suffix}"](*arguments), expected, atol=1e-8)


# known answers


@pytest.mark.parametrize("name", NAMES)
def test_an_ideal_code_is_nearly_perfect_and_duplicates_change_little(name):
    arguments = both_sides(separation=12.0)
    score = METRICS[name](*arguments)
    assert score > (0.9 if name in SKILLS else 0.999)
    doubled = [np.hstack([a, a]) if i in (0, 3) else a for i, a in enumerate(arguments)]
    assert METRICS[name](*doubled) == pytest.approx(score, abs=0.05)


@pytest.mark.parametrize("name", NAMES)
def test_a_code_that_knows_nothing_scores_chance(name):
    scores = [METRICS[name](*both_sides(seed, separation=0.0)) for seed in range(8)]
    # shrinking to the base rates is what keeps the skill from falling below zero
    low, high = (-0.04, 0.02) if name in SKILLS else (0.43, 0.57)
    assert low < np.mean(scores) < high
    rng = np.random.default_rng(0)
    permuted = []
    for seed in range(8):
        codes, fates, clones, queries, own, asked = both_sides(seed)
        permuted.append(METRICS[name](codes, fates, clones, rng.permutation(queries), own, asked))
    if name in AUROCS:
        assert 0.43 < np.mean(permuted) < 0.57
    else:  # sure of itself, and wrong
        assert np.mean(permuted) < -0.3


def test_a_constant_code_gives_the_base_rates():
    arguments = both_sides()
    constant = [np.full_like(a, 0.1) if i in (0, 3) else a for i, a in enumerate(arguments)]
    assert METRICS["fate_skill"](*constant) == pytest.approx(0.0, abs=1e-4)
    assert METRICS["fate_auroc"](*constant) == pytest.approx(0.5, abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_labels_can_be_renamed_and_cells_shuffled(name):
    codes, fates, clones, queries, own, asked = both_sides(separation=2.0)
    score = METRICS[name](codes, fates, clones, queries, own, asked)
    order = np.random.default_rng(1).permutation(len(codes))
    shuffled = METRICS[name](codes[order], fates[order], clones[order], queries, own, asked)
    assert shuffled == pytest.approx(score, abs=1e-3)
    renamed = METRICS[name](codes, np.char.add("x", fates), clones, queries, np.char.add("x", own), asked)
    assert renamed == pytest.approx(score, abs=1e-9)


def test_every_clone_weighs_the_same():
    """A scored clone whose cells are there ten times over is still one clone."""
    codes, fates, clones, queries, own, asked = both_sides(separation=1.0)
    again = np.concatenate([np.arange(len(asked)), np.repeat(np.flatnonzero(asked == asked[0]), 9)])
    for name in NAMES:
        once = METRICS[name](codes, fates, clones, queries, own, asked)
        assert METRICS[name](codes, fates, clones, queries[again], own[again], asked[again]) == pytest.approx(once)


def test_the_linear_probe_reads_a_direction_of_small_variance_and_the_knn_probe_does_not():
    arguments = both_sides(separation=3.0)
    noise = np.random.default_rng(2)
    buried = [
        np.hstack([a, 50 * noise.standard_normal((len(a), 10))]) if i in (0, 3) else a for i, a in enumerate(arguments)
    ]
    assert METRICS["fate_auroc"](*buried) > 0.9
    assert METRICS["fate_auroc_knn"](*buried) < 0.65


# edges


def test_what_is_undefined_is_nan():
    codes, fates, clones, queries, own, asked = both_sides()
    one = fates == "a"
    assert np.isnan(METRICS["fate_skill"](codes[one], fates[one], clones[one], queries, own, asked))
    only = own == "a"
    assert np.isnan(METRICS["fate_auroc"](codes, fates, clones, queries[only], own[only], asked[only]))
    strange = np.full(len(own), "d")
    assert np.isnan(METRICS["fate_skill"](codes, fates, clones, queries, strange, asked))
    # a fate that training lacks is left out
    some = np.where(own == "c", "d", own)
    kept = own != "c"
    left = METRICS["fate_skill"](codes, fates, clones, queries[kept], own[kept], asked[kept])
    assert METRICS["fate_skill"](codes, fates, clones, queries, some, asked) == pytest.approx(left)


@pytest.mark.parametrize("name", NAMES)
def test_errors_quote_what_was_got(name):
    score = METRICS[name]
    codes, fates, clones, queries, own, asked = both_sides()
    with pytest.raises(ValueError, match=r"1 clones are fitted and scored, such as 0"):
        score(codes, fates, clones, queries, own, np.where(asked == asked[0], 0, asked))
    broken = fates.copy()
    broken[np.flatnonzero(np.bincount(clones)[clones] > 1)[0]] = "z"
    with pytest.raises(ValueError, match=r"1 train clones have two fates"):
        score(codes, broken, clones, queries, own, asked)
    with pytest.raises(ValueError, match=r"fate 'z' has 1 training clone"):
        score(codes, np.where(clones == 0, "z", fates), clones, queries, own, asked)
    with pytest.raises(ValueError, match=r"fates has shape \(3,\); n_cells is 3, but"):
        score(codes, fates, clones, queries, own[:3], asked)
    with pytest.raises(ValueError, match="NaN or infinite"):
        score(np.where(codes == codes[0, 0], np.nan, codes), fates, clones, queries, own, asked)
    with pytest.raises(ValueError, match="n_latent is 4, but 2 in train_codes"):
        score(codes[:, :2], fates, clones, queries, own, asked)
