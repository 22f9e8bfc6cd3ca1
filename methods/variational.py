"""What all variational autoencoders share: networks, training, codes and likelihood."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from methods.base import CannotFit, Method, require

if TYPE_CHECKING:
    from anndata import AnnData
    from torch import Tensor, nn


@dataclass
class Forward:
    """One pass of a minibatch through the network, as penalties see it.

    Attributes
    ----------
    network
        The parts by name.
    minibatch
        Tensors by name: those of the observation, of ``covariates`` and of ``supervision``.
    epoch
        Number of the epoch, from 0; in validation the last one possible.
    mean, log_variance
        Of q(z | x), each (n_cells, n_latent).
    z
        One draw of it.
    first
        Activations of the decoder's first hidden layer, before dropout (n_cells, width).
    """

    network: Any
    minibatch: Mapping[str, Tensor]
    epoch: int
    mean: Tensor
    log_variance: Tensor
    z: Tensor
    first: Tensor


class Variational(Method):
    """A model of cells x with latents z: loss = −E_q(z|x) log p(x | z) + penalties, of which one is a KL.

    Losses are summed over genes and latents and averaged over cells, with one posterior draw a cell. ``embed`` is the
    posterior mean, in eval mode. A subclass overrides :meth:`penalties` (what is added to the reconstruction), where
    it must :meth:`build`, and what encoder and decoder read besides expression and latents. How it predicts is its
    own.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {"max_epochs": 5},
        "paper": {"max_epochs": 1000},
    }
    #: What the likelihood "auto" is where the data have counts.
    count_likelihood: ClassVar[str] = "negative-binomial"
    #: Loss terms that do not count when the best weights are chosen.
    unwatched: ClassVar[frozenset[str]] = frozenset()

    @dataclass(frozen=True)
    class Config:
        """Network and training."""

        n_latent: int = 10  # the suite's common code size; scvi-tools SCVI's too
        hidden: tuple[int, ...] = (128, 128)  # width of scvi-tools SCVI (n_hidden=128), two layers
        activation: str = "silu"  # ours: smooth, so that decoders have curvatures (decision 0010); scVI has ReLU
        norm: str = "batch"  # scvi-tools SCVI
        dropout: float = 0.1  # scvi-tools SCVI
        likelihood: str = "gaussian"  # ours: most data sets here have no counts; "auto" takes them where they are
        learning_rate: float = 1e-3  # Adam's default; scvi-tools SCVI
        minibatch: int = 128  # scvi-tools SCVI
        max_epochs: int = 400  # scvi-tools SCVI, for small data; early stopping ends most fits before it
        patience: int = 20  # ours; scvi-tools waits 45 of its 400 epochs
        validation: float = 0.1  # scvi-tools SCVI (train_size=0.9)

        def __post_init__(self) -> None:
            """Refuse what no data could make right."""
            from methods.nn import ACTIVATIONS, LIKELIHOODS, NORMS

            for key in ("n_latent", "minibatch", "max_epochs", "patience", "learning_rate"):
                require(getattr(self, key) > 0, key, getattr(self, key), "must be above 0")
            require(min(self.hidden) > 0, "hidden", self.hidden, "must have widths above 0")
            require(0 <= self.dropout < 1, "dropout", self.dropout, "must be in [0, 1)")
            require(0 <= self.validation < 1, "validation", self.validation, "must be in [0, 1)")
            require(self.activation in ACTIVATIONS, "activation", self.activation, f"is one of {ACTIVATIONS}")
            require(self.norm in NORMS, "norm", self.norm, f"is one of {NORMS}")
            likelihoods = ("auto", *LIKELIHOODS)
            require(self.likelihood in likelihoods, "likelihood", self.likelihood, f"is one of {likelihoods}")

    @classmethod
    def preload(cls) -> None:
        """Import PyTorch, and what its optimiser imports at its first step: two seconds of every fit else."""
        import torch

        weight = torch.nn.Parameter(torch.zeros(1))
        weight.grad = torch.zeros(1)
        torch.optim.Adam([weight], fused=True).step()

    def fit(self, data: AnnData, seed: int) -> Self:
        """Train with early stopping on a split of the training cells."""
        from methods.nn.training import device, train

        if self.config.n_latent > data.n_vars:
            raise CannotFit(f"n_latent={self.config.n_latent} is more than the {data.n_vars} genes; set a smaller one")
        self.likelihood = self.config.likelihood
        if self.likelihood == "auto":
            self.likelihood = self.count_likelihood if "counts" in data.layers else "gaussian"
        self.learn_labels(data)
        self.network = self._seeded_network(data.n_vars, seed).to(device())
        self.network["observation"].calibrate(data)
        tensors = {**self.tensors(data), **self.supervision(data)}
        tensors |= self.network["observation"].index(tensors)
        outcome = train(self, self.network, tensors, self.schedule(), seed, self.name, self.strata(data))
        self.history = outcome.history
        self.unconverged = "" if outcome.converged else f"stopped by {outcome.stopped}"
        return self

    # --- what a subclass may change

    def learn_labels(self, data: AnnData) -> None:
        """Note, before the network is built, what of the training labels it depends on; here nothing."""

    def covariates(self, data: AnnData) -> dict[str, Tensor]:
        """Return further tensors (n_cells, ...) that the network reads; here none."""
        return {}

    def supervision(self, data: AnnData) -> dict[str, Tensor]:
        """Return further tensors (n_cells, ...) that only the loss of training cells needs; here none."""
        return {}

    def strata(self, data: AnnData) -> Tensor | None:
        """Return labels (n_cells,) that every minibatch must hold in proportion; here none."""
        return None

    def schedule(self) -> Any:
        """Return the :class:`methods.nn.training.Schedule` of a fit."""
        from methods.nn.training import Schedule

        config = self.config
        return Schedule(config.max_epochs, config.learning_rate, config.minibatch, config.validation, config.patience)

    def parameter_groups(self, network: Any) -> list[dict[str, Any]]:
        """Return one group of all parameters."""
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
        """Return how many inputs encoder and decoder have besides expression and latents; here none."""
        return 0

    def encoder_input(self, network: Any, minibatch: Mapping[str, Tensor]) -> Tensor:
        """Return what the encoder reads, (n_cells, n_genes + n_labels)."""
        return network["observation"].network_input(minibatch)

    def decoder_input(self, z: Tensor, minibatch: Mapping[str, Tensor]) -> Tensor:
        """Return what the decoder reads, (n_cells, n_latent + n_labels)."""
        return z

    def posterior(self, network: Any, minibatch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance of q(z | x), each (n_cells, n_latent)."""
        return network["encoder"](self.encoder_input(network, minibatch))

    def prior_mean(self, network: Any, minibatch: Mapping[str, Tensor]) -> Tensor | float:
        """Return the mean of p(z) for each cell, broadcast to (n_cells, n_latent); its covariance is I."""
        return 0.0

    def loss_terms(self, network: Any, minibatch: Mapping[str, Tensor], epoch: int) -> dict[str, Tensor]:
        """Return the reconstruction term and the penalties, each a mean over cells."""
        import torch

        mean, log_variance = network["encoder"](self.encoder_input(network, minibatch))
        z = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        first = network["decoder"].first(self.decoder_input(z, minibatch))
        log_prob = network["observation"].log_prob(minibatch, network["decoder"].rest(first))
        forward = Forward(network, minibatch, epoch, mean, log_variance, z, first)
        return {"reconstruction": -log_prob.mean(), **self.penalties(forward)}

    def penalties(self, forward: Forward) -> dict[str, Tensor]:
        """Return the named terms that are added to the reconstruction: here the KL to the prior."""
        from methods.nn.penalties import kl_normal

        prior_mean = self.prior_mean(forward.network, forward.minibatch)
        return {"kl": kl_normal(forward.mean, forward.log_variance, prior_mean).mean()}

    # --- what a fitted model can do

    def tensors(self, data: AnnData) -> dict[str, Tensor]:
        """Return the cells as the tensors that a minibatch is made of."""
        return {**self.network["observation"].tensors(data), **self.covariates(data)}

    def embed(self, data: AnnData) -> np.ndarray:
        """Return the posterior means (n_cells, n_latent)."""
        import torch

        with torch.no_grad():
            return self.posterior(self.network, self.tensors(data))[0].cpu().numpy()

    def expression_of(self, codes: np.ndarray) -> np.ndarray:
        """Return the expected expression (n_cells, n_genes) of ``codes`` (n_cells, n_latent), on the scale of X."""
        import torch

        with torch.no_grad():
            z = torch.from_numpy(np.ascontiguousarray(codes, dtype=np.float32)).to(self.where)
            return self.network["observation"].expression(self.network["decoder"](z)).cpu().numpy()

    def log_likelihood(self, data: AnnData, n_samples: int) -> np.ndarray:
        """Return the importance-weighted estimate of log p(x) of each cell (n_cells,), a lower bound on average.

        log (1/S) Σ_s p(x | z_s) p(z_s) / q(z_s | x), z_s ~ q(z | x) (Burda et al. 2016, IWAE, Eq. 8); a density of X
        for continuous likelihoods, a probability of the counts for discrete ones. The draws are always the same.
        """
        import torch
        from torch.distributions import Normal

        network = self.network
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            minibatch = self.tensors(data)
            mean, log_variance = self.posterior(network, minibatch)
            posterior = Normal(mean, torch.exp(0.5 * log_variance))
            prior = Normal(torch.zeros_like(mean) + self.prior_mean(network, minibatch), 1.0)
            weights = []
            for _ in range(n_samples):
                # on the CPU, so that a GPU's generator is left alone
                z = mean + posterior.scale * torch.randn(mean.shape).to(mean.device)
                log_prob = network["observation"].log_prob(
                    minibatch, network["decoder"](self.decoder_input(z, minibatch))
                )
                weights.append(log_prob + (prior.log_prob(z) - posterior.log_prob(z)).sum(-1))
            estimate = torch.logsumexp(torch.stack(weights), 0) - np.log(n_samples)
            return (estimate + network["observation"].log_volume()).cpu().numpy()

    @property
    def where(self) -> Any:
        """The device that the network is on."""
        return next(self.network.parameters()).device

    def state(self) -> dict[str, Any]:
        """Return the weights."""
        weights = {f"network.{key}": value.cpu().numpy() for key, value in self.network.state_dict().items()}
        return {"n_genes": self.network["observation"].n_genes, "likelihood": self.likelihood, **weights}

    def restore(self, state: dict[str, Any]) -> None:
        """Take back the weights."""
        import torch

        from methods.nn.training import device

        prefix = "network."
        weights = {k.removeprefix(prefix): torch.from_numpy(v) for k, v in state.items() if k.startswith(prefix)}
        self.likelihood = state["likelihood"]
        self.network = self.build(state["n_genes"]).to(device())
        self.network.load_state_dict(weights)
        self.network.eval()

    def _seeded_network(self, n_genes: int, seed: int) -> Any:
        """Build the network with initial weights that depend on ``seed`` alone."""
        import torch

        with torch.random.fork_rng(devices=[]):
            # torch.manual_seed would also reseed the GPU's generator, which is not forked here
            torch.default_generator.manual_seed(seed)
            return self.build(n_genes)
