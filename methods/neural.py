"""What all methods with a network share: its configuration, how it is built, and how it is kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from methods.base import CannotFit, Method, column, require, searched

if TYPE_CHECKING:
    from anndata import AnnData
    from torch import Tensor, nn


class NeuralMethod(Method):
    """A method with a network of named parts, ``observation`` one of them, built by :meth:`build`.

    ``fit`` calls :meth:`prepare`, trains, and leaves the network in eval mode.
    """

    network: Any
    likelihood: str
    uses_gpu = True
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {"max_epochs": 5},
        "paper": {"max_epochs": 1000},
    }
    #: What the likelihood "auto" is where the data have counts.
    count_likelihood: ClassVar[str] = "negative-binomial"

    @dataclass(frozen=True)
    class Config:
        """Network and training."""

        n_latent: int = 10  # the suite's common code size; scvi-tools SCVI's too
        hidden: tuple[int, ...] = (128, 128)  # width of scvi-tools SCVI (n_hidden=128), two layers
        activation: str = "silu"  # ours: smooth, so that decoders have curvatures (decision 0010); scVI has ReLU
        norm: str = "batch"  # scvi-tools SCVI
        dropout: float = searched(0.1, 0.0, 0.5)  # scvi-tools SCVI
        likelihood: str = "gaussian"  # ours: most data sets here have no counts; "auto" takes them where they are
        learning_rate: float = searched(1e-3, 1e-4, 1e-2, log=True)  # Adam's default; scvi-tools SCVI
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
            rule = "must be 2 or above with norm='batch', which needs two cells to tell how far a cell is off"
            require(self.minibatch > 1 or self.norm != "batch", "minibatch", self.minibatch, rule)
            likelihoods = ("auto", *LIKELIHOODS)
            require(self.likelihood in likelihoods, "likelihood", self.likelihood, f"is one of {likelihoods}")

    @classmethod
    def preload(cls) -> None:
        """Import PyTorch, and what its optimiser imports when it is made: two seconds of every fit else.

        The optimiser takes no step: a step asks for the GPU and its stream, and no process that is forked
        after that question can use a GPU.
        """
        import torch

        torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], fused=True)

    def prepare(self, data: AnnData) -> None:
        """Settle what depends on the data, and build the network; its initial weights are drawn from the global seed.

        Raises
        ------
        CannotFit
            More latents than genes, or data that the likelihood is not for.
        """
        from methods.nn.training import device

        if self.config.n_latent > data.n_vars:
            raise CannotFit(f"n_latent={self.config.n_latent} is more than the {data.n_vars} genes; set a smaller one")
        self.likelihood = self.config.likelihood
        if self.likelihood == "auto":
            self.likelihood = self.count_likelihood if "counts" in data.layers else "gaussian"
        self.learn_labels(data)
        self.network = self.build(data.n_vars).to(device())
        self.network["observation"].calibrate(data)
        if self.where.type == "cuda":
            self.note("trained on a GPU: the order of its sums, and so the last digits, may differ from run to run")

    def learn_labels(self, data: AnnData) -> None:
        """Note, before the network is built, what of the training labels it depends on; here nothing."""

    def build(self, n_genes: int) -> nn.ModuleDict:
        """Return the untrained network."""
        raise NotImplementedError

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


def environment_numbers(data: AnnData, where: Any) -> Tensor:
    """Return the number of each cell's environment among the sorted ones, (n_cells,), on the device ``where``."""
    import torch

    return torch.from_numpy(np.unique(column(data, "environment"), return_inverse=True)[1]).to(where)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw what is drawn on the CPU from ``seed`` alone, and leave the global generator as it was."""
    import torch

    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would also reseed the GPU's generator, which is not forked here
        torch.default_generator.manual_seed(seed)
        yield
