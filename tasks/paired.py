"""Metrics beside a score: disentanglement and curvature of the same fit, and the distance of the held-out cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.base import scored
from tasks.datasets.base import labels
from tasks.splits import handed

if TYPE_CHECKING:
    from anndata import AnnData

#: Quick metrics of the codes of training cells, without a classifier.
DISENTANGLEMENT = ("mcc", "latent_r2", "mig", "sap")
#: Metrics of the decoder at these codes.
CURVATURES = ("extrinsic_curvature", "parameter_effects_curvature")
#: The reconstruction of training cells, which disentanglement may cost.
RECONSTRUCTION = "training_reconstruction_error"
PAIRED = (*DISENTANGLEMENT, *CURVATURES, RECONSTRUCTION)
#: Whether batches are mixed and labels kept, where a task has both; kBET at the preset ``paper`` only.
INTEGRATION = (
    "ilisi",
    "bras",
    "graph_connectivity",
    "pcr_comparison",
    "kbet_per_label",
    "clisi",
    "nmi_leiden",
    "ari_leiden",
    "silhouette_label",
    "isolated_labels",
)
#: Integration is compared with this many principal components of the expression.
N_COMPONENTS = 50
#: At most this many training cells are reconstructed.
MAX_CELLS = 500

#: Distances are taken of at most this many held-out and this many training cells.
MAX_COMPARED = 1000
#: A decoder's curvature is taken at so many points at most, with so many numbers in all Gram matrices (94 points at
#: d = 20).
MAX_POINTS, MAX_NUMBERS = 200, 5_000_000


def paired_scores(fitted: Any, training: AnnData, data: AnnData) -> dict[str, float]:
    """Return the disentanglement of the fitted method's codes of its training cells, the curvature there and the error.

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
        Those of :data:`PAIRED` that are possible: the first four need a method that embeds and data that are simulated,
        the curvatures ``derivative_gram``, the reconstruction a method that embeds and decodes or predicts.
    """
    scores = {**curvature_scores(fitted, training), **_reconstruction(fitted, training)}
    if "factors" not in data.obsm or not hasattr(fitted, "embed"):
        return scores
    factors = np.asarray(data[training.obs_names].obsm["factors"])
    codes = fitted.embed(training)
    return scores | scored(DISENTANGLEMENT, codes=codes, factors=factors, z=codes, z_true=factors)


def _reconstruction(fitted: Any, training: AnnData) -> dict[str, float]:
    """Return the error of decoded codes; without ``decode``, of cells predicted in their environment."""
    if not hasattr(fitted, "embed") or not (hasattr(fitted, "decode") or hasattr(fitted, "predict")):
        return {}
    order = np.random.default_rng(89).permutation(training.n_obs)
    cells = handed(training, np.sort(order[:MAX_CELLS]))
    if hasattr(fitted, "decode"):
        decoded = fitted.decode(fitted.embed(cells))
    else:
        decoded = np.empty(cells.shape, dtype=np.float32)
        environments = labels(cells, "environment")
        for environment in np.unique(environments):
            here = environments == environment
            decoded[here] = fitted.predict(handed(cells, here), str(environment))
    return scored((RECONSTRUCTION,), x_train=np.asarray(cells.X), x_train_hat=np.asarray(decoded))


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
    return scored(CURVATURES, gram=gram, n_latent=n_latent)


def components(x: np.ndarray) -> np.ndarray:
    """Return the principal components of expression (n_cells, n_genes), as the integration metrics take it."""
    from sklearn.decomposition import PCA

    return PCA(min(N_COMPONENTS, *x.shape), svd_solver="randomized", random_state=0).fit_transform(x)


def distance_score(held_out: np.ndarray, training: np.ndarray) -> dict[str, float]:
    """Return :func:`metrics.embedding.ood_distance` of expression, (n_cells, n_genes) each, of a sample of the cells.

    It is the same for all methods of a unit. Over units it tells whether a method fails where the distance is large.
    """
    rng = np.random.default_rng(88)
    few, many = (x[np.sort(rng.permutation(len(x))[:MAX_COMPARED])] for x in (held_out, training))
    return scored(("ood_distance",), held_out=few, training=many)
