"""The conditional VAE, and the one whose codes are matched across environments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from methods.base import CannotFit, column, require, searched
from methods.vae import VAE
from methods.variational import Variational

if TYPE_CHECKING:
    from anndata import AnnData
    from torch import Tensor

    from methods.variational import Forward


class CVAE(Variational):
    """Conditional VAE (Sohn, Lee, Yan 2015): encoder and decoder also read the environment e, one-hot.

    loss = −E_q(z|x,e) log p(x | z, e) + KL(q(z | x, e) ‖ N(0, I)). ``predict`` encodes cells with their own
    environment and decodes them with the target's. Where all cells are of one environment it is the VAE with an
    input that never changes. It knows no environment but those it was trained on.
    """

    name = "cvae"
    tags = VAE.tags | {"conditional"}
    reference = "Sohn, Lee, Yan 2015, NeurIPS: Learning structured output representation using deep CVAEs"
    replicas = True

    def learn_labels(self, data: AnnData) -> None:
        """Note the environments."""
        self.environments = sorted(set(column(data, "environment").tolist()))

    def covariates(self, data: AnnData) -> dict[str, Tensor]:
        """Return the environments, one-hot (n_cells, n_environments); one never trained raises CannotFit."""
        return {"environment": self.one_hot(column(data, "environment"))}

    def one_hot(self, environments: np.ndarray) -> Tensor:
        """Return labels (n_cells,) as rows of the identity."""
        import torch

        unknown = sorted(set(environments.tolist()) - set(self.environments))
        if unknown:
            raise CannotFit(
                f"{self.name} was not trained on environment {unknown[0]!r}; trained environments: "
                f"{', '.join(self.environments)}"
            )
        numbers = torch.from_numpy(np.searchsorted(self.environments, environments))
        return torch.nn.functional.one_hot(numbers, len(self.environments)).float().to(self.where)

    def n_labels(self) -> int:
        """Return the number of environments."""
        return len(self.environments)

    def encoder_input(self, network: Any, minibatch: Mapping[str, Tensor]) -> Tensor:
        """Return expression and environment, (n_cells, n_genes + n_environments)."""
        import torch

        return torch.cat([super().encoder_input(network, minibatch), minibatch["environment"]], -1)

    def decoder_input(self, z: Tensor, minibatch: Mapping[str, Tensor]) -> Tensor:
        """Return latents and environment, (n_cells, n_latent + n_environments)."""
        import torch

        return torch.cat([z, minibatch["environment"]], -1)

    def predict(self, data: AnnData, target_environment: str) -> np.ndarray:
        """Return the expression (n_cells, n_genes) expected of ``data``'s cells in ``target_environment``."""
        import torch

        with torch.no_grad():
            minibatch = self.tensors(data)
            codes = self.posterior(self.network, minibatch)[0]
            minibatch["environment"] = self.one_hot(np.full(data.n_obs, target_environment))
            output = self.network["decoder"](self.decoder_input(codes, minibatch))
            return self.network["observation"].expression(output, minibatch).cpu().numpy()

    def state(self) -> dict[str, Any]:
        """Return the weights and the environments."""
        return {**super().state(), "environments": self.environments}

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state` returned."""
        self.environments = list(state["environments"])
        super().restore(state)


class MMDCVAE(CVAE):
    """Conditional VAE whose codes are matched across environments by their maximum mean discrepancy.

    loss = CVAE's + w · mean over all pairs of environments MMD(z of the one, z of the other), with trVAE's mean of
    kernels (Lotfollahi et al. 2020 call this model MMD-CVAE and compare with it). Minibatches hold every environment
    in its share. At w = 0 it is the CVAE, bit for bit. Ours differs: they sum over the pairs (decision 0013; with two
    environments the same).
    """

    name = "mmd-cvae"
    reference = "Lotfollahi et al. 2020, Bioinformatics 36:i610, supplementary; after Louizos et al. 2016 (VFAE)"
    replicas = True

    @dataclass(frozen=True)
    class Config(CVAE.Config):
        """The CVAE's, with the weight of the MMD."""

        mmd: float = searched(10.0, 0.1, 1000.0, log=True)  # ours

        def __post_init__(self) -> None:
            """Refuse what no data could make right."""
            super().__post_init__()
            require(self.mmd >= 0, "mmd", self.mmd, "must be 0 or above")

    def strata(self, data: AnnData) -> Tensor | None:
        """Return the environments' numbers."""
        return self.covariates(data)["environment"].argmax(1) if self.config.mmd > 0 else None

    def penalties(self, forward: Forward) -> dict[str, Tensor]:
        """Return the KL and the discrepancy."""
        from methods.nn.penalties import pairwise_mmd

        terms = super().penalties(forward)
        if self.config.mmd > 0:
            cells = self.sample(forward)
            environment = cells.minibatch["environment"].argmax(-1)
            terms["mmd"] = self.config.mmd * pairwise_mmd(cells.z, environment, len(self.environments))
        return terms
