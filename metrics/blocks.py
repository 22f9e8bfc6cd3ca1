"""Metrics of a code in blocks (shared and private, class and content): what does each block know, and what leaks?

A probe asks a block for a label: it is fitted on one part of the cells and scored on the rest. There are two probes,
"linear" (logistic regression) and "boosted" (gradient-boosted trees). A block that hides a label from a linear probe
may well give it to a boosted one, so leakage is always asked of both.
"""

from __future__ import annotations

import warnings
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from metrics.arrays import Floats, Labels, adjusted_accuracy, standardised
from metrics.base import MetricInfo, checked, family, metric, share

Probe = Literal["linear", "boosted"]
Block = Annotated[Floats, "n_cells n_latent>=0"]
CellLabels = Annotated[Labels, "n_cells"]

N_COMPONENTS = 50
"""Principal components that ``transfer_error`` classifies in."""
N_FOLDS = 3
"""Parts that the cells are cut into; each is scored by the probe fitted on the others."""
MIN_PER_GROUP = 2 * N_FOLDS
"""Cells that a label must have in a group for ``conditional_leakage`` to ask for it there."""

_LEAKAGE = (
    "Probing for a sensitive attribute, e.g. Gabbay & Hoshen (2020), ICLR, LORD; tasks shared-private, class-content"
)
_CLUSTERS = "k-means with the true number of clusters"


# helpers


@checked
def probe_accuracy(codes: Block, labels: CellLabels, probe: Probe = "linear", seed: int = 0) -> float:
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
        From -1 / (C - 1) to 1; about 0, on either side, for a code that knows nothing, and 0 for a constant code.
        Not a number if fewer than 2 labels are left.

    Raises
    ------
    ValueError
        If the cells differ in number, values are not finite, or the probe is unknown.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold

    if probe not in ("linear", "boosted"):
        raise ValueError(f"probe is {probe!r}; 'linear' or 'boosted' is needed")
    common = np.bincount(labels)[labels] >= N_FOLDS
    z, y = _standardised(codes)[common], labels[common]
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


# blocks


@metric(better="higher", low=-1.0, high=1.0, paper="Mean of own less mean of other blocks; task shared-private")
def block_diagonality(matrix: Annotated[NDArray[Any], "n_blocks>=2 n_blocks"]) -> float:
    """How much more the blocks know of their own factors than of the others'.

    ``mean of the diagonal - mean of the other entries``. 1: every factor is known from its own block only; 0: known
    equally from all, or from none (a constant code); -1: from all but its own.

    Parameters
    ----------
    matrix
        What each block (columns) knows of each factor (rows), (n_blocks, n_blocks), in [0, 1]. Not a number if an
        entry is not.

    Raises
    ------
    ValueError
        If the matrix is not square, has a single block, or scores lie outside [0, 1].
    """
    if np.any(matrix < 0) or np.any(matrix > 1):
        raise ValueError(f"matrix must hold scores in [0, 1]; got {matrix}")
    diagonal = np.eye(len(matrix), dtype=bool)
    return float(matrix[diagonal].mean() - matrix[~diagonal].mean())


# leakage


@metric(better="lower", low=0.0, high=1.0, paper=f"{_LEAKAGE}; logistic regression")
def leakage_linear(codes: Block, attribute: CellLabels, seed: int = 0) -> float:
    """How well a linear probe finds a label in a code that should not hold it.

    ``probe_accuracy`` of the linear probe: held-out balanced accuracy, 0 at chance or below, 1 if the label is there
    in full. A constant code scores 0: read leakage beside a metric of what the code should hold. Labels hidden from a
    linear probe need ``leakage_boosted``.

    Parameters
    ----------
    codes
        (n_cells, n_latent); of width 0 for an empty block.
    attribute
        The label that should not be found, (n_cells,).
    seed
        Seed of the parts.

    Raises
    ------
    ValueError
        If the cells differ in number, or values are not finite.
    """
    return float(np.maximum(probe_accuracy(codes, attribute, "linear", seed), 0.0))


