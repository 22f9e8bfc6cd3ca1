"""Metrics of a predicted response to a perturbation: its mean, its genes, its cells.

Means are vectors over genes; Δ = mean of perturbed cells − mean of control cells. Genes are weighted and
DEGs named by one half of the held-out cells, and predictions scored on the other half.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metrics.arrays import (
    RESOLUTION,
    Floats,
    as_floats,
    as_mask,
    average_precision,
    pearson,
    require_same_length,
    require_same_shape,
    unit_columns,
)
from metrics.base import metric

NO_CHANGE = 1e-5
"""A Δ smaller than this share of the Δ it is compared with is the rounding noise of no change."""
VARIANCE_FLOOR = 1e-3
"""Added to both variances by ``log_variance_error``: in log1p(CP10k), about that of a gene seen in a cell in 1,000."""
BANDWIDTHS = (0.5, 1.0, 2.0)
"""Kernel widths of ``mmd``, in units of the median distance."""

_LEGACY = "Lotfollahi et al. (2019), Nat. Methods 16:715, scGen's R², squared Pearson of gene means"
_GEARS = "GEARS: Roohani et al. (2024), Nat. Biotechnol. 42:927"


def deg_t_statistics(perturbed: ArrayLike, control: ArrayLike) -> Floats:
    """Welch's t of every gene, perturbed against control.

    ``t = (mean_p - mean_c) / sqrt(var_p / n_p + var_c / n_c)``, variances with ddof 1. A gene constant in
    both groups has t = 0 if the two values agree, and ±infinity if they do not.

    Parameters
    ----------
    perturbed, control
        Expression, (n_perturbed, n_genes), (n_control, n_genes); at least 2 cells each.

    Returns
    -------
    t
        (n_genes,).

    Raises
    ------
    ValueError
        If a group has fewer than 2 cells, the genes differ in number, or values are not finite.
    """
    return _welch(perturbed, control)[0]


def deg_weights(perturbed_a: ArrayLike, control_a: ArrayLike) -> Floats:
    """Weights of the genes by how clearly they are differentially expressed.

    ``u = (|t| - min|t|) / (max|t| - min|t|)``, ``w = u² / Σu²`` with Welch's t, in this order as published.
    An infinite t (``deg_t_statistics``) counts as the largest finite one, or as the only signal if all
    finite ones are 0. If all genes have the same |t|, the weights are uniform.

    Parameters
    ----------
    perturbed_a, control_a
        The half of the cells that is not scored, (n_perturbed, n_genes), (n_control, n_genes).

    Returns
    -------
    weights
        (n_genes,), not negative, summing to 1.

    Raises
    ------
    ValueError
        As ``deg_t_statistics``.

    References
    ----------
    Mejia et al. (2025), arXiv:2506.22641, weighted MSE (theirs tests against all other perturbations).
    """
    size = np.abs(deg_t_statistics(perturbed_a, control_a))
    largest = size[np.isfinite(size)].max(initial=0.0)
    size = np.minimum(size, largest if largest > 0 else 1.0)
    low, high = size.min(), size.max()
    if high == low:
        return np.full(len(size), 1.0 / len(size))
    squared = ((size - low) / (high - low)) ** 2
    weights: Floats = squared / squared.sum()
    return weights


def deg_mask(perturbed: ArrayLike, control: ArrayLike, alpha: float = 0.05) -> NDArray[np.bool_]:
    """Which genes are differentially expressed: two-sided Welch tests, Benjamini–Hochberg at ``alpha``.

    Parameters
    ----------
    perturbed, control
        Expression, (n_perturbed, n_genes), (n_control, n_genes); at least 2 cells each.
    alpha
        False discovery rate.

    Returns
    -------
    degs
        (n_genes,), true for a DEG.

    Raises
    ------
    ValueError
        As ``deg_t_statistics``, or if ``alpha`` is not between 0 and 1.
    """
    from scipy.special import stdtr
    from scipy.stats import false_discovery_control

    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha is {alpha}; it must lie between 0 and 1")
    t, degrees = _welch(perturbed, control)
    p_values = np.minimum(2.0 * stdtr(degrees, -np.abs(t)), 1.0)
    degs: NDArray[np.bool_] = false_discovery_control(p_values, method="bh") <= alpha
    return degs


@metric(
    better="higher",
    low=-np.inf,
    high=1.0,
    reference="task unseen-cell-type; weights and weighted R² of Δ: Mejia et al. (2025), arXiv:2506.22641",
)
def skill(delta_true: ArrayLike, delta_predicted: ArrayLike, delta_mean_shift: ArrayLike, weights: ArrayLike) -> float:
    """Skill over the mean shift of the training cell types.

    ``S = 1 - Σ_g w_g (Δ_g - Δ̂_g)² / Σ_g w_g (Δ_g - Δ̄_g)²``: 1 is perfect, 0 is what the mean shift Δ̄ does,
    negative is worse. Not a number if Δ̄ is exact on every gene with a weight.

    Parameters
    ----------
    delta_true, delta_predicted, delta_mean_shift
        Δ, Δ̂ and Δ̄, (n_genes,).
    weights
        w, (n_genes,), not negative; only their ratios matter.

    Raises
    ------
    ValueError
        If shapes differ, values are not finite, or a weight is negative.
    """
    true, predicted = _gene_vectors(delta_true=delta_true, delta_predicted=delta_predicted)
    mean_shift, w = _gene_vectors(delta_mean_shift=delta_mean_shift, weights=weights)
    require_same_shape(delta_true=true, delta_mean_shift=mean_shift)
    if w.min() < 0:
        raise ValueError(f"weights must not be negative; the lowest is {w.min()}")
    baseline = float(np.sum(w * (true - mean_shift) ** 2))
    if baseline == 0.0:
        return float("nan")
    return 1.0 - float(np.sum(w * (true - predicted) ** 2)) / baseline


@metric(better="higher", low=-1.0, high=1.0, reference="task unseen-cell-type")
def delta_cosine(delta_true: ArrayLike, delta_predicted: ArrayLike) -> float:
    """Cosine of the true and the predicted Δ; blind to the size of the response.

    ``Δ·Δ̂ / (‖Δ‖ ‖Δ̂‖)``. 0 if either is zero, which it also counts as if its norm is below 1e-5 of the
    other's: the rounding noise of "no change" must not get a direction.

    Parameters
    ----------
    delta_true, delta_predicted
        Δ and Δ̂, (n_genes,).

    Raises
    ------
    ValueError
        If shapes differ, or values are not finite.
    """
    true, predicted = _gene_vectors(delta_true=delta_true, delta_predicted=delta_predicted)
    if _one_is_no_change(true, predicted):
        return 0.0
    true, predicted = true / np.linalg.norm(true), predicted / np.linalg.norm(predicted)
    return float(np.clip(true @ predicted, -1.0, 1.0))


@metric(better="higher", low=-1.0, high=1.0, reference=f"{_GEARS}, Pearson of Δ")
def delta_pearson(delta_true: ArrayLike, delta_predicted: ArrayLike) -> float:
    """Pearson correlation of the true and the predicted Δ; blind to the response's size and to its mean.

    0 if either is zero, in the sense of ``delta_cosine``, or the same for all genes.

    Parameters
    ----------
    delta_true, delta_predicted
        Δ and Δ̂, (n_genes,).

    Raises
    ------
    ValueError
        If shapes differ, or values are not finite.
    """
    true, predicted = _gene_vectors(delta_true=delta_true, delta_predicted=delta_predicted)
    return 0.0 if _one_is_no_change(true, predicted) else pearson(true, predicted)


@metric(better="higher", low=0.0, high=1.0, reference=f"{_GEARS}, share of opposite directions")
def deg_sign_accuracy(delta_true: ArrayLike, delta_predicted: ArrayLike, degs: ArrayLike) -> float:
    """Share of the DEGs predicted to change in the right direction.

    ``mean over DEGs of [sign Δ̂ = sign Δ]``. A predicted 0 is wrong. DEGs whose Δ is exactly 0 have no
    direction and are left out; not a number if none is left.

    Parameters
    ----------
    delta_true, delta_predicted
        Δ and Δ̂, (n_genes,).
    degs
        Which genes are DEGs, (n_genes,), boolean.

    Raises
    ------
    ValueError
        If shapes differ, values are not finite, or ``degs`` is not boolean.
    """
    true, predicted = _gene_vectors(delta_true=delta_true, delta_predicted=delta_predicted)
    counted = as_mask("degs", degs, true.shape) & (true != 0)
    if not counted.any():
        return float("nan")
    return float(np.mean(np.sign(predicted[counted]) == np.sign(true[counted])))


@metric(better="higher", low=0.0, high=1.0, reference="Average precision; task unseen-cell-type")
def deg_auprc(delta_predicted: ArrayLike, degs: ArrayLike) -> float:
    """Average precision with which the size of the predicted Δ finds the DEGs.

    Genes ranked by |Δ̂|, tied ones entering together, so a constant |Δ̂| gives the share of DEGs. Not a
    number if all or none of the genes are DEGs.

    Parameters
    ----------
    delta_predicted
        Δ̂, (n_genes,).
    degs
        Which genes are DEGs, (n_genes,), boolean.

    Raises
    ------
    ValueError
        If shapes differ, values are not finite, or ``degs`` is not boolean.
    """
    predicted = as_floats("delta_predicted", delta_predicted, 1)
    return average_precision(as_mask("degs", degs, predicted.shape), np.abs(predicted))


@metric(better="lower", low=0.0, high=np.inf, reference="task unseen-cell-type")
def log_variance_error(x_true: ArrayLike, x_predicted: ArrayLike) -> float:
    """How far the predicted cells' variance of a gene is from the truth's, as a log ratio.

    ``mean over genes of |log(var_true + 0.001) - log(var_predicted + 0.001)|``, variances with ddof 1, over
    the genes that vary in truth or prediction. The floor of 0.001 is far below the variance of an expressed
    gene in log1p units, and keeps a gene without variance finite. Not a number if no gene varies.

    Parameters
    ----------
    x_true, x_predicted
        Expression, (n_true, n_genes), (n_predicted, n_genes); at least 2 cells each.

    Raises
    ------
    ValueError
        If a group has fewer than 2 cells, the genes differ in number, or values are not finite.
    """
    true, predicted = _cell_groups(x_true=x_true, x_predicted=x_predicted)
    variance_true, variance_predicted = _moments(true)[1], _moments(predicted)[1]
    varies = (variance_true > 0) | (variance_predicted > 0)
    if not varies.any():
        return float("nan")
    ratio = np.log(variance_true + VARIANCE_FLOOR) - np.log(variance_predicted + VARIANCE_FLOOR)
    return float(np.mean(np.abs(ratio[varies])))


@metric(better="lower", low=0.0, high=2.0, reference="task unseen-cell-type")
def correlation_error(x_true: ArrayLike, x_predicted: ArrayLike) -> float:
    """How far the predicted cells' gene–gene correlations are from the truth's.

    ``sqrt(mean over gene pairs g < h of (ρ_true - ρ_predicted)²)`` with Pearson's ρ over cells. A constant
    gene has ρ = 0 with every other.

    Parameters
    ----------
    x_true, x_predicted
        Expression of the genes to compare, usually the top DEGs, (n_true, n_genes), (n_predicted, n_genes);
        at least 2 cells each, and 2 genes.

    Raises
    ------
    ValueError
        If there are fewer than 2 cells or genes, the genes differ in number, or values are not finite.
    """
    true, predicted = _cell_groups(x_true=x_true, x_predicted=x_predicted)
    if true.shape[1] < 2:
        raise ValueError(f"x_true has {true.shape[1]} gene; at least 2 are needed for a correlation")
    unit_true, unit_predicted = unit_columns(true), unit_columns(predicted)
    difference = unit_true.T @ unit_true - unit_predicted.T @ unit_predicted
    pairs = np.triu_indices(len(difference), k=1)
    return float(np.sqrt(np.mean(difference[pairs] ** 2)))


@metric(
    better="lower",
    low=-np.inf,
    high=np.inf,
    reference="Székely & Rizzo (2013), J. Stat. Plan. Inference 143:1249; U-statistic, Euclidean distance",
)
def energy_distance(x: ArrayLike, y: ArrayLike) -> float:
    """Unbiased energy distance of two samples of cells.

    ``2 E‖X - Y‖ - E‖X - X'‖ - E‖Y - Y'‖``, with pairs of a cell with itself left out of the last two. The
    distance is Euclidean and *not* squared: squared, the same expression is only ``2 ‖E X - E Y‖²`` and
    blind to everything but the means. 0 on average for two draws of one population, and then as often
    below 0 as above.

    Parameters
    ----------
    x, y
        True and predicted cells, (n_x, n_features), (n_y, n_features), in a space fitted on training cells;
        at least 2 cells each, in equal numbers for comparable noise.

    Raises
    ------
    ValueError
        If a sample has fewer than 2 cells, the features differ in number, or values are not finite.
    """
    from scipy.spatial.distance import cdist, pdist

    x, y = _cell_groups(x=x, y=y)
    return float(2.0 * cdist(x, y).mean() - pdist(x).mean() - pdist(y).mean())


@metric(
    better="lower",
    low=-2.0,
    high=2.0,
    reference="Gretton et al. (2012), JMLR 13:723, unbiased MMD² (eq. 3) with the median heuristic",
)
def mmd(x: ArrayLike, y: ArrayLike) -> float:
    """Unbiased squared maximum mean discrepancy of two samples of cells, RBF kernel.

    ``E k(X, X') + E k(Y, Y') - 2 E k(X, Y)``, pairs of a cell with itself left out, where k is the mean of
    ``exp(-‖x - y‖² / (2 (c m)²))`` over c = 0.5, 1, 2, and m is the median of the positive distances within
    the pooled sample. 0 on average for two draws of one population. 0 if all cells are one point.

    Parameters
    ----------
    x, y
        True and predicted cells, (n_x, n_features), (n_y, n_features), in a space fitted on training cells;
        at least 2 cells each, in equal numbers for comparable noise.

    Raises
    ------
    ValueError
        If a sample has fewer than 2 cells, the features differ in number, or values are not finite.
    """
    from scipy.spatial.distance import pdist, squareform

    x, y = _cell_groups(x=x, y=y)
    distances = pdist(np.vstack([x, y]))
    if not distances.any():
        return 0.0
    median = np.median(distances[distances > 0])
    exponent = -0.5 * (distances / median) ** 2
    kernel = squareform(np.mean([np.exp(exponent / c**2) for c in BANDWIDTHS], axis=0))
    n_x, n_y = len(x), len(y)
    # squareform leaves the diagonal, a cell with itself, at zero.
    within_x = kernel[:n_x, :n_x].sum() / (n_x * (n_x - 1))
    within_y = kernel[n_x:, n_x:].sum() / (n_y * (n_y - 1))
    return float(within_x + within_y - 2.0 * kernel[:n_x, n_x:].mean())


@metric(
    better="higher",
    low=-np.inf,
    high=1.0,
    reference="Coefficient of determination; task unseen-cell-type",
)
def mean_r2(mean_true: ArrayLike, mean_predicted: ArrayLike) -> float:
    """R² of the predicted gene means, which unlike ``legacy_r2`` asks for the values themselves.

    ``1 - Σ(m - m̂)² / Σ(m - mean m)²`` over genes; negative if worse than one value for all genes. Not a
    number if the true means are the same for all genes.

    Parameters
    ----------
    mean_true, mean_predicted
        m and m̂, (n_genes,).

    Raises
    ------
    ValueError
        If shapes differ, or values are not finite.
    """
    true, predicted = _gene_vectors(mean_true=mean_true, mean_predicted=mean_predicted)
    spread = true - true.mean()
    if np.linalg.norm(spread) <= RESOLUTION * np.linalg.norm(true):
        return float("nan")
    return 1.0 - float(np.sum((true - predicted) ** 2) / np.sum(spread**2))


@metric(better="higher", low=0.0, high=1.0, reference=_LEGACY)
def legacy_r2(mean_true: ArrayLike, mean_predicted: ArrayLike) -> float:
    """Squared Pearson correlation of gene means: the field's "R²", for comparison with papers only.

    Blind to scale and offset (half the truth scores 1) and to the sign, and high for no change at all: read
    it beside ``legacy_r2_no_change``. 0 if either is the same for all genes.

    Parameters
    ----------
    mean_true, mean_predicted
        Gene means of the true and the predicted perturbed cells, (n_genes,).

    Raises
    ------
    ValueError
        If shapes differ, or values are not finite.
    """
    true, predicted = _gene_vectors(mean_true=mean_true, mean_predicted=mean_predicted)
    return pearson(true, predicted) ** 2


@metric(better="higher", low=0.0, high=1.0, reference=_LEGACY)
def legacy_r2_no_change(mean_true: ArrayLike, mean_control: ArrayLike) -> float:
    """What ``legacy_r2`` gives to predicting no change: the control cells' means in place of a prediction.

    Parameters
    ----------
    mean_true, mean_control
        Gene means of the true perturbed cells and of the control cells, (n_genes,).

    Raises
    ------
    ValueError
        If shapes differ, or values are not finite.
    """
    true, control = _gene_vectors(mean_true=mean_true, mean_control=mean_control)
    return legacy_r2(true, control)


@metric(better="higher", low=0.0, high=1.0, reference=_LEGACY)
def legacy_r2_top_degs(mean_true: ArrayLike, mean_predicted: ArrayLike, top: ArrayLike) -> float:
    """``legacy_r2`` over the top DEGs alone.

    Parameters
    ----------
    mean_true, mean_predicted
        Gene means of the true and the predicted perturbed cells, (n_genes,).
    top
        Indices of the top DEGs, (n_top,), at least 2.

    Raises
    ------
    ValueError
        If shapes differ, values are not finite, or ``top`` does not hold at least 2 indices of genes.
    """
    true, predicted = _gene_vectors(mean_true=mean_true, mean_predicted=mean_predicted)
    indices = np.asarray(top)
    if indices.ndim != 1 or indices.size < 2 or not np.issubdtype(indices.dtype, np.integer):
        raise ValueError(f"top has shape {indices.shape} and dtype {indices.dtype}; at least 2 integers are needed")
    if indices.min() < 0 or indices.max() >= len(true):
        raise ValueError(f"top runs from {indices.min()} to {indices.max()}; there are {len(true)} genes, from 0")
    return legacy_r2(true[indices], predicted[indices])


def _gene_vectors(**vectors: ArrayLike) -> list[Floats]:
    arrays = {name: as_floats(name, values, 1) for name, values in vectors.items()}
    require_same_shape(**arrays)
    return list(arrays.values())


def _cell_groups(**groups: ArrayLike) -> list[Floats]:
    arrays = {name: as_floats(name, values, 2) for name, values in groups.items()}
    require_same_length(1, **arrays)
    for name, array in arrays.items():
        if len(array) < 2:
            raise ValueError(f"{name} has {len(array)} cell; at least 2 are needed")
    return list(arrays.values())


def _one_is_no_change(a: Floats, b: Floats) -> bool:
    smaller, larger = sorted((float(np.linalg.norm(a)), float(np.linalg.norm(b))))
    return smaller <= NO_CHANGE * larger


def _moments(x: Floats) -> tuple[Floats, Floats]:
    """Mean and variance (ddof 1) of every column, exact (no rounding noise) for a constant one."""
    constant = np.all(x == x[0], axis=0)
    mean: Floats = np.where(constant, x[0], x.mean(axis=0))
    variance: Floats = np.where(constant, 0.0, x.var(axis=0, ddof=1))
    return mean, variance


def _welch(perturbed: ArrayLike, control: ArrayLike) -> tuple[Floats, Floats]:
    """Welch's t and its degrees of freedom, (n_genes,) each."""
    p, c = _cell_groups(perturbed=perturbed, control=control)
    (mean_p, variance_p), (mean_c, variance_c) = _moments(p), _moments(c)
    share_p, share_c = variance_p / len(p), variance_c / len(c)
    squared_error = share_p + share_c
    constant = squared_error == 0
    safe = np.where(constant, 1.0, squared_error)
    difference = mean_p - mean_c
    t = np.where(constant, np.sign(difference) * np.where(difference == 0, 0.0, np.inf), difference / np.sqrt(safe))
    part_p, part_c = share_p / safe, share_c / safe
    spent = part_p**2 / (len(p) - 1) + part_c**2 / (len(c) - 1)
    degrees = np.where(constant, len(p) + len(c) - 2.0, 1.0 / np.where(constant, 1.0, spent))
    return t, degrees
