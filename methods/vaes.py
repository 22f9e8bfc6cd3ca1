"""The variational autoencoder and its variants: each adds one term to the loss, or weights one."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from methods.base import key, require, searched
from methods.neural import environment_numbers
from methods.variational import Forward, Unconditional

if TYPE_CHECKING:
    from anndata import AnnData
    from torch import Tensor

#: Settings with which the decoder bends smoothly and its output is expression in units of the scaled genes.
CURVED = {
    "activation": ("softplus", "elu", "silu"),
    "norm": ("none", "batch"),
    "likelihood": ("gaussian", "gene-gaussian", "squared-error"),
}
#: ε under the root of the dHSIC.
EPSILON = 1e-6


class VAE(Unconditional):
    """Variational autoencoder (Kingma & Welling 2014, Eq. 10).

    loss = −E_q(z|x) log p(x | z) + KL(q(z | x) ‖ N(0, I)), summed over genes and latents, averaged over cells,
    with one posterior draw a cell. By default the likelihood is Gaussian: genes are centred on the training mean and
    divided by one common number, with one learned variance (σ-VAE), so that reconstruction and KL stand in
    proportion on any data. ``decode`` and ``predict`` return the expectation of X.
    """

    name = "vae"
    tags = frozenset({"embedding", "prediction", "vae"})
    paper = "Kingma & Welling 2014, arXiv 1312.6114"
    stackable = True

    def derivative_gram(self, codes: np.ndarray) -> np.ndarray:
        """Return the Gram matrices (n_points, k, k) of the decoder's derivatives J_1 … J_d, H_ij (i ≤ j) at ``codes``.

        Expression is in units in which the training data have a total variance of 1, so that curvatures have no unit.
        The result is NaN for a decoder that is not smooth or does not return expression (counts).
        """
        import torch

        from methods.nn.curvature import derivative_gram

        setting = {"activation": self.config.activation, "norm": self.config.norm, "likelihood": self.likelihood}
        if any(value not in CURVED[key] for key, value in setting.items()):
            k = codes.shape[1] * (codes.shape[1] + 3) // 2
            return np.full((len(codes), k, k), np.nan)
        # the inverse of an ill-conditioned metric needs more digits than single precision has
        decoder = deepcopy(self.network["decoder"]).double()
        with torch.no_grad():
            z = torch.from_numpy(np.asarray(codes, dtype=np.float64)).to(self.where)
            grams = [derivative_gram(decoder, chunk).cpu().numpy() for chunk in z.split(512)]
        return np.concatenate(grams) / self.network["observation"].n_genes


class BetaVAE(VAE):
    """β-VAE (Higgins et al. 2017, Eq. 4): a VAE whose KL to the prior has the weight β.

    loss = −E_q(z|x) log p(x | z) + β·KL(q(z | x) ‖ N(0, I)), summed over genes and latents, averaged over cells;
    β has no meaning without that reduction. At β = 1 it is the VAE, bit for bit.

    By default its network is that of :class:`VAE`, so that their two rows differ by β alone; the ``paper`` preset has
    the network of the single-cell β-VAE of Lotfollahi et al. (bias-free linear, batch norm, LeakyReLU, dropout, five
    latents). Ours differs from theirs in the learned variance (theirs is a plain squared error) and in early stopping.
    """

    name = "beta-vae"
    tags = VAE.tags | {"disentanglement"}
    paper = "Higgins et al. 2017, ICLR, beta-VAE"
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
    stackable = True

    @dataclass(frozen=True)
    class Config(VAE.Config):
        """The VAE's, with β."""

        # Higgins et al. 2017, 2-D shapes; 1 to 500 were swept on single cells. Below 1 it is another method than theirs
        beta: float = searched(4.0, 1.0, 50.0, log=True)

    def penalties(self, forward: Forward) -> dict[str, Tensor]:
        """Return β times the KL to the prior."""
        return {"kl": self.config.beta * super().penalties(forward)["kl"]}