@metric(better="lower", low=0.0, high=1.0, paper=f"{_LEAKAGE}; gradient-boosted trees")
def leakage_boosted(codes: Block, attribute: CellLabels, seed: int = 0) -> float:
    """How well a boosted probe finds a label in a code that should not hold it.

    ``probe_accuracy`` of the boosted probe: held-out balanced accuracy, 0 at chance or below, 1 if the label is there
    in full. A constant code scores 0: read leakage beside a metric of what the code should hold.

    Parameters
    ----------
    codes
        (n_cells, n_latent); of width 0 for an empty block.
    attribute
        The label that should not be found, (n_cells,).
    seed
        Seed of the parts and of the probe.

    Raises
    ------
    ValueError
        If the cells differ in number, or values are not finite.
    """
    return float(np.maximum(probe_accuracy(codes, attribute, "boosted", seed), 0.0))


@metric(better="lower", low=0.0, high=1.0, paper=f"{_LEAKAGE}; within groups")
def conditional_leakage(codes: Block, attribute: CellLabels, given: CellLabels, seed: int = 0) -> float:
    """Leakage of a label within each group, such as each cell type.

    ``Σ_g n_g accuracy_g / Σ_g n_g`` over the groups g of ``given``, with a separate boosted probe in each, and 0 where
    that is below chance. Where groups differ in their share of the labels, a code that holds nothing but the group
    leaks the label overall, rightly, but not within groups. A label that fewer than ``MIN_PER_GROUP`` cells have in a
    group is left out there, as is a group in which fewer than 2 labels are left; not a number if no group is left.

    Parameters
    ----------
    codes
        (n_cells, n_latent); of width 0 for an empty block.
    attribute
        The label that should not be found, (n_cells,).
    given
        The group of each cell, which may be known, (n_cells,).
    seed
        Seed of the parts and of the probe.

    Raises
    ------
    ValueError
        If the cells differ in number, or values are not finite.
    """
    z = _standardised(codes)
    total, weight = 0.0, 0
    for group in np.unique(given):
        cells = np.flatnonzero(given == group)
        cells = cells[np.bincount(attribute[cells])[attribute[cells]] >= MIN_PER_GROUP]
        if len(np.unique(attribute[cells])) > 1:
            total += len(cells) * probe_accuracy(z[cells], attribute[cells], "boosted", seed)
            weight += len(cells)
    return max(total / weight, 0.0) if weight else float("nan")


# clusters


