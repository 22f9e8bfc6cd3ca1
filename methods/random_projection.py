"""Random projection: a frozen linear map that learns nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from methods.base import Method

if TYPE_CHECKING:
    from anndata import AnnData


class RandomProjection(Method):
    """Project the genes on random Gaussian directions, z = x R / √n_latent with R ~ N(0, 1).

    By the Johnson–Lindenstrauss lemma distances are kept in expectation. It is perfectly stable when a
    unit is held out, and is in the registry to show that stability alone is worth nothing.
    """

    name = "random-projection"
    tags = frozenset({"baseline", "embedding", "linear"})
    reference = "Johnson & Lindenstrauss 1984, Contemporary Mathematics 26:189"

    @dataclass(frozen=True)
    class Config:
        """Size of the code."""

        n_latent: int = 10  # the suite's common code size

    def fit(self, data: AnnData, seed: int) -> Self:
        """Draw the directions."""
        shape = (data.n_vars, self.config.n_latent)
        draw = np.random.default_rng(seed).standard_normal(shape)
        self.directions = (draw / np.sqrt(self.config.n_latent)).astype(np.float32)
        return self

    def embed(self, data: AnnData) -> np.ndarray:
        """Return the projections (n_cells, n_latent)."""
        return np.asarray(data.X) @ self.directions

    def state(self) -> dict[str, Any]:
        """Return the directions."""
        return {"directions": self.directions}

    def restore(self, state: dict[str, Any]) -> None:
        """Take back the directions."""
        self.directions = state["directions"]
