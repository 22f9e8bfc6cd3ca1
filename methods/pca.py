"""Principal component analysis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from methods.linear import LinearFactors

if TYPE_CHECKING:
    from anndata import AnnData


class PCA(LinearFactors):
    """Principal components of the centred expression: the best linear codes for reconstruction.

    Codes are the scores, not whitened. There are never more of them than cells or genes.
    """

    name = "pca"
    tags = frozenset({"baseline", "embedding", "linear", "prediction"})
    reference = "Jolliffe 2002, Principal Component Analysis, 2nd ed., Springer"

    @dataclass(frozen=True)
    class Config:
        """Size of the code."""

        n_latent: int = 10  # the suite's common code size

    def fit(self, data: AnnData, seed: int) -> Self:
        """Fit by scikit-learn, with its choice of solver."""
        from sklearn.decomposition import PCA as SklearnPCA

        n_latent = min(self.config.n_latent, data.n_obs, data.n_vars)
        pca = SklearnPCA(n_latent, random_state=seed).fit(np.asarray(data.X))
        self.mean, self.decoder = pca.mean_, pca.components_
        self.encoder = np.ascontiguousarray(pca.components_.T)
        self.remember_latents(data)
        return self
