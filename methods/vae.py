"""The variational autoencoder, to which every other one here is compared."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np

from methods.latent_arithmetic import LatentArithmetic
from methods.variational import Variational

if TYPE_CHECKING:
    from anndata import AnnData

#: Where the decoder bends smoothly, and its output is expression in the scaled units of the penalties.
CURVED = {
    "activation": ("softplus", "elu", "silu"),
    "norm": ("none", "batch"),
    "likelihood": ("gaussian", "gene-gaussian", "squared-error"),
}


class VAE(Variational, LatentArithmetic):
    """Variational autoencoder (Kingma & Welling 2014, Eq. 10).

    loss = −E_q(z|x) log p(x | z) + KL(q(z | x) ‖ N(0, I)), summed over genes and latents, averaged over cells,
    with one posterior draw a cell. By default the likelihood is Gaussian: genes are centred on the training mean and
    divided by one common scale, with one learned variance (σ-VAE), so that reconstruction and KL stand in
    proportion on any data. ``decode`` and ``predict`` return the expectation of X.
    """

    name = "vae"
    tags = frozenset({"embedding", "prediction", "vae"})
    reference = "Kingma & Welling 2014, arXiv 1312.6114"
    replicas = True

    def settle(self, data: AnnData) -> None:
        """Keep the mean codes of the training cells."""
        self.remember_latents(data)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Return the expected expression (n_cells, n_genes) of ``codes`` (n_cells, n_latent), on the scale of X."""
        return self.expression_of(codes)

    def derivative_gram(self, codes: np.ndarray) -> np.ndarray:
        """Return the Gram matrices (n_points, k, k) of the decoder's derivatives J_1 … J_d, H_ij (i ≤ j) at ``codes``.

        In units in which the training data have a total variance of 1, so that curvatures made of it have none. NaN for
        a decoder that is not smooth, or does not return expression (counts).
        """
        import torch

        from methods.nn.curvature import derivative_gram

        setting = {"activation": self.config.activation, "norm": self.config.norm, "likelihood": self.likelihood}
        if any(value not in CURVED[key] for key, value in setting.items()):
            k = codes.shape[1] * (codes.shape[1] + 3) // 2
            return np.full((len(codes), k, k), np.nan)
        # inverting an ill-conditioned metric takes the digits that single precision lacks
        decoder = deepcopy(self.network["decoder"]).double()
        with torch.no_grad():
            z = torch.from_numpy(np.asarray(codes, dtype=np.float64)).to(self.where)
            grams = [derivative_gram(decoder, chunk).cpu().numpy() for chunk in z.split(512)]
        return np.concatenate(grams) / self.network["observation"].n_genes

    def state(self) -> dict[str, Any]:
        """Return the weights and the latent means."""
        return {**super().state(), **self.latent_state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take back the weights and the latent means."""
        super().restore(state)
        self.restore_latents(state)
