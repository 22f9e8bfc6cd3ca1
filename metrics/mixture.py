"""Metrics of mixtures: is a composition that was never seen read out, and is its expression predicted?"""

from __future__ import annotations

from typing import Annotated

import numpy as np

from metrics.arrays import Floats
from metrics.base import metric

Proportions = Annotated[Floats, "n_cells n_parts"]
Profile = Annotated[Floats, "n_genes"]


@metric(
    better="lower",
    low=0.0,
    high=np.inf,
    paper="root mean square error of proportions, as deconvolution is scored (Newman et al. 2015, Nat Methods)",
)
def composition_error(proportions: Proportions, proportions_hat: Proportions) -> float:
    """Root mean square difference of true and read-out proportions, over cells and parts.

    Parameters
    ----------
    proportions, proportions_hat
        Shares in [0, 1], and what is read out, which may lie outside, (n_cells, n_parts).

    Raises
    ------
    ValueError
        If shapes differ, or values are not finite.
    """
    return float(np.sqrt(np.mean((proportions - proportions_hat) ** 2)))


@metric(
    better="lower",
    low=0.0,
    high=np.inf,
    paper="1 minus the skill score of forecast verification (Murphy 1988, Mon Weather Rev 116:2417)",
)
def profile_error(mean_true: Profile, mean_predicted: Profile, mean_trained: Profile) -> float:
    """Squared error of a predicted mean profile, as a share of that of the training mean.

    ``Σ(m − m̂)² / Σ(m − m̄)²``: 0 is exact, 1 is no better than the mean of the training cells, and worse is above 1. Not
    a number where the true profile is the training mean.

    Parameters
    ----------
    mean_true, mean_predicted, mean_trained
        Mean expression of the held-out cells, its prediction, and the mean of the training cells, (n_genes,).

    Raises
    ------
    ValueError
        If lengths differ, or values are not finite.
    """
    distance = np.sum((mean_true - mean_trained) ** 2)
    return float(np.sum((mean_true - mean_predicted) ** 2) / distance) if distance > 0 else float("nan")
