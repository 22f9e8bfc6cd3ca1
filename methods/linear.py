"""Linear embeddings: principal components, independent components, random projection."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from methods.base import Method, key
from methods.errors import CannotFit
from methods.latent_arithmetic import LatentArithmetic

if TYPE_CHECKING:
    from anndata import AnnData


class LinearFactors(LatentArithmetic):
    """A linear encoder and decoder: codes z = (x − mean) E, expression x = z D + mean.

    ``fit`` sets ``mean`` (n_genes,), ``encoder`` (n_genes, n_latent) and ``decoder`` (n_latent, n_genes), all float32,
    then calls ``remember_latents``.
    """

    mean: np.ndarray
    encoder: np.ndarray
    decoder: np.ndarray

    def embed(self, data: AnnData) -> np.ndarray:
        """Return the codes (n_cells, n_latent)."""
        return (np.asarray(data.X) - self.mean) @ self.encoder

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Return the expression (n_cells, n_genes) of ``codes`` (n_cells, n_latent)."""
        return codes @ self.decoder + self.mean


class PCA(LinearFactors):
    """Principal components of the centred expression: the best linear codes for reconstruction.

    Codes are the scores, not whitened. There are at most as many codes as cells or genes.
    """

    name = "pca"
    tags = frozenset({"baseline", "embedding", "linear", "prediction"})
    paper = "Jolliffe 2002, Principal Component Analysis, 2nd ed., Springer"

    @dataclass(frozen=True)
    class Config(LatentArithmetic.Config):
        """Size of the code."""

        n_latent: int = key(10, above=0)  # the suite's common code size

    def fit(self, data: AnnData, seed: int) -> Self:
        """Fit by scikit-learn, with its choice of solver."""
        from sklearn.decomposition import PCA as SklearnPCA

        n_latent = min(self.config.n_latent, data.n_obs, data.n_vars)
        pca = SklearnPCA(n_latent, random_state=seed).fit(np.asarray(data.X))
        self.mean, self.decoder = pca.mean_, pca.components_
        self.encoder = np.ascontiguousarray(pca.components_.T)
        self.remember_latents(data)
        return self


class FastICA(LinearFactors):
    """Linear codes that are as statistically independent as possible (negentropy, log cosh contrast).

    Codes have unit variance on the training cells. There are at most as many codes as the cells span dimensions:
    whitening a further code would scale rounding noise to unit variance. A fit that stops at ``max_iter`` is used and
    marked.
    """

    name = "fastica"
    tags = frozenset({"baseline", "disentanglement", "embedding", "linear", "prediction"})
    paper = "Hyvärinen & Oja 2000, Neural Networks 13:411"

    @dataclass(frozen=True)
    class Config(LatentArithmetic.Config):
        """Size of the code and the stopping rule."""

        n_latent: int = key(10, above=0)  # the suite's common code size
        max_iter: int = key(1000, above=0)  # scikit-learn's 200 leaves the sparse-shift simulation unconverged
        tolerance: float = key(1e-4, above=0)  # scikit-learn's default

    def fit(self, data: AnnData, seed: int) -> Self:
        """Fit by scikit-learn (parallel updates, whitening by the leading principal components)."""
        from sklearn.decomposition import PCA as SklearnPCA
        from sklearn.decomposition import FastICA as SklearnFastICA
        from sklearn.exceptions import ConvergenceWarning

        # in single precision the rank is uncertain, and whitened components can collapse without a warning
        x = np.asarray(data.X, dtype=np.float64)
        # relative to one cell a constant gene is exactly zero; relative to the mean it would be rounding noise
        spread = x - x[0]
        if not spread.any():
            raise CannotFit(f"FastICA needs cells that differ; all of the {data.n_obs} are alike")
        pca = SklearnPCA(min(self.config.n_latent, data.n_obs - 1, data.n_vars), random_state=seed).fit(spread)
        # whitening would scale a component within the rounding of float32 to unit variance
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


class RandomProjection(Method):
    """Project the genes on random Gaussian directions, z = x R / √n_latent with R ~ N(0, 1).

    By the Johnson–Lindenstrauss lemma distances are kept in expectation. It learns nothing, so that it is perfectly
    stable when a unit is held out: stability alone is worth nothing.
    """

    name = "random-projection"
    tags = frozenset({"baseline", "embedding", "linear"})
    paper = "Johnson & Lindenstrauss 1984, Contemporary Mathematics 26:189"

    @dataclass(frozen=True)
    class Config:
        """Size of the code."""

        n_latent: int = key(10, above=0)  # the suite's common code size

    def fit(self, data: AnnData, seed: int) -> Self:
        """Draw the directions."""
        shape = (data.n_vars, self.config.n_latent)
        draw = np.random.default_rng(seed).standard_normal(shape)
        self.directions = (draw / np.sqrt(self.config.n_latent)).astype(np.float32)
        return self

    def embed(self, data: AnnData) -> np.ndarray:
        """Return the projections (n_cells, n_latent)."""
        return np.asarray(data.X) @ self.directions
