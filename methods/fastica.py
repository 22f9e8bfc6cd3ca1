"""Independent component analysis by FastICA."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from methods.linear import LinearFactors

if TYPE_CHECKING:
    from anndata import AnnData


class FastICA(LinearFactors):
    """Linear codes that are as statistically independent as possible (negentropy, log cosh contrast).

    Codes have unit variance on the training cells. A fit that stops at ``max_iter`` is used and marked.
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
        from sklearn.decomposition import FastICA as SklearnFastICA
        from sklearn.exceptions import ConvergenceWarning

        n_latent = min(self.config.n_latent, data.n_obs, data.n_vars)
        ica = SklearnFastICA(
            n_latent,
            whiten="unit-variance",
            max_iter=self.config.max_iter,
            tol=self.config.tolerance,
            random_state=seed,
        )
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            ica.fit(np.asarray(data.X))
        if any(issubclass(warning.category, ConvergenceWarning) for warning in caught):
            self.unconverged = f"FastICA reached max_iter={self.config.max_iter}"
        self.mean = ica.mean_.astype(np.float32)
        self.encoder = np.ascontiguousarray(ica.components_.T, dtype=np.float32)
        self.decoder = np.ascontiguousarray(ica.mixing_.T, dtype=np.float32)
        self.remember_latents(data)
        return self
