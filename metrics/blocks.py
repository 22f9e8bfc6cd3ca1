"""Metrics of a code in blocks (shared and private, class and content): what does each block know, and what leaks?

A probe asks a block for a factor: it is fitted on one part of the cells and scored on the rest. Two probes, both
named: "linear" (ridge or logistic regression) and "boosted" (gradient-boosted trees). A block that hides a
label from a linear probe may well give it to a boosted one, so leakage is always asked of both.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metrics.arrays import (
    Floats,
    adjusted_accuracy,
    as_floats,
    as_labels,
    as_mask,
    is_discrete,
    r2,
    standardised,
)
from metrics.base import metric

Probe = Literal["linear", "boosted"]

N_FOLDS = 3
"""Parts that the cells are cut into; each is scored by the probe fitted on the others."""
MIN_PER_GROUP = 2 * N_FOLDS
"""Cells that a label must have in a group for ``conditional_leakage`` to ask for it there."""

_LEAKAGE = (
    "Probing for a sensitive attribute, e.g. Gabbay & Hoshen (2020), ICLR, LORD; tasks shared-private, class-content"
)
_CLUSTERS = "k-means with the true number of clusters"


# helpers


def probe_r2(codes: ArrayLike, values: ArrayLike, probe: Probe = "linear", seed: int = 0) -> float:
    """Held-out R² of a number, predicted from a code.

    ``1 - Σ(y - ŷ)² / Σ(y - mean y)²`` on each of ``N_FOLDS`` random parts of the cells, predicted by the probe that
    was fitted on the other parts; their mean. Below 0 where the probe overfits. The probes: ridge regression
    (penalty 1) on standardised codes; scikit-learn's HistGradientBoostingRegressor, 100 trees, no early
    stopping, leaves of at least 1/20 of the cells, or 20.

    Parameters
    ----------
    codes
        (n_cells, n_latent); of width 0 for a block that is empty, which knows nothing: 0.
    values
        (n_cells,).
    probe
        "linear" or "boosted".
    seed
        Seed of the parts and of the probe.

    Returns
    -------
    score
        At most 1; about 0 for a constant code. Not a number if the values are constant.

    Raises
    ------
    ValueError
        If the cells differ in number or are under 2 · ``N_FOLDS``, values are not finite, or the probe is unknown.
    """
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import KFold

    y = as_floats("values", values, 1)
    z = _codes(codes, len(y))
    _check_probe(probe)
    if len(y) < 2 * N_FOLDS:
        raise ValueError(f"{len(y)} cells; at least {2 * N_FOLDS} are needed")
    if np.isnan(r2(y, y)):
        return float("nan")
    if not z.shape[1]:
        return 0.0
    scores = []
    for fit, score in KFold(N_FOLDS, shuffle=True, random_state=seed).split(z):
        model = (
            Ridge(alpha=1.0)
            if probe == "linear"
            else HistGradientBoostingRegressor(
                max_iter=100,
                early_stopping=False,
                min_samples_leaf=int(np.clip(len(fit) // 20, 1, 20)),
                random_state=seed,
            )
        )
        scores.append(r2(y[score], model.fit(z[fit], y[fit]).predict(z[score])))
    return float(np.nanmean(scores)) if np.isfinite(scores).any() else float("nan")


def probe_accuracy(codes: ArrayLike, labels: ArrayLike, probe: Probe = "linear", seed: int = 0) -> float:
    """Held-out, chance-adjusted balanced accuracy of a label, predicted from a code.

    ``(mean recall - 1/C) / (1 - 1/C)`` over the C labels, on each of ``N_FOLDS`` parts of the cells, stratified by
    label, predicted by the probe that was fitted on the other parts; their mean. 0 is chance whatever the
    labels' sizes, 1 perfect. The probes weigh all labels alike: logistic regression (penalty 1) on
    standardised codes; scikit-learn's HistGradientBoostingClassifier, 100 rounds, no early stopping, leaves of
    at least half the rarest label's cells, or 20 (20 throughout, its default, would see no rare label).

    Parameters
    ----------
    codes
        (n_cells, n_latent); of width 0 for a block that is empty, which knows nothing: 0.
    labels
        (n_cells,). Cells whose label fewer than ``N_FOLDS`` cells have are left out.
    probe
        "linear" or "boosted".
    seed
        Seed of the parts and of the probe.

    Returns
    -------
    score
        From -1 / (C - 1) to 1; about 0, on either side, for a code that knows nothing, and 0 for a constant one.
        Not a number if fewer than 2 labels are left.

    Raises
    ------
    ValueError
        If the cells differ in number, values are not finite, or the probe is unknown.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold

    z = _codes(codes, None)
    y = as_labels("labels", labels, len(z))
    _check_probe(probe)
    common = np.bincount(y)[y] >= N_FOLDS
    z, y = z[common], y[common]
    if len(np.unique(y)) < 2:
        return float("nan")
    if not z.shape[1] or not z.any():
        return 0.0
    scores = []
    for fit, score in StratifiedKFold(N_FOLDS, shuffle=True, random_state=seed).split(z, y):
        model = (
            LogisticRegression(class_weight="balanced", max_iter=1_000)
            if probe == "linear"
            else HistGradientBoostingClassifier(
                class_weight="balanced",
                max_iter=100,
                early_stopping=False,
                min_samples_leaf=int(np.clip(np.unique(y[fit], return_counts=True)[1].min() // 2, 1, 20)),
                random_state=seed,
            )
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it may stop before it has converged: what counts is the held-out part
            scores.append(adjusted_accuracy(y[score], model.fit(z[fit], y[fit]).predict(z[score])))
    return float(np.mean(scores))


def block_matrix(
    factors: Mapping[str, ArrayLike], blocks: Mapping[str, ArrayLike], probe: Probe = "boosted", seed: int = 0
) -> Floats:
    """What each block knows of each factor.

    Entry (i, j) is the probe's score of factor i from block j, at least 0 (an overfitted probe knows nothing, and
    no entry below 0 can make up for leakage): ``probe_r2`` where the factor is numbers with more than
    ``metrics.arrays.MAX_LEVELS`` distinct values, ``probe_accuracy`` otherwise.

    Parameters
    ----------
    factors
        Values or labels by name, (n_cells,) each.
    blocks
        Codes by name, (n_cells, n_latent of the block) each.
    probe
        "linear" or "boosted".
    seed
        Seed of the parts and of the probe.

    Returns
    -------
    matrix
        (n_factors, n_blocks), in the order of the mappings.

    Raises
    ------
    ValueError
        If there is no factor or no block, the cells differ in number, or values are not finite.
    """
    if not factors or not blocks:
        raise ValueError(f"{len(factors)} factors and {len(blocks)} blocks; at least 1 of each is needed")
    matrix = np.zeros((len(factors), len(blocks)))
    for i, values in enumerate(factors.values()):
        column = np.asarray(values)
        numbers = column.dtype.kind in "fiu" and not is_discrete(column)
        ask: Callable[..., float] = probe_r2 if numbers else probe_accuracy
        for j, codes in enumerate(blocks.values()):
            matrix[i, j] = np.maximum(0.0, ask(codes, column, probe, seed))
    return matrix


# blocks


@metric(better="higher", low=-1.0, high=1.0, reference="Mean of own less mean of other blocks; task shared-private")
def block_diagonality(matrix: ArrayLike, own: ArrayLike | None = None) -> float:
    """How much more the blocks know of their own factors than of the others'.

    ``mean of the own entries - mean of the other entries`` of a ``block_matrix``. 1: every factor known from its own
    block only; 0: known equally from all, or from none (a constant code); -1: from all but its own. Other
    scores than a block matrix's, in [0, 1], are refused.

    Parameters
    ----------
    matrix
        Scores, (n_factors, n_blocks). Not a number if one of them is.
    own
        Which entries should be high, (n_factors, n_blocks); the diagonal of a square matrix by default.

    Raises
    ------
    ValueError
        If scores lie outside [0, 1], all or none of the entries are own, or ``own`` is missing where the matrix is
        not square.
    """
    scores = np.asarray(matrix, dtype=np.float64)
    if scores.ndim != 2 or np.any(scores < 0) or np.any(scores > 1):
        raise ValueError(
            f"matrix of shape {scores.shape} must be (n_factors, n_blocks) of scores in [0, 1]; got {scores}"
        )
    if own is None and scores.shape[0] != scores.shape[1]:
        raise ValueError(f"matrix has shape {scores.shape}; say which entries are own, as it is not square")
    mask = as_mask("own", np.eye(len(scores)) if own is None else own, scores.shape)
    if mask.all() or not mask.any():
        raise ValueError(f"{int(mask.sum())} of {mask.size} entries are own; some must be and some not")
    return float(scores[mask].mean() - scores[~mask].mean())


# leakage


@metric(better="lower", low=-1.0, high=1.0, reference=f"{_LEAKAGE}; logistic regression")
def leakage_linear(codes: ArrayLike, labels: ArrayLike, seed: int = 0) -> float:
    """How well a linear probe finds a label in a code that should not hold it.

    ``probe_accuracy`` of the linear probe: held-out balanced accuracy, 0 at chance, 1 if the label is there in full.
    A little below 0 is chance, too; do not rank by it. A constant code scores 0: leakage is only read beside what
    the code should hold. Labels hidden from a linear probe need ``leakage_boosted``.

    Parameters
    ----------
    codes
        (n_cells, n_latent); of width 0 for an empty block.
    labels
        What should not be found, (n_cells,).
    seed
        Seed of the parts.

    Raises
    ------
    ValueError
        If the cells differ in number, or values are not finite.
    """
    return probe_accuracy(codes, labels, "linear", seed)


@metric(better="lower", low=-1.0, high=1.0, reference=f"{_LEAKAGE}; gradient-boosted trees")
def leakage_boosted(codes: ArrayLike, labels: ArrayLike, seed: int = 0) -> float:
    """How well a boosted probe finds a label in a code that should not hold it.

    ``probe_accuracy`` of the boosted probe: held-out balanced accuracy, 0 at chance, 1 if the label is there in full.
    A little below 0 is chance, too; do not rank by it. A constant code scores 0: leakage is only read beside what
    the code should hold.

    Parameters
    ----------
    codes
        (n_cells, n_latent); of width 0 for an empty block.
    labels
        What should not be found, (n_cells,).
    seed
        Seed of the parts and of the probe.

    Raises
    ------
    ValueError
        If the cells differ in number, or values are not finite.
    """
    return probe_accuracy(codes, labels, "boosted", seed)


@metric(better="lower", low=-1.0, high=1.0, reference=f"{_LEAKAGE}; within groups")
def conditional_leakage(
    codes: ArrayLike, labels: ArrayLike, given: ArrayLike, seed: int = 0, probe: Probe = "boosted"
) -> float:
    """Leakage of a label within each group, such as each cell type.

    ``Σ_g n_g leakage_g / Σ_g n_g`` over the groups g of ``given``, with a probe of its own in each. Where groups
    differ in their share of the labels, a code that holds nothing but the group leaks the label overall,
    rightly, and not within groups. Labels that fewer than ``MIN_PER_GROUP`` cells have in a group are left out
    there, and groups with fewer than 2 labels left; not a number if no group is left.

    Parameters
    ----------
    codes
        (n_cells, n_latent); of width 0 for an empty block.
    labels
        What should not be found, (n_cells,).
    given
        The group of each cell, which may be known, (n_cells,).
    seed
        Seed of the parts and of the probe.
    probe
        "linear" or "boosted".

    Raises
    ------
    ValueError
        If the cells differ in number, values are not finite, or the probe is unknown.
    """
    z = _codes(codes, None)
    y, group = as_labels("labels", labels, len(z)), as_labels("given", given, len(z))
    _check_probe(probe)
    total, weight = 0.0, 0
    for name in np.unique(group):
        own = np.flatnonzero(group == name)
        own = own[np.bincount(y[own])[y[own]] >= MIN_PER_GROUP]
        if len(np.unique(y[own])) > 1:
            total += len(own) * probe_accuracy(z[own], y[own], probe, seed)
            weight += len(own)
    return total / weight if weight else float("nan")


# clusters


@metric(better="higher", low=-0.5, high=1.0, reference=f"{_CLUSTERS}; Hubert & Arabie (1985), J. Classif. 2:193")
def cluster_ari(codes: ArrayLike, labels: ArrayLike, seed: int = 0) -> float:
    """Adjusted Rand index of k-means clusters of a block with the labels.

    k-means (10 starts) is told the true number of labels. The codes are clustered as they are, so the score
    depends on the scale of their axes. 0: chance, and a constant code; 1: the clusters are the labels. Not a number
    if there is one label.

    Parameters
    ----------
    codes
        (n_cells, n_latent).
    labels
        (n_cells,).
    seed
        Seed of k-means.

    Raises
    ------
    ValueError
        If the cells differ in number, or values are not finite.
    """
    from sklearn.metrics import adjusted_rand_score

    return _cluster_score(codes, labels, seed, adjusted_rand_score)


@metric(better="higher", low=0.0, high=1.0, reference=f"{_CLUSTERS}; Strehl & Ghosh (2002), JMLR 3:583")
def cluster_nmi(codes: ArrayLike, labels: ArrayLike, seed: int = 0) -> float:
    """Normalised mutual information of k-means clusters of a block with the labels.

    ``2 I / (H + H')`` of the clusters and the labels, clustered as for ``cluster_ari``. Not adjusted for chance: with
    many labels and few cells, clusters of noise score well above 0. 0 for a constant code; not a number if
    there is one label.

    Parameters
    ----------
    codes
        (n_cells, n_latent).
    labels
        (n_cells,).
    seed
        Seed of k-means.

    Raises
    ------
    ValueError
        If the cells differ in number, or values are not finite.
    """
    from sklearn.metrics import normalized_mutual_info_score

    return _cluster_score(codes, labels, seed, normalized_mutual_info_score)


# private


def _codes(codes: ArrayLike, n: int | None) -> Floats:
    """Standardised codes; a block of width 0 is allowed."""
    z = np.asarray(codes, dtype=np.float64)
    if not (z.ndim == 2 and len(z) and z.shape[1] == 0):
        z = standardised(as_floats("codes", z, 2))
    if n is not None and len(z) != n:
        raise ValueError(f"codes has shape {z.shape} for {n} cells; one row each is needed")
    return z


def _check_probe(probe: str) -> None:
    if probe not in ("linear", "boosted"):
        raise ValueError(f"probe is {probe!r}; 'linear' or 'boosted' is needed")


def _cluster_score(codes: ArrayLike, labels: ArrayLike, seed: int, score: Callable[[Any, Any], float]) -> float:
    from sklearn.cluster import KMeans

    z = as_floats("codes", codes, 2)
    y: NDArray[np.int64] = as_labels("labels", labels, len(z))
    n_labels = len(np.unique(y))
    if n_labels < 2:
        return float("nan")
    if not standardised(z).any():
        return 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fewer distinct codes than labels: fewer clusters, and a lower score
        clusters = KMeans(n_labels, n_init=10, random_state=seed).fit_predict(z - z.mean(axis=0))
    return float(score(y, clusters))