class AnnealedVAE(VAE):
    """Capacity-annealed β-VAE (Burgess et al. 2018, Eq. 8): the KL is held at a capacity C that rises linearly.

    loss = −E_q(z|x) log p(x | z) + γ·|KL(q(z | x) ‖ N(0, I)) − C|, summed over genes and latents, averaged over cells;
    |·| is taken of the mean KL of a minibatch. C rises from 0 to ``capacity`` nats over the first ``rise`` of the
    steps. No state of the network counts as best before C has risen.
    """

    name = "annealed-vae"
    tags = VAE.tags | {"disentanglement"}
    paper = "Burgess et al. 2018, arXiv 1804.03599; on single cells Lotfollahi et al."
    stackable = True

    @dataclass(frozen=True)
    class Config(VAE.Config):
        """The VAE's, with γ and the capacity."""

        # ours; Burgess et al. 1000 on images of 4096 pixels
        gamma: float = searched(100.0, 1.0, 1000.0, log=True, least=0)
        # nats; Burgess et al. 2018, dSprites; 5 to 1000 were swept on single cells
        capacity: float = searched(25.0, 5.0, 1000.0, log=True, least=0)
        rise: float = key(0.5, least=0, below=1)  # share of the steps; ours

    def warmup(self) -> float:
        """Return the share of the rise."""
        return self.config.rise

    def penalties(self, forward: Forward) -> dict[str, Tensor]:
        """Return γ times the distance of the KL from the present capacity."""
        capacity = self.config.capacity * self.risen(forward.progress)
        return {"kl": self.config.gamma * (super().penalties(forward)["kl"] - capacity).abs()}


class BetaTCVAE(VAE):
    """β-TCVAE (Chen et al. 2018, Eq. 4 with α = γ = 1): of the KL only the total correlation has the weight β.

    loss = −E_q(z|x) log p(x | z) + KL(q(z | x) ‖ N(0, I)) + (β − 1)·TC, summed over genes and latents, averaged over
    cells. TC = KL(q(z) ‖ Π_j q(z_j)) is estimated by their minibatch stratified sampling (appendix C.2). At β = 1 it is
    the VAE, bit for bit.
    """

    name = "beta-tcvae"
    tags = VAE.tags | {"disentanglement"}
    paper = "Chen et al. 2018, arXiv 1802.04942"
    stackable = True

    @dataclass(frozen=True)
    class Config(VAE.Config):
        """The VAE's, with β."""

        beta: float = searched(6.0, 1.0, 50.0, log=True, least=0)  # Chen et al. 2018, dSprites

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


class DIPVAE(VAE):
    """DIP-VAE-I (Kumar, Sattigeri, Balakrishnan 2018, Eq. 6): the covariance of posterior means is made the identity.

    loss = VAE's + λ_od Σ_{i≠j} Cov[μ]_ij² + λ_d Σ_i (Cov[μ]_ii − 1)², the covariance over the cells of a minibatch.
    With both weights 0 it is the VAE, bit for bit.
    """

    name = "dip-vae-i"
    tags = VAE.tags | {"disentanglement"}
    paper = "Kumar, Sattigeri, Balakrishnan 2018, arXiv 1711.00848"
    stackable = True

    @dataclass(frozen=True)
    class Config(VAE.Config):
        """The VAE's, with the weights of the covariance."""

        off_diagonal: float = searched(10.0, 0.1, 100.0, log=True, least=0)  # λ_od; Kumar et al. 2018, 2-D shapes
        diagonal: float = searched(100.0, 0.1, 1000.0, log=True, least=0)  # λ_d = 10 λ_od; Kumar et al. 2018

    def penalties(self, forward: Forward) -> dict[str, Tensor]:
        """Return the KL and the distance of the covariance from the identity."""
        from methods.nn.penalties import dip

        terms, weights = super().penalties(forward), (self.config.off_diagonal, self.config.diagonal)
        if any(weights):
            terms["dip"] = dip(forward.mean, self.added_log_variance(forward), *weights)
        return terms

    def added_log_variance(self, forward: Forward) -> Tensor | None:
        """Return the log-variances whose mean is added to the covariance of the means; here none."""
        return None


