"""The β-TCVAE."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from methods.base import require, searched
from methods.vae import VAE

if TYPE_CHECKING:
    from anndata import AnnData
    from torch import Tensor

    from methods.variational import Forward


class BetaTCVAE(VAE):
    """β-TCVAE (Chen et al. 2018, Eq. 4 with α = γ = 1): of the KL only the total correlation weighs β.

    loss = −E_q(z|x) log p(x | z) + KL(q(z | x) ‖ N(0, I)) + (β − 1)·TC, TC = KL(q(z) ‖ Π_j q(z_j)) by their minibatch
    stratified sampling (appendix C.2). At β = 1 it is the VAE, bit for bit.
    """

    name = "beta-tcvae"
    tags = VAE.tags | {"disentanglement"}
    reference = "Chen et al. 2018, arXiv 1802.04942"
    replicas = True

    @dataclass(frozen=True)
    class Config(VAE.Config):
        """The VAE's, with β."""

        beta: float = searched(6.0, 1.0, 50.0, log=True)  # Chen et al. 2018, dSprites

        def __post_init__(self) -> None:
            """Refuse what no data could make right."""
            super().__post_init__()
            require(self.beta >= 0, "beta", self.beta, "must be 0 or above")

    def learn_labels(self, data: AnnData) -> None:
        """Note the number of cells, which the estimate of q(z) needs."""
        self.n_cells = data.n_obs

    def penalties(self, forward: Forward) -> dict[str, Tensor]:
        """Return the KL and (β − 1) times the total correlation."""
        from methods.nn.penalties import total_correlation

        terms = super().penalties(forward)
        if self.config.beta != 1:
            cells = self.sample(forward)
            correlation = total_correlation(cells.z, cells.mean, cells.log_variance, self.n_cells)
            terms["total_correlation"] = (self.config.beta - 1) * correlation.mean(-1)
        return terms
