"""Independent component analysis by FastICA."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from methods.base import CannotFit
from methods.linear import LinearFactors

if TYPE_CHECKING:
    from anndata import AnnData


class FastICA(LinearFactors):
    """Linear codes that are as statistically independent as possible (negentropy, log cosh contrast).

    Codes have unit variance on the training cells. There are never more of them than the cells span dimensions:
    whitening one more would blow rounding noise up to unit variance. A fit that stops at ``max_iter`` is used and
    marked.
    """

    name = "fastica"
    tags = frozenset({"baseline", "disentanglement", "embedding", "linear", "prediction"})
    reference = "Hyvärinen & Oja 2000, Neural Networks 13:411"

    @dataclass(frozen=True)
    class Config:
        """Size of the code and the stopping rule."""

        n_latent: int = 10  # the suite's common code size
        max_iter: int = 1000  # scikit-learn's 200 leaves the sparse-shift simulation unconverged
        tolerance: float = 1e-4  # scikit-learn's default

    def fit(self, data: AnnData, seed: int) -> Self:
        """Fit by scikit-learn (parallel updates, whitening by the leading principal components)."""
        from sklearn.decomposition import PCA
        from sklearn.decomposition import FastICA as SklearnFastICA
        from sklearn.exceptions import ConvergenceWarning

        # in single precision the rank cannot be told, and whitened components can collapse without a warning
        x = np.asarray(data.X, dtype=np.float64)
        # against one cell, a constant gene is exactly zero; against the mean it would be rounding noise
        spread = x - x[0]
        if not spread.any():
            raise CannotFit(f"FastICA needs cells that differ; all of the {data.n_obs} are alike")
        pca = PCA(min(self.config.n_latent, data.n_obs - 1, data.n_vars), random_state=seed).fit(spread)
        # a component within the rounding of float32 is none; whitening would blow it up to unit variance
        noise = 10 * np.finfo(np.float32).eps * np.sqrt(max(x.shape)) * pca.singular_values_[0]
        components = pca.components_[pca.singular_values_ > noise]
        ica = SklearnFastICA(
            len(components),
            whiten="unit-variance",
            max_iter=self.config.max_iter,
            tol=self.config.tolerance,
            random_state=seed,
        )
        scores = (spread - pca.mean_) @ components.T
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            ica.fit(scores)
        if any(issubclass(warning.category, ConvergenceWarning) for warning in caught):
            self.unconverged = f"FastICA reached max_iter={self.config.max_iter}"
        self.mean = (pca.mean_ + x[0]).astype(np.float32)
        self.encoder = np.ascontiguousarray(components.T @ ica.components_.T, dtype=np.float32)
        self.decoder = np.ascontiguousarray(ica.mixing_.T @ components, dtype=np.float32)
        self.remember_latents(data)
        return self
