"""multiGroupVI."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from methods.base import CannotFit, column, group_means, means_state, require, restored_means, searched
from methods.variational import Variational

if TYPE_CHECKING:
    from anndata import AnnData
    from torch import Tensor, nn

    from methods.variational import Forward


#: Gradient steps that an epoch has at least, where the data allow minibatches of ``MIN_CELLS`` for each group: on 600
#: cells 128 for each group are 3 steps an epoch, in which nothing is learned. With 16 the shared block's cell types
#: have an ARI of 1.00, .66 and .57 on splatter-groups' draws 0 to 2 (one seed).
MIN_STEPS, MIN_CELLS = 16, 8


class MultiGroupVI(Variational):
    """multiGroupVI (Weinberger et al. 2022): latents z shared by all groups, and latents t^γ private to each group γ.

    p(x | z, t¹ … t^Γ) with one decoder for all, z and t^γ standard normal; in a cell of group γ all other groups'
    t are fixed to 0. q(z | x) is one encoder for all groups, q(t^γ | x) one for each.
    loss = −E log p(x | z, t) + w·KL(z) + w·KL(t^γ) + λ Σ_{γ′≠γ} (‖μ_γ′‖² + ‖σ_γ′‖²): the last is the squared
    Wasserstein distance from 0 of what the other groups' encoders say of this cell. w rises from 0 to 1 over ``warmup``
    epochs. Groups are the environments; every minibatch holds each in its share.

    ``embed`` is z, ``embed_blocks`` z and [t¹ … t^Γ], zero off-group. ``predict`` replaces a cell's private latents by
    the target group's mean, over the cell's own content label where it was trained there, and decodes: theirs does not
    predict.

    Ours differs: group encoders read log1p of the counts, as the shared one does (theirs read raw counts); the distance
    of the other groups' encoders from 0 has its whole weight from the start, where theirs rises with w (blocks separate
    better so); minibatches are of 128 cells for each group on average, where theirs have exactly 128 of each, and
    smaller where an epoch would have fewer than 16 steps. Where data have counts the likelihood is zero-inflated
    negative binomial as theirs, elsewhere Gaussian.
    """

    name = "multigroup-vi"
    tags = frozenset({"embedding", "prediction", "vae", "disentanglement", "blocks"})
    reference = "Weinberger, Lin, Lee 2022, bioRxiv 2022.12.13.520349 (multiGroupVI)"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        **Variational.presets,
        "paper": {"max_epochs": 500},
    }
    count_likelihood = "zero-inflated-negative-binomial"

    @dataclass(frozen=True)
    class Config(Variational.Config):
        """The VAE's, with the private latents, λ and the warm-up."""

        likelihood: str = "auto"  # Weinberger et al. 2022: zero-inflated negative binomial
        hidden: tuple[int, ...] = (128,)  # Weinberger et al. 2022
        n_private: int = 10  # of each group; Weinberger et al. 2022
        wasserstein: float = searched(1.0, 0.1, 100.0, log=True)  # λ; Weinberger et al. 2022
        warmup: int = 400  # epochs; scvi-tools. With 50 the types stay mixed with the programs on 600 cells
        max_epochs: int = 500  # Weinberger et al. 2022

        def __post_init__(self) -> None:
            """Refuse what no data could make right."""
            super().__post_init__()
            require(self.n_private > 0, "n_private", self.n_private, "must be above 0")
            for key in ("wasserstein", "warmup"):
                require(getattr(self, key) >= 0, key, getattr(self, key), "must be 0 or above")

    def settle(self, data: AnnData) -> None:
        """Keep the groups' mean private latents."""
        codes = self.embed_blocks(data)["private"]
        labels = column(data, "environment")
        self.private_means = group_means(codes, labels, column(data, "content"))

    def learn_labels(self, data: AnnData) -> None:
        """Note the groups and the number of cells."""
        self.groups = sorted(set(column(data, "environment").tolist()))
        self.n_cells = data.n_obs

    def build(self, n_genes: int) -> nn.ModuleDict:
        """Return observation, one decoder, and an encoder of z and of each group's t, side by side."""
        from torch import nn

        from methods.nn.networks import Decoder, Encoders
        from methods.nn.observation import observation

        config = self.config
        shape = (config.activation, config.norm, config.dropout)
        observed = observation(self.likelihood, n_genes)
        widths = [config.n_latent, *(config.n_private for _ in self.groups)]
        n_outputs = n_genes * observed.outputs_per_gene
        return nn.ModuleDict(
            {
                "observation": observed,
                "encoder": Encoders(n_genes, config.hidden, widths, *shape),
                "decoder": Decoder(sum(widths), config.hidden[::-1], n_outputs, *shape),
            }
        )

    def schedule(self) -> Any:
        """Return the schedule, with minibatches of as many cells for each group."""
        plain = super().schedule()
        few = max(MIN_CELLS * len(self.groups), int((1 - plain.validation) * self.n_cells) // MIN_STEPS)
        return replace(plain, minibatch=min(plain.minibatch * len(self.groups), few))

    def warmup(self) -> int:
        """Return the epochs over which w rises."""
        return int(self.config.warmup)

    def covariates(self, data: AnnData) -> dict[str, Tensor]:
        """Return which latents a cell has, z and its group's t: 0 or 1, (n_cells, n_latent + n_groups · n_private)."""
        import torch

        of_group = column(data, "environment")[:, None] == np.array(self.groups)
        shared = np.ones((data.n_obs, self.config.n_latent), dtype=bool)
        has = np.hstack([shared, np.repeat(of_group, self.config.n_private, axis=1)])
        return {"has": torch.from_numpy(has).float().to(self.where)}

    def strata(self, data: AnnData) -> Tensor:
        """Return the groups' numbers."""
        import torch

        return torch.from_numpy(np.searchsorted(self.groups, column(data, "environment"))).to(self.where)

    def posterior(self, network: Any, minibatch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the posterior of the latents that a cell has, and the prior's mean and log-variance of the others."""
        mean, log_variance = super().posterior(network, minibatch)
        return mean * minibatch["has"], log_variance * minibatch["has"]

    def decoder_input(self, z: Tensor, minibatch: Mapping[str, Tensor]) -> Tensor:
        """Return the latents, 0 for those of other groups."""
        return z * minibatch["has"]

    def penalties(self, forward: Forward) -> dict[str, Tensor]:
        """Return w times the KL of the latents that a cell has, and λ times the distance of all others from 0."""
        from methods.nn.penalties import kl_standard_normal, wasserstein_to_zero

        has = forward.minibatch["has"]
        kl = kl_standard_normal(forward.mean * has, forward.log_variance * has).mean()
        terms = {"kl": self.risen(forward.epoch) * kl}
        if self.config.wasserstein > 0:
            n_latent, n_private = self.config.n_latent, self.config.n_private
            own = has[:, n_latent::n_private]
            mean, log_variance = (
                value[:, n_latent:].unflatten(1, (-1, n_private)) for value in (forward.mean, forward.log_variance)
            )
            distance = wasserstein_to_zero(mean, log_variance) * (1 - own)
            terms["wasserstein"] = self.config.wasserstein * distance.sum(1).mean()
        return terms

    def embed(self, data: AnnData) -> np.ndarray:
        """Return the means of z, (n_cells, n_latent)."""
        return self.embed_blocks(data)["shared"]

    def embed_blocks(self, data: AnnData) -> dict[str, np.ndarray]:
        """Return the means of z, and those of all t side by side, zero for the latents of other groups."""
        codes = super().embed(data)
        return {"shared": codes[:, : self.config.n_latent], "private": codes[:, self.config.n_latent :]}

    def predict(self, data: AnnData, target_environment: str) -> np.ndarray:
        """Return the expression (n_cells, n_genes) expected of ``data``'s cells in the group ``target_environment``."""
        import torch

        of_target = {
            content: mean for (group, content), mean in self.private_means.items() if group == target_environment
        }
        if not of_target:
            raise CannotFit(
                f"{self.name} was not trained on group {target_environment!r}; trained groups: {', '.join(self.groups)}"
            )
        typical: np.ndarray = np.mean(list(of_target.values()), axis=0)
        private = np.stack([of_target.get(content, typical) for content in column(data, "content").tolist()])
        codes = np.hstack([self.embed(data), private]).astype(np.float32)
        with torch.no_grad():
            output = self.network["decoder"](torch.from_numpy(codes).to(self.where))
            return self.network["observation"].expression(output, self.tensors(data)).cpu().numpy()

    def rank_genes(self, data: AnnData) -> np.ndarray:
        """Return how much each group's private latents say of each gene, (n_groups, n_genes), groups as in ``groups``.

        log p(x_g | z, t) − log p(x_g | z, 0), averaged over the group's own cells in ``data``, z and t their posterior
        means (Weinberger et al. 2022, Eq. 12): high for the genes of the group's own programs. NaN for a group that
        has no cells there.
        """
        import torch

        network, scores = self.network, np.full((len(self.groups), data.n_vars), np.nan)
        labels = column(data, "environment")
        for i, group in enumerate(self.groups):
            own = data[labels == group]
            if not own.n_obs:
                continue
            with torch.no_grad():
                minibatch = self.tensors(own)
                z = self.posterior(network, minibatch)[0]
                shared = z * (torch.arange(z.shape[1], device=z.device) < self.config.n_latent)
                full, without = (
                    network["observation"].gene_log_prob(minibatch, network["decoder"](code)) for code in (z, shared)
                )
                scores[i] = (full - without).mean(0).cpu().numpy()
        return scores

    def state(self) -> dict[str, Any]:
        """Return the weights, the groups and their mean private latents."""
        return {
            **super().state(),
            "groups": self.groups,
            **means_state("private", self.private_means),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state` returned."""
        self.groups = list(state["groups"])
        super().restore(state)
        self.private_means = restored_means("private", state)
