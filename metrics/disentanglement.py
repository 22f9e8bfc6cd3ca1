"""Metrics of disentanglement: is each known factor held by one code, and each code by one factor?

Three properties, which no single number covers: *modularity* (a code holds one factor: ``dci_disentanglement``,
``modularity``, ``infom``), *compactness* (a factor sits in one code: ``mig``, ``sap``, ``dci_completeness``,
``infoc``) and *explicitness* (the factors can be read off: ``dci_informativeness``, ``explicitness``, ``infoe``).

One rule throughout: a variable with at most ``MAX_LEVELS`` distinct values is discrete and used as it is; any
other is continuous and, where levels are needed, cut into ``MAX_LEVELS`` bins of equal frequency. So only ``irs``
depends on the scale of a code. Factors that are constant are left out; if all are, the score is not
a number. Information is in nats and plug-in; over B × B' bins it is about (B - 1)(B' - 1) / 2n too high.
"""

from __future__ import annotations

import warnings
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from metrics.arrays import (
    MAX_LEVELS,
    RESOLUTION,
    Floats,
    adjusted_accuracy,
    halves,
    is_discrete,
    r2,
    standardised,
)
from metrics.base import family, metric, share

Levels = NDArray[np.int64]
Codes = Annotated[Floats, "n_samples n_latent"]
Factors = Annotated[Floats, "n_samples n_factors"]

MAX_SAMPLES = 4_000
"""Samples beyond which ``dci`` takes a subsample: half of them to fit on, half to score on."""
N_SHUFFLES = 20
"""Shuffles of the samples that say how much information independent variables would seem to share."""
SIGNIFICANT = 4.0
"""Standard deviations over the shuffles' mean beyond which information is no chance."""
IRS_QUANTILE = 0.99
"""The quantile of deviations that stands for their maximum, as in the authors' code."""
WEAK_PENALTY = 1e4
"""Inverse strength C of the logistic regressions' penalty: there only to keep separable classes finite."""
BETA_VOTES, BETA_PAIRS = 1_000, 64
"""Votes that ``beta_vae_score`` fits on, as many that it scores on, and pairs of samples in a vote."""
FACTOR_VOTES, FACTOR_GROUP = 800, 64
"""Votes that ``factor_vae_score`` fits on, as many that it scores on, and most samples in a group."""

_DCI = "Eastwood & Williams (2018), ICLR; gradient boosting, impurity importances"
_MODULARITY = "Ridgeway & Mozer (2018), NeurIPS 31"
_INFOMEC = "Hsu et al. (2023), NeurIPS 36, Disentanglement via Latent Quantization"


# helpers


def discretise(values: Floats) -> Levels:
    """Turn every column into levels 0, 1, ...

    A discrete column (see the module) keeps its levels. Any other is cut at its ``MAX_LEVELS``-quantiles; equal values
    always share a bin. A column that is constant up to single precision has one level.

    Parameters
    ----------
    values
        Finite numbers, (n_samples, n_columns).

    Returns
    -------
    levels
        (n_samples, n_columns).
    """
    levels = np.zeros(values.shape, dtype=np.int64)
    for i in np.flatnonzero(_varies(values)):
        column = values[:, i]
        if is_discrete(column):
            levels[:, i] = np.unique(column, return_inverse=True)[1]
        else:
            edges = np.unique(np.quantile(column, np.arange(1, MAX_LEVELS) / MAX_LEVELS))
            levels[:, i] = np.searchsorted(edges, column, side="right")
    return levels


