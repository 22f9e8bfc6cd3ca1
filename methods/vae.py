"""The variational autoencoder: what every other one here builds on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from methods.base import CannotFit, require
from methods.latent_arithmetic import LatentArithmetic

if TYPE_CHECKING:
    from anndata import AnnData
    from torch import Tensor, nn


class VAE(LatentArithmetic):
    """Variational autoencoder with a Gaussian likelihood (Kingma & Welling 2014, Eq. 10).

    loss = −E_q(z|x) log p(x | z) + KL(q(z | x) ‖ N(0, I)), summed over genes and latents, averaged over cells,
    with one posterior draw a cell. Genes are centred on the training mean and divided by one common scale, and
    the likelihood has one learned variance (σ-VAE), so that reconstruction and KL stand in proportion on any
    data. ``embed`` is the posterior mean; ``decode`` and ``predict`` return decoder means on the scale of X.

    A subclass overrides :meth:`penalties` (what is added to the reconstruction) and, where it must, ``Config``.
    """

    name = "vae"
    tags = frozenset({"embedding", "prediction", "vae"})
    reference = "Kingma & Welling 2014, arXiv 1312.6114"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {"max_epochs": 5},
        "paper": {"max_epochs": 1000},
    }

    @dataclass(frozen=True)
    class Config:
        """Network and training."""

        n_latent: int = 10  # the suite's common code size; scvi-tools SCVI's too
        hidden: tuple[int, ...] = (128, 128)  # width of scvi-tools SCVI (n_hidden=128), two layers
        activation: str = "relu"  # scvi-tools SCVI
        norm: str = "batch"  # scvi-tools SCVI
        dropout: float = 0.1  # scvi-tools SCVI
        learning_rate: float = 1e-3  # Adam's default; scvi-tools SCVI
        minibatch: int = 128  # scvi-tools SCVI
        max_epochs: int = 400  # scvi-tools SCVI, for small data; early stopping ends most fits before it
        patience: int = 20  # ours; scvi-tools waits 45 of its 400 epochs
        validation: float = 0.1  # scvi-tools SCVI (train_size=0.9)

        def __post_init__(self) -> None:
            """Refuse what no data could make right."""
            from methods.nn import ACTIVATIONS, NORMS

            for key in ("n_latent", "minibatch", "max_epochs", "patience", "learning_rate"):
                require(getattr(self, key) > 0, key, getattr(self, key), "must be above 0")
            require(min(self.hidden) > 0, "hidden", self.hidden, "must have widths above 0")
            require(0 <= self.dropout < 1, "dropout", self.dropout, "must be in [0, 1)")
            require(0 <= self.validation < 1, "validation", self.validation, "must be in [0, 1)")
            require(self.activation in ACTIVATIONS, "activation", self.activation, f"is one of {ACTIVATIONS}")
            require(self.norm in NORMS, "norm", self.norm, f"is one of {NORMS}")

    @classmethod
    def preload(cls) -> None:
        """Import PyTorch, and what its optimiser imports at its first step: two seconds of every fit else."""
        import torch

        weight = torch.nn.Parameter(torch.zeros(1))
        weight.grad = torch.zeros(1)
        torch.optim.Adam([weight], fused=True).step()

    def fit(self, data: AnnData, seed: int) -> Self:
        """Train with early stopping on a split of the training cells."""
        import torch

        from methods.nn.training import Schedule, device, train

        config = self.config
        if config.n_latent > data.n_vars:
            raise CannotFit(f"n_latent={config.n_latent} is more than the {data.n_vars} genes; set a smaller one")
        x = torch.from_numpy(np.ascontiguousarray(data.X, dtype=np.float32)).to(device())
        self.network = self._seeded_network(data.n_vars, seed).to(device())
        self.network["scaler"].set(x)
        tensors = {"x": self.network["scaler"](x), **self.covariates(data)}
        schedule = Schedule(
            config.max_epochs, config.learning_rate, config.minibatch, config.validation, config.patience
        )
        outcome = train(self, self.network, tensors, schedule, seed, self.name)
        self.history = outcome.history
        self.unconverged = "" if outcome.converged else f"stopped by {outcome.stopped}"
        self.remember_latents(data)
        return self

    def covariates(self, data: AnnData) -> dict[str, Tensor]:
        """Return further tensors (n_cells, ...) that :meth:`penalties` needs in its minibatch; none here."""
        return {}

    def build(self, n_genes: int) -> nn.ModuleDict:
        """Return the untrained network: scaler, encoder, decoder, likelihood."""
        from torch import nn

        from methods.nn.likelihoods import Gaussian
        from methods.nn.networks import Decoder, GaussianEncoder, Scaler

        config = self.config
        shape = (config.activation, config.norm, config.dropout)
        return nn.ModuleDict(
            {
                "scaler": Scaler(n_genes),
                "encoder": GaussianEncoder(n_genes, config.hidden, config.n_latent, *shape),
                "decoder": Decoder(config.n_latent, config.hidden[::-1], n_genes, *shape),
                "likelihood": Gaussian(),
            }
        )

    def loss_terms(self, network: Any, minibatch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the reconstruction term and the penalties, each a mean over cells."""
        import torch

        mean, log_variance = network["encoder"](minibatch["x"])
        z = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        log_prob = network["likelihood"].log_prob(minibatch["x"], network["decoder"](z))
        return {"reconstruction": -log_prob.mean(), **self.penalties(mean, log_variance, z, minibatch)}

    def penalties(
        self, mean: Tensor, log_variance: Tensor, z: Tensor, minibatch: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return the named terms that are added to the reconstruction: here the KL to the prior."""
        from methods.nn.penalties import kl_standard_normal

        return {"kl": kl_standard_normal(mean, log_variance).mean()}

    def embed(self, data: AnnData) -> np.ndarray:
        """Return the posterior means (n_cells, n_latent)."""
        import torch

        scaler = self.network["scaler"]
        with torch.no_grad():
            x = torch.from_numpy(np.ascontiguousarray(data.X, dtype=np.float32)).to(scaler.mean.device)
            return self.network["encoder"](scaler(x))[0].cpu().numpy()

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Return the decoder means (n_cells, n_genes) of ``codes`` (n_cells, n_latent), on the scale of X."""
        import torch

        scaler = self.network["scaler"]
        with torch.no_grad():
            z = torch.from_numpy(np.ascontiguousarray(codes, dtype=np.float32)).to(scaler.mean.device)
            return scaler.inverse(self.network["decoder"](z)).cpu().numpy()

    def state(self) -> dict[str, Any]:
        """Return the weights and the latent means."""
        weights = {f"network.{key}": value.cpu().numpy() for key, value in self.network.state_dict().items()}
        return {**weights, **self.latent_state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take back the weights and the latent means."""
        import torch

        from methods.nn.training import device

        prefix = "network."
        weights = {k.removeprefix(prefix): torch.from_numpy(v) for k, v in state.items() if k.startswith(prefix)}
        self.network = self.build(len(weights["scaler.mean"])).to(device())
        self.network.load_state_dict(weights)
        self.network.eval()
        self.restore_latents(state)

    def _seeded_network(self, n_genes: int, seed: int) -> Any:
        """Build the network with initial weights that depend on ``seed`` alone."""
        import torch

        with torch.random.fork_rng(devices=[]):
            # torch.manual_seed would also reseed the GPU's generator, which is not forked here
            torch.default_generator.manual_seed(seed)
            return self.build(n_genes)
