"""The two DIP-VAEs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from methods.base import require, searched
from methods.vae import VAE

if TYPE_CHECKING:
    from torch import Tensor

    from methods.variational import Forward


class DIPVAE(VAE):
    """DIP-VAE-I (Kumar, Sattigeri, Balakrishnan 2018, Eq. 6): the covariance of posterior means is made the identity.

    loss = VAE's + λ_od Σ_{i≠j} Cov[μ]_ij² + λ_d Σ_i (Cov[μ]_ii − 1)², the covariance over a minibatch. With both
    weights 0 it is the VAE, bit for bit.
    """

    name = "dip-vae-i"
    tags = VAE.tags | {"disentanglement"}
    reference = "Kumar, Sattigeri, Balakrishnan 2018, arXiv 1711.00848"
    replicas = True

    @dataclass(frozen=True)
    class Config(VAE.Config):
        """The VAE's, with the weights of the covariance."""

        off_diagonal: float = searched(10.0, 0.1, 100.0, log=True)  # λ_od; Kumar et al. 2018, 2-D shapes
        diagonal: float = searched(100.0, 0.1, 1000.0, log=True)  # λ_d = 10 λ_od; Kumar et al. 2018

        def __post_init__(self) -> None:
            """Refuse what no data could make right."""
            super().__post_init__()
            for key in ("off_diagonal", "diagonal"):
                require(getattr(self, key) >= 0, key, getattr(self, key), "must be 0 or above")

    def penalties(self, forward: Forward) -> dict[str, Tensor]:
        """Return the KL and the distance of the covariance from the identity."""
        from methods.nn.penalties import dip

        terms = super().penalties(forward)
        if self.config.off_diagonal > 0 or self.config.diagonal > 0:
            terms["dip"] = dip(
                forward.mean, self.posterior_log_variance(forward), self.config.off_diagonal, self.config.diagonal
            )
        return terms

    def posterior_log_variance(self, forward: Forward) -> Tensor | None:
        """Return what is added to the covariance of the means: nothing."""
        return None


class DIPVAE2(DIPVAE):
    """DIP-VAE-II (Kumar, Sattigeri, Balakrishnan 2018, Eq. 7): the covariance of q(z) is made the identity.

    As DIP-VAE-I, with Cov[μ] + E[Σ] in place of Cov[μ].
    """

    name = "dip-vae-ii"
    replicas = True

    @dataclass(frozen=True)
    class Config(DIPVAE.Config):
        """DIP-VAE-I's, with one weight for both."""

        off_diagonal: float = searched(10.0, 0.1, 100.0, log=True)  # ours, as DIP-VAE-I
        diagonal: float = searched(10.0, 0.1, 1000.0, log=True)  # λ_d = λ_od; Kumar et al. 2018

    def posterior_log_variance(self, forward: Forward) -> Tensor | None:
        """Return the posterior's."""
        return forward.log_variance
