"""The variational autoencoder that all others derive from: network, loss, codes and likelihood."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from methods.latent_arithmetic import LatentArithmetic
from methods.neural import NeuralMethod, in_blocks

if TYPE_CHECKING:
    from anndata import AnnData
    from torch import Tensor, nn

    from methods.nn.training import Adversary

#: Cells of a minibatch that are compared pair by pair; the pairs of more cells could outgrow the memory.
MOST_PAIRED = 1024


@dataclass
class Forward:
    """A minibatch with what the network computes from it, for the penalties.

    Attributes
    ----------
    network
        The parts by name.
    minibatch
        Tensors by name: those of the observation, of ``covariates`` and of ``supervision``.
    progress
        Share of the fit's steps that are done after this one, in (0, 1]; 1 in validation. A tensor () in a step that is
        recorded.
    mean, log_variance
        Parameters of q(z | x), each (n_cells, n_latent).
    z
        One draw from q(z | x), (n_cells, n_latent).
    first
        Activations of the decoder's first hidden layer, before dropout (n_cells, width).
    hidden
        Activations of the decoder's last hidden layer, after dropout (n_cells, width).
    """

    network: Any
    minibatch: Mapping[str, Tensor]
    progress: float | Tensor
    mean: Tensor
    log_variance: Tensor
    z: Tensor
    first: Tensor
    hidden: Tensor


class Variational(NeuralMethod):
    """A model of cells x with latents z: loss = −E_q(z|x) log p(x | z) + penalties, one of which is a KL.

    Losses are summed over genes and latents and averaged over cells, with one posterior draw a cell. ``embed`` returns
    the posterior means, in eval mode. A subclass overrides :meth:`penalties`, the terms that are added to the
    reconstruction, and where it has to :meth:`build` and the inputs of encoder and decoder. It defines how it predicts.
    """

    #: Loss terms that do not count when the best weights are chosen.
    unwatched: ClassVar[frozenset[str]] = frozenset()

    def fit(self, data: AnnData, seed: int) -> Self:
        """Train, and keep the weights that do best on a split of the training cells."""
        (error,) = self.fit_stacked([self], [data], [seed])
        if error is not None:
            raise error
        return self

    # --- for subclasses to override

    def settle(self, data: AnnData) -> None:
        """Learn from the training cells after the network is trained; here nothing."""

    def covariates(self, data: AnnData) -> dict[str, Tensor]:
        """Return additional tensors (n_cells, ...) that the network reads; here none."""
        return {}

    def supervision(self, data: AnnData) -> dict[str, Tensor]:
        """Return additional tensors (n_cells, ...) that only the training loss reads; here none."""
        return {}

    def strata(self, data: AnnData) -> Tensor | None:
        """Return labels (n_cells,) that every minibatch holds in the same proportions; here none."""
        return None

    def schedule(self) -> Any:
        """Return the :class:`methods.nn.training.Schedule` of a fit."""
        from methods.nn.training import Schedule

        config = self.config
        return Schedule(
            config.steps,
            config.learning_rate,
            config.minibatch,
            config.validation,
            self.warmup(),
        )

    def warmup(self) -> float:
        """Return the share of the steps over which a loss weight rises; no weights count as best before."""
        return float(getattr(self.config, "warmup", 0.0))

    def risen(self, progress: float | Tensor) -> float | Tensor:
        """Return the share in (0, 1] of its full value that a rising weight has; it rises linearly."""
        if not self.warmup():
            return 1.0
        share = progress / self.warmup()
        # a step that is recorded cannot ask which is less
        return min(1.0, share) if isinstance(share, float) else share.clamp(max=1.0)

    def adversary(self, network: Any) -> Adversary | None:
        """Return the part that is trained against the rest of the network, by its own gradient steps; here none."""
        return None

    def parameter_groups(self, network: Any) -> list[dict[str, Any]]:
        """Return the optimiser's parameter groups; here one group of all parameters."""
        return [{"params": list(network.parameters())}]

    def build(self, n_genes: int) -> nn.ModuleDict:
        """Return the untrained network: observation, encoder, decoder."""
        from torch import nn

        from methods.nn.networks import Decoder, GaussianEncoder
        from methods.nn.observation import observation

        config = self.config
        shape = (config.activation, config.norm, config.dropout)
        extra = self.n_labels()
        observed = observation(self.likelihood, n_genes)
        n_outputs = n_genes * observed.outputs_per_gene
        return nn.ModuleDict(
            {
                "observation": observed,
                "encoder": GaussianEncoder(n_genes + extra, config.hidden, config.n_latent, *shape),
                "decoder": Decoder(config.n_latent + extra, config.hidden[::-1], n_outputs, *shape),
            }
        )

    def n_labels(self) -> int:
        """Return how many inputs encoder and decoder have besides expression and latents; here 0."""
        return 0

    def encoder_input(self, network: Any, minibatch: Mapping[str, Tensor]) -> Tensor:
        """Return the encoder's input, (n_cells, n_genes + n_labels)."""
        return network["observation"].network_input(minibatch)

    def decoder_input(self, z: Tensor, minibatch: Mapping[str, Tensor]) -> Tensor:
        """Return the decoder's input, (n_cells, n_latent + n_labels)."""
        return z

    def posterior(self, network: Any, minibatch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance of q(z | x), each (n_cells, n_latent)."""
        return network["encoder"](self.encoder_input(network, minibatch))

    def prior_mean(self, network: Any, minibatch: Mapping[str, Tensor]) -> Tensor | float:
        """Return the mean of p(z) for each cell, broadcast to (n_cells, n_latent); its covariance is I."""
        return 0.0

    def loss_terms(self, network: Any, minibatch: Mapping[str, Tensor], progress: float | Tensor) -> dict[str, Tensor]:
        """Return the reconstruction term and the penalties, each a mean over cells."""
        import torch

        from methods.nn.stacked import normal_like

        mean, log_variance = network["encoder"](self.encoder_input(network, minibatch))
        z = mean + torch.exp(0.5 * log_variance) * normal_like(mean)
        first = network["decoder"].first(self.decoder_input(z, minibatch))
        hidden = network["decoder"].hidden(first)
        log_prob = network["observation"].log_prob(minibatch, network["decoder"].head(hidden))
        forward = Forward(network, minibatch, progress, mean, log_variance, z, first, hidden)
        return {"reconstruction": -log_prob.mean(-1), **self.penalties(forward)}

    def penalties(self, forward: Forward) -> dict[str, Tensor]:
        """Return the named terms that are added to the reconstruction, means over cells: here the KL to the prior."""
        from methods.nn.penalties import kl_normal

        prior_mean = self.prior_mean(forward.network, forward.minibatch)
        return {"kl": kl_normal(forward.mean, forward.log_variance, prior_mean).mean(-1)}

    def sample(self, forward: Forward) -> Forward:
        """Return the first :data:`MOST_PAIRED` cells of ``forward``, for a term that compares cells pair by pair.

        Minibatches are shuffled, so that they are a random sample, stratified where there are strata.
        """
        if forward.z.shape[-2] <= MOST_PAIRED:
            return forward
        from torch import Tensor

        self.note(f"terms that compare every two cells of a minibatch saw {MOST_PAIRED} of them")
        parts = ("mean", "log_variance", "z", "first", "hidden")
        first = (*(slice(None) for _ in forward.z.shape[:-2]), slice(MOST_PAIRED))
        minibatch = {key: value[first] for key, value in forward.minibatch.items() if isinstance(value, Tensor)}
        return replace(forward, minibatch=minibatch, **{part: getattr(forward, part)[first] for part in parts})

    # --- abilities

    def tensors(self, data: AnnData) -> dict[str, Tensor]:
        """Return the cells as tensors, from which minibatches are taken."""
        return {**self.network["observation"].tensors(data), **self.covariates(data)}

    def embed(self, data: AnnData) -> np.ndarray:
        """Return the posterior means (n_cells, n_latent)."""
        import torch

        with torch.no_grad():
            parts = (self.tensors(part) for part in in_blocks(data))
            return np.concatenate([self.posterior(self.network, part)[0].cpu().numpy() for part in parts])

    def log_likelihood(self, data: AnnData, n_samples: int) -> np.ndarray:
        """Return the importance-weighted estimate of log p(x) of each cell (n_cells,), a lower bound on average.

        log (1/S) Σ_s p(x | z_s) p(z_s) / q(z_s | x), z_s ~ q(z | x) (Burda et al. 2016, IWAE, Eq. 8). It is a density
        of X for continuous likelihoods and a probability of the counts for discrete ones. The draws have a fixed seed.
        """
        import torch

        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            parts = (self.tensors(part) for part in in_blocks(data))
            estimate = torch.cat([self._log_likelihood(part, n_samples) for part in parts])
            return (estimate + self.network["observation"].log_volume()).cpu().numpy()

    def _log_likelihood(self, minibatch: Mapping[str, Tensor], n_samples: int) -> Tensor:
        import torch
        from torch.distributions import Normal

        network = self.network
        mean, log_variance = self.posterior(network, minibatch)
        posterior = Normal(mean, torch.exp(0.5 * log_variance))
        prior = Normal(torch.zeros_like(mean) + self.prior_mean(network, minibatch), 1.0)
        weights = []
        for _ in range(n_samples):
            # on the CPU, so that a GPU's generator is left alone
            z = mean + posterior.scale * torch.randn(mean.shape).to(mean.device)
            log_prob = network["observation"].log_prob(minibatch, network["decoder"](self.decoder_input(z, minibatch)))
            weights.append(log_prob + (prior.log_prob(z) - posterior.log_prob(z)).sum(-1))
        return torch.logsumexp(torch.stack(weights), 0) - np.log(n_samples)

    # --- stacked fits

    @classmethod
    def fit_stacked(
        cls, methods: Sequence[Self], datasets: Sequence[AnnData], seeds: Sequence[int]
    ) -> list[Exception | None]:
        """Fit methods of one configuration, those at once that can be, each as ``fit`` would, up to rounding.

        The class must be ``stackable`` unless there is only one method. Fits are made at once where their data have
        equally many cells and the same labels; on a GPU the numbers may differ, and a larger data set then leaves out
        some of its cells in each pass.

        Returns
        -------
        list
            For each method the error if its loss became NaN or infinite, else None.

        Raises
        ------
        MemoryError
            The fits outgrew the memory of the GPU.
        """
        from methods.nn.training import fit_stacked

        return fit_stacked(methods, datasets, seeds)

    def learned(self) -> str:
        """Return all that network and loss depend on besides the values of the training data, such as labels."""
        about = {"config", "network", "history", "unconverged", "log"}
        return repr(sorted((key, value) for key, value in vars(self).items() if key not in about))


class Unconditional(Variational, LatentArithmetic):
    """A model whose decoder reads the latents alone, so that it decodes codes and predicts by latent arithmetic."""

    @dataclass(frozen=True)
    class Config(NeuralMethod.Config, LatentArithmetic.Config):
        """Network, training and latent arithmetic."""

    def settle(self, data: AnnData) -> None:
        """Keep the mean codes of the training cells."""
        self.remember_latents(data)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Return the expected expression (n_cells, n_genes) of ``codes`` (n_cells, n_latent), on the scale of X."""
        return self.expression(codes)
