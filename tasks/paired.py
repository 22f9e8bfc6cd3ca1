"""What is asked of the very fit that a task scores: disentanglement, where the factors are known, and curvature."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from metrics import METRICS
from tasks.splits import handed

if TYPE_CHECKING:
    from anndata import AnnData

#: Quick metrics that need no classifier, of the codes of training cells.
DISENTANGLEMENT = ("mcc", "latent_r2", "mig", "sap")
#: Metrics of the decoder at these codes.
CURVATURES = ("extrinsic_curvature", "parameter_effects_curvature")
PAIRED = (*DISENTANGLEMENT, *CURVATURES)

#: Most points at which a decoder's curvature is taken, and most numbers in their Gram matrices (d = 20: 94 points).
MAX_POINTS, MAX_NUMBERS = 200, 5_000_000


def paired_scores(fitted: Any, training: AnnData, data: AnnData) -> dict[str, float]:
    """Return the disentanglement of the fitted method's codes of its training cells, and the curvature there.

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
        Each of :data:`PAIRED`; without the first four for real data and for a method that does not embed, without the
        last two for one that has no ``derivative_gram``.
    """
    scores = curvature_scores(fitted, training)
    if "factors" not in data.obsm or not hasattr(fitted, "embed"):
        return scores
    factors = np.asarray(data[training.obs_names].obsm["factors"])
    codes = fitted.embed(training)
    return scores | {
        name: METRICS[name](*((factors, codes) if name in ("mcc", "latent_r2") else (codes, factors)))
        for name in DISENTANGLEMENT
    }


def curvature_scores(fitted: Any, training: AnnData) -> dict[str, float]:
    """Return each of :data:`CURVATURES` at the codes of some training cells; nothing without the ability.

    The ability is ``derivative_gram(codes) -> (n_points, k, k)``, see :mod:`metrics.curvature`. Where it has NaN, as of
    a decoder that is not smooth, the curvatures are NaN.
    """
    if not (hasattr(fitted, "derivative_gram") and hasattr(fitted, "embed")):
        return {}
    order = np.random.default_rng(87).permutation(training.n_obs)
    codes = np.asarray(fitted.embed(handed(training, np.sort(order[:MAX_POINTS]))))
    n_latent = codes.shape[1]
    k = n_latent + n_latent * (n_latent + 1) // 2
    gram = np.asarray(fitted.derivative_gram(codes[: max(1, MAX_NUMBERS // k**2)]))
    if np.isnan(gram).any():
        return dict.fromkeys(CURVATURES, float("nan"))
    return {name: METRICS[name](gram, n_latent) for name in CURVATURES}