@family(
    dci_disentanglement=share(_DCI, "Whether each code is used to predict one factor: DCI's D."),
    dci_completeness=share(_DCI, "Whether each factor is predicted from one code: DCI's C."),
    dci_informativeness=share(_DCI, "How well the factors are predicted from all codes together: DCI's I, as a score."),
)
def dci(codes: Codes, factors: Factors, seed: int = 0) -> dict[str, float]:
    """Compute the three DCI scores from one set of fits.

    For each factor j gradient boosting predicts it from all codes, on a random half of at most ``MAX_SAMPLES``
    samples: a classifier if the factor is discrete, a regressor if continuous (scikit-learn's, 100 stages of depth 3,
    rate .1, as disentanglement_lib). Its impurity importances (``feature_importances_``, which sum to 1) are column j
    of R, (n_latent, n_factors).

    - disentanglement: ``Σ_i ρ_i (1 - H(P_i) / log n_factors)``, ``P_ij = R_ij / Σ_j R_ij``, ``ρ_i = Σ_j R_ij / Σ R``
    - completeness: ``mean_j (1 - H(Q_j) / log n_latent)``, ``Q_ij = R_ij / Σ_i R_ij`` (one latent: as if two)
    - informativeness: mean over factors of the score on the other half, R² or chance-adjusted balanced
      accuracy, at least 0

    The scores depend on the learner as much as on the code: never compare them with those of another learner. A factor
    that cannot be predicted has importances all the same, of noise: read the first two with the third. A code with two
    copies of each of m latents loses log 2 / log 2m of the completeness.

    Parameters
    ----------
    codes, factors
        The same samples' codes and factors, (n_samples, n_latent), (n_samples, n_factors).
    seed
        Seed of the subsample, the split and the learner.

    Returns
    -------
    scores
        By name. A constant code has 0 in all three; disentanglement is not a number for a single factor.

    Raises
    ------
    ValueError
        If the samples differ in number or are fewer than 4, or values are not finite.
    """
    from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor

    factors = _varying(factors)
    if not factors.shape[1]:
        return dict.fromkeys(("dci_disentanglement", "dci_completeness", "dci_informativeness"), float("nan"))
    fit, score = halves(len(codes), seed)
    fit, score = fit[: MAX_SAMPLES // 2], score[: MAX_SAMPLES // 2]
    importance = np.zeros((codes.shape[1], factors.shape[1]))
    held_out = np.zeros(factors.shape[1])
    for j, column in enumerate(factors.T):
        discrete = is_discrete(column)
        if not _varies(column[fit, None])[0]:  # nothing to learn
            continue
        boosting = GradientBoostingClassifier if discrete else GradientBoostingRegressor
        model = boosting(n_estimators=100, max_depth=3, learning_rate=0.1, random_state=seed)
        model.fit(codes[fit], column[fit])
        importance[:, j] = model.feature_importances_
        held_out[j] = _clipped((adjusted_accuracy if discrete else r2)(column[score], model.predict(codes[score])))
    weight = importance.sum(axis=1)
    disentanglement = float("nan")
    if factors.shape[1] > 1:
        certainty = 1.0 - _entropies(importance.T) / np.log(factors.shape[1])
        disentanglement = float(certainty @ weight / weight.sum()) if weight.any() else 0.0
    certainty = 1.0 - _entropies(importance) / np.log(max(2, len(weight)))
    return {
        "dci_disentanglement": disentanglement,
        "dci_completeness": float(np.mean(certainty * importance.any(axis=0))),
        "dci_informativeness": float(held_out.mean()),
    }


# compactness


@metric(better="higher", low=0.0, high=1.0, paper="Chen et al. (2018), NeurIPS 31, β-TCVAE; equal-frequency bins")
def mig(codes: Codes, factors: Factors) -> float:
    """Mutual information gap: how far the best code for a factor is ahead of the second best.

    ``mean_j (I(z_(1); f_j) - I(z_(2); f_j)) / H(f_j)``, with (1) and (2) the two codes that share most with
    factor j; the second of a single code is 0. Plug-in information of equal-frequency bins (disentanglement_lib
    has bins of equal width). 1: each factor in one code that knows all of it; 0: a constant code, or each factor
    in two codes alike (so a duplicated code, however pure). Blind to a code that holds several factors.

    Parameters
    ----------
    codes, factors
        The same samples' codes and factors, (n_samples, n_latent), (n_samples, n_factors).

    Raises
    ------
    ValueError
        If the samples differ in number, or values are not finite.
    """
    z, f = codes, _varying(factors)
    if not f.shape[1]:
        return float("nan")
    levels = discretise(f)
    return float(np.mean(_gap(_information(discretise(z), levels)) / _level_entropies(levels)))


@metric(
    better="higher",
    low=0.0,
    high=1.0,
    paper="Kumar et al. (2018), ICLR, DIP-VAE, SAP score; held out and chance-adjusted",
)
def sap(codes: Codes, factors: Factors, seed: int = 0) -> float:
    """Separated attribute predictability: by how much one code predicts a factor better than any other.

    ``mean_j (S_(1)j - S_(2)j)``, with (1) and (2) the two codes that alone predict factor j best; the second of
    a single code is 0. ``S_ij``, fitted on a random half of the samples and scored on the other, is at least 0:

    - continuous factor: R² of the regression line on code i;
    - discrete factor: balanced accuracy of thresholds on code i (a decision tree with as many leaves as
      levels), chance-adjusted. The paper's is not, so that its best is 1 - 1/levels.

    1: each factor in one code; 0: a constant code, or each factor in two codes alike.

    Parameters
    ----------
    codes, factors
        The same samples' codes and factors, (n_samples, n_latent), (n_samples, n_factors).
    seed
        Seed of the split into halves.

    Raises
    ------
    ValueError
        If the samples differ in number or are fewer than 4, or values are not finite.
    """
    z, f = codes, _varying(factors)
    if not f.shape[1]:
        return float("nan")
    z = standardised(z)
    fit, score = halves(len(z), seed)
    scores = np.zeros((z.shape[1], f.shape[1]))
    for j, column in enumerate(f.T):
        if len(np.unique(column[fit])) < 2:
            continue
        predict, measure = (_by_thresholds, adjusted_accuracy) if is_discrete(column) else (_by_lines, r2)
        predicted = predict(z[fit], column[fit], z[score])
        scores[:, j] = [_clipped(measure(column[score], by_code)) for by_code in predicted.T]
    return float(np.mean(_gap(scores)))


def _by_lines(z: Floats, column: Floats, at: Floats) -> Floats:
    """What the regression line on each code alone predicts, (n_at, n_latent); on a constant code the mean."""
    centred = z - z.mean(axis=0)
    size = np.sum(centred**2, axis=0)
    slopes = np.divide(centred.T @ (column - column.mean()), size, out=np.zeros_like(size), where=size > 0)
    return np.asarray(column.mean() + (at - z.mean(axis=0)) * slopes)


def _by_thresholds(z: Floats, column: Floats, at: Floats) -> Floats:
    """What a decision tree on each code alone predicts, with levels weighted alike and a leaf for each.

    Hundreds of trees are grown for one score, and scikit-learn's checks of its input take longer than the trees: it is
    handed what it would make of it, weights and single precision.
    """
    from sklearn.tree import DecisionTreeClassifier
    from sklearn.utils.class_weight import compute_sample_weight

    weights = compute_sample_weight("balanced", column)
    tree = DecisionTreeClassifier(max_leaf_nodes=len(np.unique(column)), random_state=0)
    predicted = np.empty_like(at)
    for i, (x, x_at) in enumerate(zip(z.T.astype(np.float32), at.T.astype(np.float32), strict=True)):
        tree.fit(x[:, None], column, sample_weight=weights, check_input=False)
        predicted[:, i] = tree.predict(x_at[:, None], check_input=False)
    return predicted


# modularity and compactness from information


@family(
    modularity=share(
        f"{_MODULARITY}; chance-corrected information", "Whether each code shares information with one factor only."
    ),
    infom=share(
        f"{_INFOMEC}; chance-corrected plug-in information",
        "InfoModularity: the share of a code's information that is about one factor.",
    ),
    infoc=share(
        f"{_INFOMEC}; chance-corrected plug-in information",
        "InfoCompactness: the share of a factor's information that sits in one code.",
    ),
)
def concentration(codes: Codes, factors: Factors, seed: int = 0) -> dict[str, float]:
    """Compute how concentrated the information is that codes and factors share beyond chance.

    I_ij is the information of code i with factor j in nats, Ī_ij its mean over ``N_SHUFFLES`` shuffles of the samples.
    Information counts as 0 unless it is ``SIGNIFICANT`` standard deviations of the shuffles above their mean.
    ``U_ij = (I_ij - Ī_ij) / (H(f_j) - Ī_ij)`` is the share of the entropy of factor j that code i knows.

    - ``modularity``: ``mean_i (1 - Σ_{j≠m} (I_ij - Ī_ij)² / ((n_factors - 1) (I_im - Ī_im)²))``, m the factor that code
      i shares most with. Uncorrected, as published, a code of pure noise is nearly perfect where factors differ in
      levels, because the bias of I grows with them. A code that informs no factor counts 0, so surplus codes cost.
    - ``infom``: ``mean_i (max_j U_ij / Σ_j U_ij - 1/n_factors) / (1 - 1/n_factors)`` over the codes that inform any
      factor; 0 if none does.
    - ``infoc``: ``mean_j (max_i U_ij / Σ_i U_ij - 1/d) / (1 - 1/d)`` over factors, d the number of codes that inform
      any factor (at least 2). A factor that no code informs counts 0. Blind to *how much* is known: read it with
      ``infoe``.

    The paper of the last two estimates I by nearest neighbours, takes ``I / H``, and leaves out codes with a range
    under 1/20 of the widest, which depends on scale. A constant code has 0 in all three.

    Parameters
    ----------
    codes, factors
        The same samples' codes and factors, (n_samples, n_latent), (n_samples, n_factors).
    seed
        Seed of the shuffles.

    Returns
    -------
    scores
        By name. ``modularity`` and ``infom`` are not numbers for a single factor.

    Raises
    ------
    ValueError
        If the samples differ in number, or values are not finite.
    """
    f = _varying(factors)
    scores = dict.fromkeys(("modularity", "infom", "infoc"), float("nan"))
    if not f.shape[1]:
        return scores
    beyond, shared = _beyond_chance(codes, f, seed)
    informs = shared.any(axis=1)
    scores["infoc"] = float(np.mean(_concentration(shared, max(2, int(informs.sum())))))
    if f.shape[1] > 1:
        squared = beyond**2
        best = squared.max(axis=1)
        spill = (squared.sum(axis=1) - best) / ((f.shape[1] - 1) * np.where(best > 0, best, 1.0))
        scores["modularity"] = float(np.mean(np.where(best > 0, 1.0 - spill, 0.0)))
        scores["infom"] = float(np.mean(_concentration(shared[informs].T, f.shape[1]))) if informs.any() else 0.0
    return scores


# explicitness


@family(
    explicitness=share(
        f"{_MODULARITY}; held out, one multinomial model",
        "How well a linear classifier on all codes tells the levels of the factors apart.",
    ),
    infoe=share(
        f"{_INFOMEC}; held out",
        "InfoExplicitness: the share of the factors' uncertainty that a linear model of all codes removes.",
    ),
)
def linear_readout(codes: Codes, factors: Factors, seed: int = 0) -> dict[str, float]:
    """Compute how well linear models of all codes predict the factors.

    Models are fitted on a random half of the samples and scored on the other. The classifier is a multinomial logistic
    regression on standardised codes; levels that a half lacks are left out.

    - ``explicitness``: ``mean_j mean_c (2 AUC_jc - 1)``, at least 0, over factors j and their levels c: the area under
      the ROC curve with which the probability of level c ranks the samples of level c above the rest. The paper fits
      one regression against the rest for each level, which cannot single out a middle level of an ordered factor even
      from the factor itself.
    - ``infoe``: ``mean_j (H(f_j) - H(f_j | z)) / H(f_j)``, at least 0 each: predictive information within a family of
      models. For a discrete factor, the cross-entropy of the classifier against that of the levels' frequencies (the
      paper's, but scored on held-out samples and with no class weights). For a continuous factor, the squared error of
      linear least squares against that of the mean: this is R², the same quantity for Gaussians of fixed variance (Xu
      et al. 2020, ICLR). The paper has discrete factors only.

    0 for a constant code. Blind to rotation.

    Parameters
    ----------
    codes, factors
        The same samples' codes and factors, (n_samples, n_latent), (n_samples, n_factors).
    seed
        Seed of the split into halves.

    Returns
    -------
    scores
        By name; not a number if all factors are constant.

    Raises
    ------
    ValueError
        If the samples differ in number or are fewer than 4, or values are not finite.
    """
    from sklearn.linear_model import LinearRegression
    from sklearn.metrics import roc_auc_score

    z, f = standardised(codes), _varying(factors)
    fit, score = halves(len(z), seed)
    separated, removed = [], []
    for column, levels in zip(f.T, discretise(f).T, strict=True) if f.shape[1] else ():
        truth = levels[score]
        names, probabilities = _probabilities(z[fit], levels[fit], z[score])
        areas = [
            roc_auc_score(truth == name, probability)
            for name, probability in zip(names, probabilities.T, strict=True)
            if 0 < np.sum(truth == name) < len(truth)
        ]
        if areas:
            separated.append(2.0 * float(np.mean(areas)) - 1.0)
        if not is_discrete(column):
            predicted = LinearRegression().fit(z[fit], column[fit]).predict(z[score])
            removed.append(_clipped(r2(column[score], predicted)))
            continue
        fitted = np.isin(truth, names)
        place = np.searchsorted(names, truth[fitted])
        frequency = np.array([np.mean(levels[fit] == name) for name in names])
        before = -np.mean(np.log(frequency[place])) if fitted.any() else 0.0
        after = -np.mean(np.log(np.maximum(probabilities[fitted, place], 1e-300))) if fitted.any() else 0.0
        removed.append(_clipped(1.0 - after / before) if before > 0 else 0.0)
    return {
        "explicitness": _clipped(float(np.mean(separated))) if separated else float("nan"),
        "infoe": float(np.mean(removed)) if removed else float("nan"),
    }


# interventions


@metric(better="higher", low=0.0, high=1.0, paper="Higgins et al. (2017), ICLR, β-VAE; pairs from a finite set")
def beta_vae_score(codes: Codes, factors: Factors, seed: int = 0) -> float:
    """Accuracy with which a linear classifier tells which factor pairs of samples share.

    One vote: for a factor, all factors having equally many votes, ``BETA_PAIRS`` pairs of different samples are drawn
    that agree on it (each pair on another value); the mean over pairs of ``|z - z'|`` is the input, the
    factor the label. A logistic regression is fitted on ``BETA_VOTES`` votes and scored on as many others. Codes are
    standardised first (the paper's are not).

    Chance is 1 / n_factors, which is what a constant code scores. Easily at 1: it only asks that some
    linear map of the codes tells the factors apart, and a rotated code may do. Values that a single sample
    has are not drawn. Not a number for a single factor.

    Parameters
    ----------
    codes, factors
        The same samples' codes and factors, (n_samples, n_latent), (n_samples, n_factors).
    seed
        Seed of the draws.

    Raises
    ------
    ValueError
        If the samples differ in number, or values are not finite.
    """
    z, f = codes, _varying(factors)
    groups = _groups(f)
    if len(groups) < 2:
        return float("nan")
    z = standardised(z)
    rng = np.random.default_rng(seed)
    label = np.tile(np.arange(len(groups)), -(-2 * BETA_VOTES // len(groups)))[: 2 * BETA_VOTES]
    rng.shuffle(label)
    features = np.zeros((2 * BETA_VOTES, z.shape[1]))
    for j, (members, start, size) in enumerate(groups):
        votes = np.flatnonzero(label == j)
        anchor = rng.integers(len(members), size=(len(votes), BETA_PAIRS))
        # Another place of the same group: places from the anchor's on move up by one.
        other = start[anchor] + rng.integers(size[anchor] - 1)
        other += other >= anchor
        features[votes] = np.abs(z[members[anchor]] - z[members[other]]).mean(axis=1)
    features = standardised(features)
    names, probabilities = _probabilities(features[:BETA_VOTES], label[:BETA_VOTES], features[BETA_VOTES:])
    return float(np.mean(names[probabilities.argmax(axis=1)] == label[BETA_VOTES:]))


@metric(better="higher", low=0.0, high=1.0, paper="Kim & Mnih (2018), ICML, FactorVAE; groups from a finite set")
def factor_vae_score(codes: Codes, factors: Factors, seed: int = 0) -> float:
    """Accuracy with which the steadiest code in a group of samples tells which factor they share.

    One vote: for a factor, taken in turn, one of its values is drawn (that of a random sample, so that frequent
    values come more often) and up to ``FACTOR_GROUP`` of the samples that have it; the code whose variance in the
    group is the smallest share of its variance over all samples is the input, the factor the label. The
    majority label of each code, from ``FACTOR_VOTES`` votes, is scored on as many others.

    Chance is about 1 / n_factors. A constant code is never the steadiest; 0 if all are constant. Blind to
    duplicated codes and to what else a code holds. Values that a single sample has are not drawn. Not a
    number for a single factor.

    Parameters
    ----------
    codes, factors
        The same samples' codes and factors, (n_samples, n_latent), (n_samples, n_factors).
    seed
        Seed of the draws.

    Raises
    ------
    ValueError
        If the samples differ in number, or values are not finite.
    """
    z, f = codes, _varying(factors)
    groups = _groups(f)
    if len(groups) < 2:
        return float("nan")
    z = standardised(z[:, _varies(z)])
    if not z.shape[1]:
        return 0.0
    rng = np.random.default_rng(seed)
    votes = np.zeros((2, z.shape[1], len(groups)), dtype=np.int64)
    for vote in range(2 * FACTOR_VOTES):
        j = vote % len(groups)
        members, start, size = groups[j]
        place = rng.integers(len(members))
        first, n_members = start[place], size[place]
        chosen = members[first + rng.choice(n_members, min(FACTOR_GROUP, n_members), replace=False)]
        votes[int(vote >= FACTOR_VOTES), z[chosen].var(axis=0, ddof=1).argmin(), j] += 1
    majority = votes[0].argmax(axis=1)
    return float(votes[1][np.arange(z.shape[1]), majority].sum() / FACTOR_VOTES)


@metric(
    better="higher",
    low=0.0,
    high=1.0,
    paper="Suter et al. (2019), ICML, PMLR 97:6056; one quantile for both deviations",
)
def irs(codes: Codes, factors: Factors) -> float:
    """Interventional robustness: how little a code moves when its factor stays and all others change.

    ``Σ_i D_i max_j max(0, 1 - Σ_v p(v) D_ijv / D_i) / Σ_i D_i``: ``D_ijv`` is the .99 quantile of ``|z_i - mean|``
    among the samples with value v of factor j, ``D_i`` that among all. Both are quantiles, so that a code
    which knows nothing scores about 0 (the authors' code has the maximum in D_i). Continuous factors are
    binned: within a bin they move their code, so that the best stays some way below 1.

    Weighted by D, as the authors' code: the only score here that depends on the codes' relative scale. Constant
    codes weigh nothing; 0 if all are constant. A value with a few samples looks robust: have tens of each.

    Parameters
    ----------
    codes, factors
        The same samples' codes and factors, (n_samples, n_latent), (n_samples, n_factors).

    Raises
    ------
    ValueError
        If the samples differ in number, or values are not finite.
    """
    z, f = codes, _varying(factors)
    if not f.shape[1]:
        return float("nan")
    z = z[:, _varies(z)]
    if not z.shape[1]:
        return 0.0

    def deviation(group: Floats) -> Floats:
        return np.asarray(np.quantile(np.abs(group - group.mean(axis=0)), IRS_QUANTILE, axis=0))

    overall = deviation(z)
    robust = np.zeros(z.shape[1])
    for levels in discretise(f).T:
        moved = np.zeros(z.shape[1])
        for level in np.unique(levels):
            group = levels == level
            moved += group.mean() * deviation(z[group])
        robust = np.maximum(robust, 1.0 - moved / np.where(overall > 0, overall, 1.0))
    return float(robust @ overall / overall.sum()) if overall.any() else 0.0


# private


def _varying(factors: Floats) -> Floats:
    """The factors that are not constant, the levels of discrete ones as 0, 1, ..."""
    f = factors[:, _varies(factors)]
    for j in range(f.shape[1]):
        if is_discrete(f[:, j]):
            f[:, j] = np.unique(f[:, j], return_inverse=True)[1]
    return f


def _varies(x: Floats) -> NDArray[np.bool_]:
    spread = np.linalg.norm(x - x.mean(axis=0), axis=0)
    return np.asarray(spread > RESOLUTION * np.linalg.norm(x, axis=0))


def _clipped(score: float) -> float:
    """At least 0, which also stands for a score that is not a number because the scored half is constant."""
    return max(0.0, score) if np.isfinite(score) else 0.0


def _entropy(counts: NDArray[Any]) -> float:
    p = counts[counts > 0] / counts.sum()
    return float(-np.sum(p * np.log(p)))


def _entropies(columns: Floats) -> Floats:
    """Entropy of each column as a distribution; 0 for a column of zeros."""
    return np.array([_entropy(column) if column.any() else 0.0 for column in columns.T])


def _level_entropies(levels: Levels) -> Floats:
    return np.array([_entropy(np.bincount(column)) for column in levels.T])


def _information(a: Levels, b: Levels) -> Floats:
    information = np.add.outer(_level_entropies(a), _level_entropies(b))
    n_levels = b.max(axis=0) + 1
    for i, column in enumerate(a.T):
        for j, other in enumerate(b.T):
            information[i, j] -= _entropy(np.bincount(column * n_levels[j] + other))
    return np.maximum(information, 0.0)


def _beyond_chance(z: Floats, f: Floats, seed: int) -> tuple[Floats, Floats]:
    """Information beyond that of shuffled samples, in nats and as share of entropy, (n_latent, n_factors) each."""
    codes, factors = discretise(z), discretise(f)
    information = _information(codes, factors)
    rng = np.random.default_rng(seed)
    shuffled = np.stack([_information(codes[rng.permutation(len(z))], factors) for _ in range(N_SHUFFLES)])
    chance = shuffled.mean(axis=0)
    beyond = information - chance
    certain = beyond > SIGNIFICANT * shuffled.std(axis=0, ddof=1) + 1e-12
    room = _level_entropies(factors) - chance
    share_of_entropy = np.minimum(beyond / np.where(room > 0, room, 1.0), 1.0)
    return np.where(certain, beyond, 0.0), np.where(certain, share_of_entropy, 0.0)


def _concentration(shared: Floats, n: int) -> Floats:
    """For each column, its largest entry's share of the column, from 0 (1/n) to 1; 0 for a column of zeros."""
    total = shared.sum(axis=0)
    share = shared.max(axis=0) / np.where(total > 0, total, 1.0)
    return np.where(total > 0, np.maximum(share - 1.0 / n, 0.0) / (1.0 - 1.0 / n), 0.0)


def _gap(scores: Floats) -> Floats:
    """The lead of each column's largest entry over its second largest; a missing entry counts as 0."""
    ordered = np.sort(np.vstack([scores, np.zeros(scores.shape[1])]) if len(scores) == 1 else scores, axis=0)
    return np.asarray(ordered[-1] - ordered[-2])


def _groups(f: Floats) -> list[tuple[Levels, Levels, Levels]]:
    """For each factor: the samples ordered by its value, and where each one's group starts and how large it is.

    Samples alone in their group are left out, and factors of which two values do not remain.
    """
    groups = []
    for levels in discretise(f).T if f.shape[1] else ():
        counts = np.bincount(levels)
        members = np.flatnonzero(counts[levels] > 1)
        members = members[np.argsort(levels[members], kind="stable")]
        size = counts[levels[members]]
        start = np.searchsorted(levels[members], levels[members], side="left")
        if len(np.unique(levels[members])) > 1:
            groups.append((members, start, size))
    return groups


def _probabilities(x_fit: Floats, labels: NDArray[Any], x_score: Floats) -> tuple[NDArray[Any], Floats]:
    """The fitted labels, (n_labels,), and the probability of each for the scored samples, (n_score, n_labels)."""
    from sklearn.linear_model import LogisticRegression

    names, counts = np.unique(labels, return_counts=True)
    if len(names) < 2 or not x_fit.any():
        return names, np.tile(counts / counts.sum(), (len(x_score), 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it may stop before it has converged: what counts is the held-out half
        model = LogisticRegression(C=WEAK_PENALTY, max_iter=1_000).fit(x_fit, labels)
    return names, np.asarray(model.predict_proba(x_score))
