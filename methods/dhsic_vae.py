"""VAEs with an independence criterion on their codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from methods.base import column, require, searched
from methods.vae import VAE

if TYPE_CHECKING:
    from anndata import AnnData
    from torch import Tensor

    from methods.variational import Forward

#: ε under the root.
EPSILON = 1e-6


class DHSICVAE(VAE):
    """dHSIC-VAE, *coordinates*: all latents are made mutually independent (Lopez et al. 2018, HCV, Eq. 5).

    loss = VAE's + λ·√(dHSIC(z_1, …, z_d) + ε), the d-variable Hilbert-Schmidt independence criterion of the posterior
    draws of a minibatch, with Gaussian kernels of bandwidth E‖x − x′‖ of standard normals. The root falls also when
    codes shrink; only the rest of the loss fixes their scale. At λ = 0 it is the VAE, bit for bit.
    """

    name = "dhsic-vae"
    tags = VAE.tags | {"disentanglement"}
    reference = "Lopez, Regier, Jordan, Yosef 2018, NeurIPS: Information Constraints on Auto-Encoding Variational Bayes"
    replicas = True

    @dataclass(frozen=True)
    class Config(VAE.Config):
        """The VAE's, with λ."""

        dhsic: float = searched(100.0, 1.0, 1e4, log=True)  # ours

        def __post_init__(self) -> None:
            """Refuse what no data could make right."""
            super().__post_init__()
            require(self.dhsic >= 0, "dhsic", self.dhsic, "must be 0 or above")

    def penalties(self, forward: Forward) -> dict[str, Tensor]:
        """Return the KL and λ times the root of the criterion."""
        from methods.nn.penalties import sqrt_dhsic

        terms = super().penalties(forward)
        if self.config.dhsic > 0:
            terms["dhsic"] = self.config.dhsic * sqrt_dhsic(self.kernels(self.sample(forward)), EPSILON)
        return terms

    def kernels(self, forward: Forward) -> Tensor:
        """Return the kernel matrices (n_variables, n, n): one for each latent."""
        from methods.nn.penalties import coordinate_kernels

        return coordinate_kernels(forward.z)


class DHSICNuisanceVAE(DHSICVAE):
    """dHSIC-VAE, *nuisance*: a block of the latents is made independent of the environment (Lopez et al. 2018, HCV).

    loss = VAE's + λ·√(HSIC(shared block of z, environment) + ε), with a Gaussian kernel on the first ``n_latent`` −
    ``n_private`` latents and a delta kernel on the environment: a weighted maximum mean discrepancy between
    environments. The private block is free, and must hold what the shared one is kept from. Theirs gives the decoder
    the nuisance itself in place of a private block.
    """

    name = "dhsic-vae-nuisance"
    tags = DHSICVAE.tags | {"blocks"}
    replicas = True

    @dataclass(frozen=True)
    class Config(DHSICVAE.Config):
        """The coordinates form's, with the size of the private block."""

        n_private: int = 2  # ours

        def __post_init__(self) -> None:
            """Refuse what no data could make right."""
            super().__post_init__()
            allowed = 0 < self.n_private < self.n_latent
            require(allowed, "n_private", self.n_private, f"must be above 0 and below n_latent={self.n_latent}")

    def supervision(self, data: AnnData) -> dict[str, Tensor]:
        """Return the environments as numbers (n_cells,)."""
        import torch

        numbers = np.unique(column(data, "environment"), return_inverse=True)[1]
        return {"environment": torch.from_numpy(numbers).to(self.where)}

    def kernels(self, forward: Forward) -> Tensor:
        """Return two kernel matrices, of the shared block and of the environment."""
        from methods.nn.penalties import nuisance_kernels

        return nuisance_kernels(forward.z[..., : self.n_shared], forward.minibatch["environment"])

    def embed_blocks(self, data: AnnData) -> dict[str, np.ndarray]:
        """Return the block that is independent of the environment, and the rest."""
        codes = self.embed(data)
        return {"shared": codes[:, : self.n_shared], "private": codes[:, self.n_shared :]}

    @property
    def n_shared(self) -> int:
        """Width of the shared block."""
        return int(self.config.n_latent - self.config.n_private)
