"""Disentanglement of the very fit that is scored out of distribution, where a simulator knows the true factors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from metrics import METRICS

if TYPE_CHECKING:
    from anndata import AnnData

#: What is scored: quick metrics that need no classifier.
PAIRED = ("mcc", "latent_r2", "mig", "sap")


def paired_scores(fitted: Any, training: AnnData, data: AnnData) -> dict[str, float]:
    """Return the disentanglement of the fitted method's codes of its training cells.

    Parameters
    ----------
    fitted
        The method, fitted without the held-out unit.
    training
        The cells that it was fitted to.
    data
        The whole data set; a simulated one has the true factors in ``obsm["factors"]``.

    Returns
    -------
    dict
        Each of :data:`PAIRED`; empty for real data and for a method that does not embed.
    """
    if "factors" not in data.obsm or not hasattr(fitted, "embed"):
        return {}
    factors = np.asarray(data[training.obs_names].obsm["factors"])
    codes = fitted.embed(training)
    return {
        name: METRICS[name](*((factors, codes) if name in ("mcc", "latent_r2") else (codes, factors)))
        for name in PAIRED
    }