class DIPVAE2(DIPVAE):
    """DIP-VAE-II (Kumar, Sattigeri, Balakrishnan 2018, Eq. 7): the covariance of q(z) is made the identity.

    The loss is DIP-VAE-I's, with Cov[μ] + E[Σ] in place of Cov[μ].
    """

    name = "dip-vae-ii"
    stackable = True

    @dataclass(frozen=True)
    class Config(DIPVAE.Config):
        """DIP-VAE-I's, with equal weights."""

        off_diagonal: float = searched(10.0, 0.1, 100.0, log=True)  # ours, as DIP-VAE-I
        diagonal: float = searched(10.0, 0.1, 1000.0, log=True)  # λ_d = λ_od; Kumar et al. 2018

    def added_log_variance(self, forward: Forward) -> Tensor | None:
        """Return the posterior's log-variances."""
        return forward.log_variance


class DHSICVAE(VAE):
    """dHSIC-VAE, *coordinates*: all latents are made mutually independent (Lopez et al. 2018, HCV, Eq. 5).

    loss = VAE's + λ·√(dHSIC(z_1, …, z_d) + ε), the d-variable Hilbert-Schmidt independence criterion of the posterior
    draws of a minibatch, with Gaussian kernels of bandwidth E‖x − x′‖ of standard normals. The root also falls when
    codes shrink; only the rest of the loss fixes their size. At λ = 0 it is the VAE, bit for bit.
    """

    name = "dhsic-vae"
    tags = VAE.tags | {"disentanglement"}
    paper = "Lopez, Regier, Jordan, Yosef 2018, NeurIPS: Information Constraints on Auto-Encoding Variational Bayes"
    stackable = True

    @dataclass(frozen=True)
    class Config(VAE.Config):
        """The VAE's, with λ."""

        dhsic: float = searched(100.0, 1.0, 1e4, log=True, least=0)  # ours

    def penalties(self, forward: Forward) -> dict[str, Tensor]:
        """Return the KL and λ times the root of the criterion."""
        from methods.nn.penalties import sqrt_dhsic

        terms = super().penalties(forward)
        if self.config.dhsic > 0:
            terms["dhsic"] = self.config.dhsic * sqrt_dhsic(self.kernels(self.sample(forward)), EPSILON)
        return terms

    def kernels(self, forward: Forward) -> Tensor:
        """Return the kernel matrices of the variables, here of each latent, (n_latent, n_cells, n_cells)."""
        from methods.nn.penalties import coordinate_kernels

        return coordinate_kernels(forward.z)


class DHSICNuisanceVAE(DHSICVAE):
    """dHSIC-VAE, *nuisance*: a block of the latents is made independent of the environment (Lopez et al. 2018, HCV).

    loss = VAE's + λ·√(HSIC(shared block of z, environment) + ε), with a Gaussian kernel on the first ``n_latent`` −
    ``n_private`` latents and a delta kernel on the environment: a weighted maximum mean discrepancy between
    environments. The private block is free, and must hold all that the shared block may not. Theirs gives the decoder
    the environment itself in place of a private block.
    """

    name = "dhsic-vae-nuisance"
    tags = DHSICVAE.tags | {"blocks"}
    stackable = True

    @dataclass(frozen=True)
    class Config(DHSICVAE.Config):
        """The coordinates form's, with the size of the private block."""

        n_private: int = key(2, above=0)  # ours

    @classmethod
    def check(cls, config: Any) -> None:
        """Refuse a private block that leaves no shared latent."""
        super().check(config)
        rule = f"must be below n_latent={config.n_latent}"
        require(config.n_private < config.n_latent, "n_private", config.n_private, rule)

    def supervision(self, data: AnnData) -> dict[str, Tensor]:
        """Return the environments as numbers (n_cells,)."""
        return {"environment": environment_numbers(data, self.where)}

    def kernels(self, forward: Forward) -> Tensor:
        """Return two kernel matrices, of the shared block and of the environment, (2, n_cells, n_cells)."""
        from methods.nn.penalties import nuisance_kernels

        return nuisance_kernels(forward.z[..., : self.n_shared], forward.minibatch["environment"])

    def embed_blocks(self, data: AnnData) -> dict[str, np.ndarray]:
        """Return the shared block, which is independent of the environment, and the private block."""
        codes = self.embed(data)
        return {"shared": codes[:, : self.n_shared], "private": codes[:, self.n_shared :]}

    @property
    def n_shared(self) -> int:
        """Width of the shared block."""
        return int(self.config.n_latent - self.config.n_private)
