"""What linear factor models share: codes z = (x − mean) E, expression x = z D + mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from methods.latent_arithmetic import LatentArithmetic

if TYPE_CHECKING:
    from anndata import AnnData


class LinearFactors(LatentArithmetic):
    """A linear encoder and decoder. ``fit`` sets ``mean`` (n_genes,), ``encoder`` (n_genes, n_latent) and
    ``decoder`` (n_latent, n_genes), all float32, then calls ``remember_latents``.
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

    def state(self) -> dict[str, Any]:
        """Return the linear maps and the latent means."""
        return {"mean": self.mean, "encoder": self.encoder, "decoder": self.decoder, **self.latent_state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take back the linear maps and the latent means."""
        self.mean, self.encoder, self.decoder = state["mean"], state["encoder"], state["decoder"]
        self.restore_latents(state)
