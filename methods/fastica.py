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
        from sklearn.decomposition import FastICA as SklearnFastICA
        from sklearn.exceptions import ConvergenceWarning

        x = np.asarray(data.X)
        n_latent = min(self.config.n_latent, _n_dimensions(x))
        if n_latent < 1:
            raise CannotFit(f"FastICA needs cells that differ; all of the {data.n_obs} are alike")
        ica = SklearnFastICA(
            n_latent,
            whiten="unit-variance",
            max_iter=self.config.max_iter,
            tol=self.config.tolerance,
            random_state=seed,
        )
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            ica.fit(x)
        if any(issubclass(warning.category, ConvergenceWarning) for warning in caught):
            self.unconverged = f"FastICA reached max_iter={self.config.max_iter}"
        self.mean = ica.mean_.astype(np.float32)
        self.encoder = np.ascontiguousarray(ica.components_.T, dtype=np.float32)
        self.decoder = np.ascontiguousarray(ica.mixing_.T, dtype=np.float32)
        self.remember_latents(data)
        return self


def _n_dimensions(x: np.ndarray) -> int:
    """Return how many dimensions the centred ``x`` (n_cells, n_genes) spans, beyond the rounding of float32."""
    # against one cell, a constant gene is exactly zero; against the mean it would be rounding noise
    spread = x - x[0]
    singular = np.linalg.svd(spread - spread.mean(axis=0), compute_uv=False)
    noise = 10 * np.finfo(np.float32).eps * np.sqrt(max(x.shape)) * singular[0]
    return min(int((singular > noise).sum()), len(x) - 1)
