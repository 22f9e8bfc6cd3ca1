"""BasisVAE."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from methods.base import key, searched
from methods.vaes import VAE

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from anndata import AnnData
    from torch import Tensor, nn

    from methods.variational import Forward


class BasisVAE(VAE):
    """BasisVAE (Märtens & Yau 2020), scale-invariant: every gene is a multiple of one of K functions of z.

    The decoder gives K basis functions f_k(z); gene j belongs to function c_j, and has its own factor for each
    function:

        x_j | z, c_j = k ~ N(s_jk f_k(z), σ²),  s_jk in (.25, 1.75),  c_j ~ Categorical(π),  π ~ Dirichlet(α, …, α).

    q(c_j) is a softmax φ_j, so that E_q(c) log p(x | z, c) is the Gaussian log density of the mean Σ_k φ_jk s_jk f_k
    less Σ_j Var_q(c_j)[s f] / 2σ²; π is integrated out. loss = VAE's + that spread + KL(q(c) ‖ p(c)) / n_cells, summed
    over genes, averaged over cells.
    ``decode`` is the mean. Ours differs: one variance for all genes, as in the other VAEs here, and no translation
    of z.
    """

    name = "basis-vae"
    tags = VAE.tags | {"disentanglement"}
    paper = "Märtens & Yau 2020, AISTATS, arXiv 2003.03462"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        **VAE.presets,
        "paper": {**VAE.presets["paper"], "n_latent": 2},
    }

    @dataclass(frozen=True)
    class Config(VAE.Config):
        """The VAE's, with the basis."""

        activation: str = "softplus"  # Märtens & Yau 2020, the authors' code
        norm: str = "none"  # Märtens & Yau 2020, the authors' code
        dropout: float = 0.0  # Märtens & Yau 2020, the authors' code
        # ours: at 1e-3 assignments on ifn-sim are undecided after 400 epochs (median of the largest .63); here it is
        # .99
        learning_rate: float = searched(3e-3, 3e-4, 1e-2, log=True)
        n_basis: int = key(20, above=0)  # K; Märtens & Yau 2020, single cells
        concentration: float = searched(1.0, 0.1, 10.0, log=True, above=0)  # α; ours, a uniform prior of π
        likelihood: str = key("gaussian", among=("gaussian",))  # Märtens & Yau 2020

    def learn_labels(self, data: AnnData) -> None:
        """Note the number of cells."""
        self.n_cells = data.n_obs

    def build(self, n_genes: int) -> nn.ModuleDict:
        """Return the VAE's network with a decoder whose head assigns genes to K functions."""
        from methods.nn.networks import GenesOfBasis

        network = super().build(n_genes)
        decoder: Any = network["decoder"]
        decoder.head = GenesOfBasis(decoder.head.in_features, self.config.n_basis, n_genes)
        return network

    def penalties(self, forward: Forward) -> dict[str, Tensor]:
        """Return the KL of z, the spread over assignments, and the KL of the assignments."""
        from methods.nn.penalties import categorical_dirichlet_kl

        decoder, log_variance = forward.network["decoder"], forward.network["observation"].likelihood.bounded()
        spread = decoder.head.spread(forward.hidden)
        of_genes = categorical_dirichlet_kl(decoder.head.choice, self.config.concentration)
        return {
            **super().penalties(forward),
            "spread": 0.5 * (spread * (-log_variance).exp()).sum(1).mean(),
            "assignment": of_genes / self.n_cells,
        }

    def assignments(self) -> np.ndarray:
        """Return the probability that a gene follows a basis function, (n_genes, n_basis)."""
        return self.network["decoder"].head.assignment().detach().cpu().numpy()
