"""Uniform manifold approximation and projection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from methods.base import Method, key, searched
from methods.errors import CannotFit

if TYPE_CHECKING:
    from anndata import AnnData


class UMAP(Method):
    """UMAP of the leading principal components; new cells are placed by its own transform.

    It embeds only: its inverse transform is not a generative model, so it neither decodes nor predicts. Its neighbour
    index cannot be stored, so that each job fits it anew. One thread and a fixed seed give the same codes bit for bit
    on one machine. The layout is chaotic: rounding decides it, so that another processor gives another layout. Each fit
    has a remark about this.
    """

    name = "umap"
    tags = frozenset({"baseline", "embedding"})
    paper = "McInnes, Healy, Melville 2018, arXiv 1802.03426"
    embeds_together = True

    @dataclass(frozen=True)
    class Config:
        """UMAP's own defaults, on principal components."""

        n_latent: int = key(2, above=0)  # McInnes et al. 2018 and umap-learn
        n_neighbors: int = searched(15, 5, 100, log=True, least=2)  # umap-learn
        min_dist: float = searched(0.1, 0.0, 0.8, least=0)  # umap-learn
        n_components_pca: int = key(50, above=0)  # scanpy's practice for expression data

    @classmethod
    def preload(cls) -> None:
        """Compile UMAP, which takes longer than a small fit."""
        from umap import UMAP as UmapLearn

        x = np.random.default_rng(0).standard_normal((60, 5)).astype(np.float32)
        UmapLearn(n_neighbors=5, n_epochs=5, random_state=0, n_jobs=1).fit(x).transform(x[:10])

    def fit(self, data: AnnData, seed: int) -> Self:
        """Fit principal components, then UMAP."""
        if data.n_obs <= self.config.n_latent + 2:
            raise CannotFit(f"UMAP needs more than {self.config.n_latent + 2} cells, got {data.n_obs}")
        from sklearn.decomposition import PCA
        from umap import UMAP as UmapLearn

        x = np.asarray(data.X)
        self.pca = PCA(min(self.config.n_components_pca, *x.shape), random_state=seed).fit(x)
        self.umap = UmapLearn(
            n_components=self.config.n_latent,
            n_neighbors=min(self.config.n_neighbors, data.n_obs - 1),
            min_dist=self.config.min_dist,
            random_state=seed,
            n_jobs=1,
        ).fit(self.pca.transform(x))
        self.note("the layout depends on rounding: another processor gives another one")
        return self

    def embed(self, data: AnnData) -> np.ndarray:
        """Return the codes (n_cells, n_latent)."""
        return np.asarray(self.umap.transform(self.pca.transform(np.asarray(data.X))))
