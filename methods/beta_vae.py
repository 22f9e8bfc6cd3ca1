"""The β-VAE."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from methods.vae import VAE

if TYPE_CHECKING:
    from torch import Tensor


class BetaVAE(VAE):
    """β-VAE (Higgins et al. 2017, Eq. 4): a VAE whose KL to the prior weighs β.

    loss = −E_q(z|x) log p(x | z) + β·KL(q(z | x) ‖ N(0, I)), summed over genes and latents, averaged over cells.
    β has no meaning without that reduction. Network of the single-cell β-VAE of Lotfollahi et al.: bias-free
    linear, batch norm, LeakyReLU, dropout. Ours differs from theirs in the learned gene variances of
    :class:`methods.vae.VAE` (theirs is a plain squared error) and in early stopping. At β = 1 with the VAE's
    network it is the VAE, bit for bit.
    """

    name = "beta-vae"
    tags = VAE.tags | {"disentanglement"}
    reference = "Higgins et al. 2017, ICLR, beta-VAE"

    @dataclass(frozen=True)
    class Config(VAE.Config):
        """The VAE's, with β and the single-cell network."""

        beta: float = 4.0  # Higgins et al. 2017, 2-D shapes; 1 to 500 were swept on single cells
        n_latent: int = 5  # Lotfollahi et al., single-cell β-VAE
        hidden: tuple[int, ...] = (800, 800)  # Lotfollahi et al.
        activation: str = "leaky_relu"  # Lotfollahi et al.
        dropout: float = 0.2  # Lotfollahi et al.

    def penalties(
        self, mean: Tensor, log_variance: Tensor, z: Tensor, minibatch: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return β times the KL to the prior."""
        plain = super().penalties(mean, log_variance, z, minibatch)
        return {"kl": self.config.beta * plain["kl"]}