@family(
    cluster_ari=MetricInfo(
        "higher",
        -0.5,
        1.0,
        f"{_CLUSTERS}; Hubert & Arabie (1985), J. Classif. 2:193",
        "Adjusted Rand index of k-means clusters of a block with the labels.",
    ),
    cluster_nmi=share(
        f"{_CLUSTERS}; Strehl & Ghosh (2002), JMLR 3:583",
        "Normalised mutual information of k-means clusters of a block with the labels.",
    ),
)
def clusters(codes: Annotated[Floats, "n_cells n_latent"], labels: CellLabels, seed: int = 0) -> dict[str, float]:
    """Compare k-means clusters of a block with the labels.

    k-means (10 starts) is told the true number of labels. The codes are clustered as they are, so the scores
    depend on the scale of their axes. 1: the clusters are the labels; 0: a constant code, and, for ``cluster_ari``,
    chance. ``cluster_nmi``, ``2 I / (H + H')``, is not adjusted for chance: with many labels and few cells, clusters
    of noise score well above 0.

    Parameters
    ----------
    codes
        (n_cells, n_latent).
    labels
        (n_cells,).
    seed
        Seed of k-means.

    Returns
    -------
    scores
        By name; not a number if there is one label.

    Raises
    ------
    ValueError
        If the cells differ in number, or values are not finite.
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    n_labels = len(np.unique(labels))
    if n_labels < 2 or not standardised(codes).any():
        return dict.fromkeys(("cluster_ari", "cluster_nmi"), float("nan") if n_labels < 2 else 0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fewer distinct codes than labels: fewer clusters, and a lower score
        assigned = KMeans(n_labels, n_init=10, random_state=seed).fit_predict(codes - codes.mean(axis=0))
    return {
        "cluster_ari": float(adjusted_rand_score(labels, assigned)),
        "cluster_nmi": float(normalized_mutual_info_score(labels, assigned)),
    }


@metric(
    better="lower",
    low=0.0,
    high=1.0,
    paper="Classifiers of real images asked of transferred ones: Gabbay & Hoshen (2020), ICLR; task class-content",
)
def transfer_error(
    x_real: Annotated[Floats, "n_real n_genes"],
    labels_real: Annotated[NDArray[Any], "n_real"],
    x_transferred: Annotated[Floats, "n_transferred n_genes"],
    labels_transferred: Annotated[NDArray[Any], "n_transferred"],
) -> float:
    """Share of transferred cells that a classifier of real cells does not take for what they should be.

    The classifier is a linear discriminant analysis, its covariance shrunk as by Ledoit and Wolf, on at most
    ``N_COMPONENTS`` principal components of the real cells. It tells cells of all classes and contents apart, so that a
    transfer errs that leaves the class, and so does one that changes the content.

    Parameters
    ----------
    x_real, x_transferred
        Expression, (n_real, n_genes) and (n_transferred, n_genes).
    labels_real, labels_transferred
        Class and content as one label: the true label of real cells, the intended label of transferred cells.

    Raises
    ------
    ValueError
        If the cells differ in number, or values are not finite.
    """
    from sklearn.decomposition import PCA
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    n_components = min(N_COMPONENTS, len(x_real) - 1, x_real.shape[1])
    pca = PCA(n_components, svd_solver="randomized", random_state=0).fit(x_real)
    classifier = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(pca.transform(x_real), labels_real)
    return float(np.mean(classifier.predict(pca.transform(x_transferred)) != labels_transferred))


@metric(
    better="higher",
    low=-0.5,
    high=1.0,
    paper="ARI after contrastive PCA: Abid et al. (2018), Nat. Commun. 9:2134; task shared-private",
)
def findability(private: Annotated[Floats, "n_cells n_latent"], programs: CellLabels, groups: CellLabels) -> float:
    """How plain private programs are to a simple method, in one draw of a simulator.

    :func:`clusters`' ``cluster_ari`` of the programs within each group, in private codes of contrastive PCA; the mean
    over groups. It says how hard a draw is, not how good a method is.

    Parameters
    ----------
    private
        Private codes by contrastive PCA, (n_cells, n_latent).
    programs, groups
        (n_cells,).

    Raises
    ------
    ValueError
        If the cells differ in number, or values are not finite.
    """
    within = [clusters(private[groups == g], programs[groups == g])["cluster_ari"] for g in np.unique(groups)]
    return float(np.mean(within))


@metric(better="higher", low=0.0, high=1.0, paper="Bayes' classifier of a simulator; task shared-private")
def bayes_accuracy(
    posterior: Annotated[Floats, "n_cells n_labels"], one_hot: Annotated[Floats, "n_cells n_labels"]
) -> float:
    """Share of the cells whose label is the likeliest by the true model: no classifier does better on average.

    Parameters
    ----------
    posterior
        Probability of each label given the cell's counts and the true parameters, (n_cells, n_labels). If m labels tie
        for the highest, each is counted as 1/m of a choice.
    one_hot
        1 for the cell's label, 0 for others, (n_cells, n_labels).

    Raises
    ------
    ValueError
        If shapes differ, or values are not finite.
    """
    best = posterior >= posterior.max(axis=1, keepdims=True) * (1 - 1e-9)
    return float(np.mean((one_hot * best).sum(axis=1) / best.sum(axis=1)))


def _standardised(codes: Floats) -> Floats:
    """Standardised codes; an empty block stays as it is."""
    return standardised(codes) if codes.shape[1] else codes
