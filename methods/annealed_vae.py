"""The β-VAE with controlled capacity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from methods.base import require, searched
from methods.vae import VAE

if TYPE_CHECKING:
    from torch import Tensor

    from methods.variational import Forward


class AnnealedVAE(VAE):
    """Capacity-annealed β-VAE (Burgess et al. 2018, Eq. 8): the KL is held at a capacity C that rises linearly.

    loss = −E_q(z|x) log p(x | z) + γ·|KL(q(z | x) ‖ N(0, I)) − C|, C in nats from 0 to ``capacity`` over the first
    ``rise`` epochs; |·| is of the mean KL of a minibatch. No weights count as best before C has risen.
    """

    name = "annealed-vae"
    tags = VAE.tags | {"disentanglement"}
    reference = "Burgess et al. 2018, arXiv 1804.03599; on single cells Lotfollahi et al."
    replicas = True

    @dataclass(frozen=True)
    class Config(VAE.Config):
        """The VAE's, with γ and the capacity."""

        gamma: float = searched(100.0, 1.0, 1000.0, log=True)  # ours; Burgess et al. 1000 on images of 4096 pixels
        # nats; Burgess et al. 2018, dSprites; 5 to 1000 were swept on single cells
        capacity: float = searched(25.0, 5.0, 1000.0, log=True)
        rise: int = 50  # epochs; ours, within which most fits of the VAE end

        def __post_init__(self) -> None:
            """Refuse what no data could make right."""
            super().__post_init__()
            for key in ("gamma", "capacity", "rise"):
                require(getattr(self, key) >= 0, key, getattr(self, key), "must be 0 or above")

    def warmup(self) -> int:
        """Return the epochs of the rise."""
        return int(self.config.rise)

    def penalties(self, forward: Forward) -> dict[str, Tensor]:
        """Return γ times the distance of the KL from the present capacity."""
        plain = super().penalties(forward)
        capacity = self.config.capacity * self.risen(forward.epoch)
        return {"kl": self.config.gamma * (plain["kl"] - capacity).abs()}
