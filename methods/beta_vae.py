"""The β-VAE."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from methods.base import searched
from methods.vae import VAE

if TYPE_CHECKING:
    from torch import Tensor

    from methods.variational import Forward


class BetaVAE(VAE):
    """β-VAE (Higgins et al. 2017, Eq. 4): a VAE whose KL to the prior weighs β.

    loss = −E_q(z|x) log p(x | z) + β·KL(q(z | x) ‖ N(0, I)), summed over genes and latents, averaged over cells;
    β has no meaning without that reduction. At β = 1 it is the VAE, bit for bit.

    By default its network is that of :class:`methods.vae.VAE`, so that their two rows differ by β alone; the
    ``paper`` preset has the network of the single-cell β-VAE of Lotfollahi et al. (bias-free linear, batch norm,
    LeakyReLU, dropout, five latents). Ours differs from theirs in the learned variance (theirs is a plain
    squared error) and in early stopping.
    """

    name = "beta-vae"
    tags = VAE.tags | {"disentanglement"}
    reference = "Higgins et al. 2017, ICLR, beta-VAE"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": VAE.presets["smoke"],
        "paper": {
            **VAE.presets["paper"],
            "n_latent": 5,
            "hidden": (800, 800),
            "activation": "leaky_relu",
            "dropout": 0.2,
        },
    }
    replicas = True

    @dataclass(frozen=True)
    class Config(VAE.Config):
        """The VAE's, with β."""

        # Higgins et al. 2017, 2-D shapes; 1 to 500 were swept on single cells
        beta: float = searched(4.0, 0.1, 50.0, log=True)

    def penalties(self, forward: Forward) -> dict[str, Tensor]:
        """Return β times the KL to the prior."""
        plain = super().penalties(forward)
        return {"kl": self.config.beta * plain["kl"]}
