"""Metrics of perturbations that a model was not trained on: adapted to from few cells, or composed of known ones."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from metrics.arrays import as_floats, require_same_shape
from metrics.base import metric
from metrics.perturbation import delta_pearson, skill

_SPARSE_SHIFT = "Lopez et al. (2023), CLeaR, PMLR 213:662, transfer to unseen interventions"


@metric(better="higher", low=-np.inf, high=1.0, reference="task few-shot-perturbation")
def skill_half(mean_true: ArrayLike, mean_predicted: ArrayLike, mean_half: ArrayLike) -> float:
    """Skill over the mean of one half of a perturbation's cells, scored on the other half.

    ``S = 1 - Σ_g (m_g - m̂_g)² / Σ_g (m_g - h_g)²`` over genes: 0 is what the half's own mean h does, and, both halves
    being as noisy, 1/2 is what the noiseless mean would get. Not a number if h is exact.

    Parameters
    ----------
    mean_true, mean_predicted, mean_half
        m, m̂ and h, (n_genes,).

    Raises
    ------
    ValueError
        If shapes differ, or values are not finite.
    """
    return skill(mean_true, mean_predicted, mean_half, np.ones(np.shape(mean_true)))


@metric(better="higher", low=-np.inf, high=np.inf, reference=_SPARSE_SHIFT)
def likelihood_gain(adapted: ArrayLike, unadapted: ArrayLike, n_genes: int) -> float:
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
    after, before = as_floats("adapted", adapted, 1), as_floats("unadapted", unadapted, 1)
    require_same_shape(adapted=after, unadapted=before)
    if n_genes < 1:
        raise ValueError(f"n_genes is {n_genes}; at least 1 is needed")
    return float(np.mean(after - before) / n_genes)


@metric(better="higher", low=-1.0, high=1.0, reference="GEARS: Roohani et al. (2024), Nat. Biotechnol. 42:927, top 20")
def delta_pearson_top_degs(delta_true: ArrayLike, delta_predicted: ArrayLike, top: ArrayLike) -> float:
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
    true, predicted = as_floats("delta_true", delta_true, 1), as_floats("delta_predicted", delta_predicted, 1)
    require_same_shape(delta_true=true, delta_predicted=predicted)
    indices = np.asarray(top)
    if indices.ndim != 1 or indices.size < 2 or not np.issubdtype(indices.dtype, np.integer):
        raise ValueError(f"top has shape {indices.shape} and dtype {indices.dtype}; at least 2 integers are needed")
    if indices.min() < 0 or indices.max() >= len(true):
        raise ValueError(f"top runs from {indices.min()} to {indices.max()}; there are {len(true)} genes, from 0")
    return delta_pearson(true[indices], predicted[indices])
