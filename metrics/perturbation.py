"""Metrics of a predicted response to a perturbation: its mean, its genes, its cells; and of adapting to few cells.

Means are vectors over genes; Δ = mean of perturbed cells − mean of control cells. Genes are weighted and
DEGs named by one half of the held-out cells, and predictions scored on the other half.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from metrics.arrays import RESOLUTION, Floats, Mask, average_precision, pearson, unit_columns
from metrics.base import checked, family, metric, share

Genes = Annotated[Floats, "n_genes"]
GeneMask = Annotated[Mask, "n_genes"]
Perturbed = Annotated[Floats, "n_perturbed>=2 n_genes"]
Control = Annotated[Floats, "n_control>=2 n_genes"]
TrueCells = Annotated[Floats, "n_true>=2 n_features"]
PredictedCells = Annotated[Floats, "n_predicted>=2 n_features"]
TopGenes = Annotated[NDArray[Any], "n_top>=2"]

NO_CHANGE = 1e-5
"""A Δ smaller than this share of the Δ it is compared with is the rounding noise of no change."""
VARIANCE_FLOOR = 1e-3
"""Added to both variances by ``log_variance_error``: in log1p(CP10k), about that of a gene seen in a cell in 1,000."""
BANDWIDTHS = (0.5, 1.0, 2.0)
"""Kernel widths of ``mmd``, in units of the median distance."""

_LEGACY = "Lotfollahi et al. (2019), Nat. Methods 16:715, scGen's R², squared Pearson of gene means"
_SPARSE_SHIFT = "Lopez et al. (2023), CLeaR, PMLR 213:662, transfer to unseen interventions"
_SYSTEMA = "Systema: Viñas Torné et al. (2025), Nat. Biotechnol."
_GEARS = "GEARS: Roohani et al. (2024), Nat. Biotechnol. 42:927"


@checked
def deg_t_statistics(perturbed: Perturbed, control: Control) -> Floats:
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


def deg_weights(perturbed_a: NDArray[Any], control_a: NDArray[Any]) -> Floats:
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


@checked
def deg_mask(perturbed: Perturbed, control: Control, alpha: float = 0.05) -> NDArray[np.bool_]:
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
    paper="task unseen-cell-type; weights and weighted R² of Δ: Mejia et al. (2025), arXiv:2506.22641",
)
def skill(delta_true: Genes, delta_predicted: Genes, delta_mean_shift: Genes, weights: Genes) -> float:
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
    if weights.min() < 0:
        raise ValueError(f"weights must not be negative; the lowest is {weights.min()}")
    baseline = float(np.sum(weights * (delta_true - delta_mean_shift) ** 2))
    if baseline == 0.0:
        return float("nan")
    return 1.0 - float(np.sum(weights * (delta_true - delta_predicted) ** 2)) / baseline


@metric(better="higher", low=-1.0, high=1.0, paper="task unseen-cell-type")
def delta_cosine(delta_true: Genes, delta_predicted: Genes) -> float:
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
    if _one_is_no_change(delta_true, delta_predicted):
        return 0.0
    true, predicted = delta_true / np.linalg.norm(delta_true), delta_predicted / np.linalg.norm(delta_predicted)
    return float(np.clip(true @ predicted, -1.0, 1.0))


@metric(better="higher", low=-1.0, high=1.0, paper=f"{_GEARS}, Pearson of Δ")
def delta_pearson(delta_true: Genes, delta_predicted: Genes) -> float:
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
    return 0.0 if _one_is_no_change(delta_true, delta_predicted) else pearson(delta_true, delta_predicted)


@metric(better="higher", low=0.0, high=1.0, paper=f"{_GEARS}, share of opposite directions")
def deg_sign_accuracy(delta_true: Genes, delta_predicted: Genes, degs: GeneMask) -> float:
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
    counted = degs & (delta_true != 0)
    if not counted.any():
        return float("nan")
    return float(np.mean(np.sign(delta_predicted[counted]) == np.sign(delta_true[counted])))


@metric(better="higher", low=0.0, high=1.0, paper="Average precision; task unseen-cell-type")
def deg_auprc(delta_predicted: Genes, degs: GeneMask) -> float:
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
    return average_precision(degs, np.abs(delta_predicted))


@metric(better="lower", low=0.0, high=np.inf, paper="task unseen-cell-type")
def log_variance_error(x_true: TrueCells, x_predicted: PredictedCells) -> float:
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
    variance_true, variance_predicted = _moments(x_true)[1], _moments(x_predicted)[1]
    varies = (variance_true > 0) | (variance_predicted > 0)
    if not varies.any():
        return float("nan")
    ratio = np.log(variance_true + VARIANCE_FLOOR) - np.log(variance_predicted + VARIANCE_FLOOR)
    return float(np.mean(np.abs(ratio[varies])))


@metric(better="lower", low=0.0, high=2.0, paper="task unseen-cell-type")
def correlation_error(
    x_true: Annotated[Floats, "n_true>=2 n_genes>=2"], x_predicted: Annotated[Floats, "n_predicted>=2 n_genes>=2"]
) -> float:
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
    unit_true, unit_predicted = unit_columns(x_true), unit_columns(x_predicted)
    difference = unit_true.T @ unit_true - unit_predicted.T @ unit_predicted
    pairs = np.triu_indices(len(difference), k=1)
    return float(np.sqrt(np.mean(difference[pairs] ** 2)))


@metric(
    better="lower",
    low=-np.inf,
    high=np.inf,
    paper="Székely & Rizzo (2013), J. Stat. Plan. Inference 143:1249; U-statistic, Euclidean distance",
)
def energy_distance(cells_true: TrueCells, cells_predicted: PredictedCells) -> float:
    """Unbiased energy distance of two samples of cells.

    ``2 E‖X - Y‖ - E‖X - X'‖ - E‖Y - Y'‖``, with pairs of a cell with itself left out of the last two. The
    distance is Euclidean and *not* squared: squared, the same expression is only ``2 ‖E X - E Y‖²`` and
    blind to everything but the means. 0 on average for two draws of one population, and then as often
    below 0 as above.

    Parameters
    ----------
    cells_true, cells_predicted
        Cells in a space fitted on training cells, (n_true, n_features), (n_predicted, n_features); at least 2 each,
        in equal numbers for comparable noise.

    Raises
    ------
    ValueError
        If a sample has fewer than 2 cells, the features differ in number, or values are not finite.
    """
    from scipy.spatial.distance import cdist, pdist

    between = cdist(cells_true, cells_predicted).mean()
    return float(2.0 * between - pdist(cells_true).mean() - pdist(cells_predicted).mean())


@metric(
    better="lower",
    low=-2.0,
    high=2.0,
    paper="Gretton et al. (2012), JMLR 13:723, unbiased MMD² (eq. 3) with the median heuristic",
)
def mmd(cells_true: TrueCells, cells_predicted: PredictedCells) -> float:
    """Unbiased squared maximum mean discrepancy of two samples of cells, RBF kernel.

    ``E k(X, X') + E k(Y, Y') - 2 E k(X, Y)``, pairs of a cell with itself left out, where k is the mean of
    ``exp(-‖x - y‖² / (2 (c m)²))`` over c = 0.5, 1, 2, and m is the median of the positive distances within
    the pooled sample. 0 on average for two draws of one population. 0 if all cells are one point.

    Parameters
    ----------
    cells_true, cells_predicted
        Cells in a space fitted on training cells, (n_true, n_features), (n_predicted, n_features); at least 2 each,
        in equal numbers for comparable noise.

    Raises
    ------
    ValueError
        If a sample has fewer than 2 cells, the features differ in number, or values are not finite.
    """
    from scipy.spatial.distance import pdist, squareform

    distances = pdist(np.vstack([cells_true, cells_predicted]))
    if not distances.any():
        return 0.0
    median = np.median(distances[distances > 0])
    exponent = -0.5 * (distances / median) ** 2
    kernel = squareform(np.mean([np.exp(exponent / c**2) for c in BANDWIDTHS], axis=0))
    n_x, n_y = len(cells_true), len(cells_predicted)
    # squareform leaves the diagonal, a cell with itself, at zero.
    within_x = kernel[:n_x, :n_x].sum() / (n_x * (n_x - 1))
    within_y = kernel[n_x:, n_x:].sum() / (n_y * (n_y - 1))
    return float(within_x + within_y - 2.0 * kernel[:n_x, n_x:].mean())


@metric(
    better="higher",
    low=-np.inf,
    high=1.0,
    paper="Coefficient of determination; task unseen-cell-type",
)
def mean_r2(mean_true: Genes, mean_predicted: Genes) -> float:
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
    spread = mean_true - mean_true.mean()
    if np.linalg.norm(spread) <= RESOLUTION * np.linalg.norm(mean_true):
        return float("nan")
    return 1.0 - float(np.sum((mean_true - mean_predicted) ** 2) / np.sum(spread**2))


@family(
    legacy_r2=share(_LEGACY, 'Squared Pearson correlation of gene means: the field\'s "R²".'),
    legacy_r2_no_change=share(
        _LEGACY, "``legacy_r2`` of predicting no change: the control cells' means as the prediction."
    ),
    legacy_r2_top_degs=share(_LEGACY, "``legacy_r2`` over the top DEGs alone."),
)
def legacy(mean_true: Genes, mean_predicted: Genes, mean_control: Genes, top: TopGenes) -> dict[str, float]:
    """Compute the field's "R²" of gene means, for comparison with papers only.

    It is blind to scale and offset (half the truth scores 1) and to the sign, and high for no change at all: read
    ``legacy_r2`` beside ``legacy_r2_no_change``. 0 if either is the same for all genes.

    Parameters
    ----------
    mean_true, mean_predicted, mean_control
        Gene means of the true and the predicted perturbed cells and of the control cells, (n_genes,).
    top
        Indices of the top DEGs, (n_top,), at least 2.

    Raises
    ------
    ValueError
        If shapes differ, values are not finite, or ``top`` does not hold at least 2 indices of genes.
    """
    return {
        "legacy_r2": pearson(mean_true, mean_predicted) ** 2,
        "legacy_r2_no_change": pearson(mean_true, mean_control) ** 2,
        "legacy_r2_top_degs": pearson(*_of_top(top, mean_true, mean_predicted)) ** 2,
    }


@metric(better="higher", low=-np.inf, high=1.0, paper="task few-shot-perturbation")
def skill_half(mean_true: Genes, mean_after_half: Genes, mean_half: Genes) -> float:
    """Skill over the mean of one half of a perturbation's cells, scored on the other half.

    ``S = 1 - Σ_g (m_g - m̂_g)² / Σ_g (m_g - h_g)²`` over genes: 0 is the score of h, the mean of the half, and, both
    halves being as noisy, 1/2 is what the noiseless mean would get. Not a number if h is exact.

    Parameters
    ----------
    mean_true, mean_after_half, mean_half
        m, m̂ (predicted after adapting to the half) and h, (n_genes,).

    Raises
    ------
    ValueError
        If shapes differ, or values are not finite.
    """
    return skill(mean_true, mean_after_half, mean_half, np.ones(np.shape(mean_true)))


@metric(better="higher", low=-np.inf, high=np.inf, paper=_SPARSE_SHIFT)
def likelihood_gain(
    adapted: Annotated[Floats, "n_cells"], unadapted: Annotated[Floats, "n_cells"], n_genes: int
) -> float:
    """Gain in log-likelihood, per cell and gene, from adapting to a perturbation.

    ``mean over cells of (log p_adapted - log p_unadapted) / n_genes``, nats. 0 is a model that learned nothing
    from the adaptation cells. It compares a model with itself, so that likelihoods of different kinds (counts,
    log-normalised) are never compared.

    Parameters
    ----------
    adapted, unadapted
        Log-likelihood of each scored cell before and after adapting, (n_cells,).
    n_genes
        Number of genes.

    Raises
    ------
    ValueError
        If shapes differ, values are not finite, or there is no gene.
    """
    if n_genes < 1:
        raise ValueError(f"n_genes is {n_genes}; at least 1 is needed")
    return float(np.mean(adapted - unadapted) / n_genes)


@metric(better="higher", low=-1.0, high=1.0, paper="GEARS: Roohani et al. (2024), Nat. Biotechnol. 42:927, top 20")
def delta_pearson_top_degs(delta_true: Genes, delta_predicted: Genes, top: TopGenes) -> float:
    """``delta_pearson`` over the top DEGs alone.

    Parameters
    ----------
    delta_true, delta_predicted
        Δ and Δ̂, (n_genes,).
    top
        Indices of the top DEGs, (n_top,), at least 2.

    Raises
    ------
    ValueError
        If shapes differ, values are not finite, or ``top`` does not hold at least 2 indices of genes.
    """
    return delta_pearson(*_of_top(top, delta_true, delta_predicted))


@metric(better="higher", low=-1.0, high=1.0, paper=f"{_SYSTEMA}, Pearson of Δ against the perturbed centroid")
def delta_pearson_perturbed(mean_true: Genes, mean_predicted: Genes, mean_perturbed: Genes) -> float:
    """``delta_pearson`` with Δ measured from the mean of the perturbed training cells in place of the control.

    What all perturbations have in common (stress, selection) earns nothing: a method that predicts this mean for
    each of them has a Δ of zero and scores 0.

    Parameters
    ----------
    mean_true, mean_predicted
        Gene means of the true and the predicted perturbed cells, (n_genes,).
    mean_perturbed
        Mean over the trained perturbations of their gene means, (n_genes,).

    Raises
    ------
    ValueError
        If shapes differ, or values are not finite.
    """
    return delta_pearson(mean_true - mean_perturbed, mean_predicted - mean_perturbed)


@family(
    perturbation_discrimination=share(
        "Wu et al. (2024), PerturBench; the Virtual Cell Challenge's PDS, Roohani et al. (2025), Cell 188:3370",
        "How many of the other perturbations' true means are farther from the prediction than its own, by L1.",
    ),
    centroid_accuracy=share(
        f"{_SYSTEMA}, centroid accuracy",
        "Whether of all perturbations' true means its own is the nearest to the prediction, by Euclidean distance.",
    ),
)
def retrieval(
    mean_predicted: Genes, means: Annotated[Floats, "n_perturbations>=2 n_genes"], own: int
) -> dict[str, float]:
    """Tell whether a predicted mean is more like its own perturbation than like the others.

    ``perturbation_discrimination = share of the others k with ‖m̂ − m_k‖₁ > ‖m̂ − m_own‖₁``; one as far counts half. 1
    is the nearest of all, and one half is chance. The challenge divides the rank by the number n of perturbations and
    not by n − 1: its score is 1 − (1 − ours) (n − 1) / n. ``centroid_accuracy`` is 1 where no other is as near, else 0;
    chance is 1 / n. With few perturbations both are coarse; their means over perturbations are what is read.

    Parameters
    ----------
    mean_predicted
        m̂, gene means of the predicted cells, (n_genes,).
    means
        m_k, gene means of the true cells of all held-out perturbations, (n_perturbations, n_genes).
    own
        Which of them was predicted.

    Raises
    ------
    ValueError
        If there is no perturbation ``own``, genes differ in number, or values are not finite.
    """
    if not 0 <= own < len(means):
        raise ValueError(f"own is {own}; the index of one of {len(means)} perturbations is needed")
    others = np.arange(len(means)) != own
    absolute = np.abs(means - mean_predicted).sum(axis=1)
    farther, as_far = absolute[others] > absolute[own], absolute[others] == absolute[own]
    euclidean = np.linalg.norm(means - mean_predicted, axis=1)
    return {
        "perturbation_discrimination": float(np.mean(farther + 0.5 * as_far)),
        "centroid_accuracy": float(euclidean[own] < euclidean[others].min()),
    }


def _of_top(top: NDArray[Any], *vectors: Floats) -> list[Floats]:
    """The entries of vectors over genes at the indices ``top``."""
    n_genes = len(vectors[0])
    if not np.issubdtype(top.dtype, np.integer) or top.min() < 0 or top.max() >= n_genes:
        raise ValueError(f"top is {top}; indices of genes from 0 to {n_genes - 1} are needed")
    return [vector[top] for vector in vectors]


def _one_is_no_change(a: Floats, b: Floats) -> bool:
    smaller, larger = sorted((float(np.linalg.norm(a)), float(np.linalg.norm(b))))
    return smaller <= NO_CHANGE * larger


def _moments(x: Floats) -> tuple[Floats, Floats]:
    """Mean and variance (ddof 1) of every column, exact (no rounding noise) for a constant one."""
    constant = np.all(x == x[0], axis=0)
    mean: Floats = np.where(constant, x[0], x.mean(axis=0))
    variance: Floats = np.where(constant, 0.0, x.var(axis=0, ddof=1))
    return mean, variance


def _welch(p: Floats, c: Floats) -> tuple[Floats, Floats]:
    """Welch's t and its degrees of freedom, (n_genes,) each."""
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
