"""multiGroupVI."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from methods.base import column, key, require_trained, searched
from methods.groups import group_means, moved
from methods.neural import environment_numbers
from methods.variational import Variational

if TYPE_CHECKING:
    from anndata import AnnData
    from torch import Tensor, nn

    from methods.variational import Forward


class MultiGroupVI(Variational):
    """multiGroupVI (Weinberger et al. 2022): latents z shared by all groups, and latents t^γ private to each group γ.

    p(x | z, t¹ … t^Γ) has one decoder for all groups; z and t^γ are standard normal, and in a cell of group γ the t of
    all other groups are fixed to 0. q(z | x) is one encoder for all groups, q(t^γ | x) one encoder for each. loss = −E
    log p(x | z, t) + w·KL(z) + w·KL(t^γ) + λ Σ_{γ′≠γ} (‖μ_γ′‖² + ‖σ_γ′‖²), summed over genes and latents, averaged over
    cells. The last term is the squared Wasserstein distance from 0 of the other groups' posteriors for this cell. w
    rises from 0 to 1 over the first ``warmup`` of the steps. Groups are the environments; every minibatch holds them in
    the same proportions.

    ``embed`` is z, ``embed_blocks`` z and [t¹ … t^Γ], zero for other groups. ``predict`` is ours, as theirs does not
    predict: it decodes a cell's z, moved by the mean shift of z from the cell's group to the target (0 if z held
    nothing of the group; over content labels, as in scGen, see :class:`methods.latent_arithmetic.LatentArithmetic`),
    with the t of the target that a ridge regression on z expects, learned from the target's cells. Without the two, z
    has a rest of the group and t nothing of the cell: on two held-out cell types of each of ifn-sim's draws 1000 to
    1002 the error was 2.3 times as large.

    Ours differs: group encoders read log1p of the counts, as the shared encoder does (theirs read raw counts); the
    distance of the other groups' posteriors from 0 has its full weight from the start, where theirs rises with w
    (blocks separate better); minibatches have 128 cells for each group on average, where theirs have exactly 128 of
    each, and fewer where cells are few. Where data have counts the likelihood is
    zero-inflated negative binomial as theirs, elsewhere Gaussian.
    """

    name = "multigroup-vi"
    composes = False
    tags = frozenset({"embedding", "prediction", "vae", "disentanglement", "blocks"})
    paper = "Weinberger, Lopez, Hütter, Regev 2022, bioRxiv 2022.12.13.520349 (multiGroupVI)"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        **Variational.presets,
        "paper": {**Variational.presets["paper"], "warmup": 0.8},
    }
    count_likelihood = "zero-inflated-negative-binomial"

    @dataclass(frozen=True)
    class Config(Variational.Config):
        """The VAE's, with the private latents, λ and the warm-up."""

        likelihood: str = "auto"  # Weinberger et al. 2022: zero-inflated negative binomial
        hidden: tuple[int, ...] = (128,)  # Weinberger et al. 2022
        n_private: int = key(10, above=0)  # of each group; Weinberger et al. 2022
        wasserstein: float = searched(1.0, 0.1, 100.0, log=True, least=0)  # λ; Weinberger et al. 2022
        warmup: float = key(0.5, least=0, below=1)  # share of the steps; ours; scvi-tools: 400 of 500 epochs
        steps: int = 1500  # ours, decision 0028
        dropout: float = searched(0.1, 0.0, 0.5)  # scvi-tools
        learning_rate: float = searched(5e-3, 5e-4, 2e-2, log=True)  # ours, decision 0028

    def settle(self, data: AnnData) -> None:
        """Keep the mean z of each group and content, and how t depends on z in each group."""
        from sklearn.linear_model import Ridge

        blocks, labels = self.embed_blocks(data), column(data, "environment")
        self.latent_means = group_means(blocks["shared"], labels, column(data, "content"))
        self.private = {}
        for group in self.groups:
            # the penalty of a regression whose coefficients and noise both have variance 1, that of t's prior
            line = Ridge(alpha=1.0).fit(*(block[labels == group].astype(float) for block in blocks.values()))
            self.private[group] = (line.coef_, line.intercept_)

    def learn_labels(self, data: AnnData) -> None:
        """Note the groups."""
        self.groups = sorted(set(column(data, "environment").tolist()))

    def build(self, n_genes: int) -> nn.ModuleDict:
        """Return observation, one decoder, and encoders of z and of each group's t."""
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
        """Return the schedule, with minibatches of that many cells for each group."""
        plain = super().schedule()
        return replace(plain, minibatch=plain.minibatch * len(self.groups))

    def covariates(self, data: AnnData) -> dict[str, Tensor]:
        """Return which latents a cell has (z and its group's t), 0 or 1, (n_cells, n_latent + n_groups · n_private)."""
        import torch

        of_group = column(data, "environment")[:, None] == np.array(self.groups)
        shared = np.ones((data.n_obs, self.config.n_latent), dtype=bool)
        has = np.hstack([shared, np.repeat(of_group, self.config.n_private, axis=1)])
        return {"has": torch.from_numpy(has).float().to(self.where)}

    def strata(self, data: AnnData) -> Tensor:
        """Return the groups' numbers."""
        return environment_numbers(data, self.where)

    def posterior(self, network: Any, minibatch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the posterior of the latents that a cell has, and mean 0 and log-variance 0 for the other latents."""
        mean, log_variance = super().posterior(network, minibatch)
        return mean * minibatch["has"], log_variance * minibatch["has"]

    def decoder_input(self, z: Tensor, minibatch: Mapping[str, Tensor]) -> Tensor:
        """Return the latents, 0 for those of other groups."""
        return z * minibatch["has"]

    def penalties(self, forward: Forward) -> dict[str, Tensor]:
        """Return w times the KL of the latents that a cell has, and λ times the distance of all others from 0."""
        from methods.nn.penalties import kl_normal, wasserstein_to_zero

        has = forward.minibatch["has"]
        kl = kl_normal(forward.mean * has, forward.log_variance * has).mean()
        terms = {"kl": self.risen(forward.progress) * kl}
        if self.config.wasserstein > 0:
            n_latent, n_private = self.config.n_latent, self.config.n_private
            is_group = has[:, n_latent::n_private]
            mean, log_variance = (
                value[:, n_latent:].unflatten(1, (-1, n_private)) for value in (forward.mean, forward.log_variance)
            )
            distance = wasserstein_to_zero(mean, log_variance) * (1 - is_group)
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
        require_trained(self.name, target_environment, self.groups)

        def shift(_: np.ndarray, source: str) -> np.ndarray | float:
            known = self.latent_means.shared(source, target_environment)
            return self.latent_means.shifts(source, target_environment)[1].mean(axis=0) if known else 0.0

        shared = moved(self.embed(data).astype(float), column(data, "environment"), shift)
        coefficients, intercept = self.private[target_environment]
        return self.expression(np.hstack([shared, shared @ coefficients.T + intercept]), data)

    def rank_genes(self, data: AnnData) -> np.ndarray:
        """Return how much each group's private latents explain of each gene, (n_groups, n_genes), rows as ``groups``.

        log p(x_g | z, t) − log p(x_g | z, 0), averaged over the group's cells in ``data``, z and t their posterior
        means (Weinberger et al. 2022, Eq. 12). It is high for the genes of the group's programs, and NaN for a group
        without cells in ``data``.
        """
        import torch

        network, scores = self.network, np.full((len(self.groups), data.n_vars), np.nan)
        labels = column(data, "environment")
        for i, group in enumerate(self.groups):
            cells = data[labels == group]
            if not cells.n_obs:
                continue
            with torch.no_grad():
                minibatch = self.tensors(cells)
                z = self.posterior(network, minibatch)[0]
                shared = z * (torch.arange(z.shape[1], device=z.device) < self.config.n_latent)
                full, without = (
                    network["observation"].gene_log_prob(minibatch, network["decoder"](code)) for code in (z, shared)
                )
                scores[i] = (full - without).mean(0).cpu().numpy()
        return scores
