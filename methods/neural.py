"""Methods with a neural network: configuration, network building, storage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from methods.base import Method, column, key, require, searched
from methods.errors import CannotFit
from methods.nn import ACTIVATIONS, LIKELIHOODS, NORMS

if TYPE_CHECKING:
    from anndata import AnnData
    from torch import Tensor, nn


#: Cells that are embedded or predicted at once; the layers of more cells could outgrow the memory.
BLOCK = 16_384


class NeuralMethod(Method):
    """A method with a network of named parts, which :meth:`build` makes; one part is the ``observation``.

    ``fit`` calls :meth:`prepare`, trains, and leaves the network in eval mode.
    """

    network: Any
    likelihood: str
    uses_gpu = True
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {"steps": 40},
        # rate and dropout of scvi-tools SCVI
        "paper": {"steps": 10_000, "learning_rate": 1e-3, "dropout": 0.1},
    }
    #: The likelihood that "auto" stands for where the data have counts.
    count_likelihood: ClassVar[str] = "negative-binomial"

    @dataclass(frozen=True)
    class Config:
        """Network and training."""

        n_latent: int = key(10, above=0)  # the suite's common code size; scvi-tools SCVI's too
        hidden: tuple[int, ...] = key((128, 128), above=0)  # width of scvi-tools SCVI (n_hidden=128), two layers
        # ours: smooth, so that decoders have curvatures (decision 0010); scVI has ReLU
        activation: str = key("silu", among=ACTIVATIONS)
        norm: str = key("batch", among=NORMS)  # scvi-tools SCVI
        dropout: float = searched(0.0, 0.0, 0.5, least=0, below=1)  # ours, decision 0028; scvi-tools SCVI has .1
        # ours: most data sets here have no counts; "auto" takes them where they are
        likelihood: str = key("gaussian", among=("auto", *LIKELIHOODS))
        learning_rate: float = searched(5e-3, 5e-4, 2e-2, log=True, above=0)  # the largest; ours, decision 0028
        minibatch: int = key(128, above=0)  # scvi-tools SCVI; smaller where cells are few
        steps: int = key(1000, above=0)  # gradient steps; ours, decision 0028
        validation: float = key(0.1, least=0, below=1)  # scvi-tools SCVI (train_size=0.9)

    @classmethod
    def check(cls, config: Any) -> None:
        """Refuse batch norm of a single cell."""
        rule = "must be 2 or above with norm='batch', which compares the cells of a minibatch"
        require(config.minibatch > 1 or config.norm != "batch", "minibatch", config.minibatch, rule)

    @classmethod
    def preload(cls) -> None:
        """Import PyTorch and the modules that its optimiser imports when it is made, which take two seconds.

        The optimiser takes no step: a step asks for the GPU and its stream, and no process that is forked
        after that question can use a GPU.
        """
        import torch

        torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], fused=True)

    def prepare(self, data: AnnData) -> None:
        """Build the network for the data; its initial weights are drawn from the global seed.

        Raises
        ------
        CannotFit
            There are more latents than genes, or the likelihood is not made for the data.
        """
        if self.config.n_latent > data.n_vars:
            raise CannotFit(f"n_latent={self.config.n_latent} is more than the {data.n_vars} genes; set a smaller one")
        self.n_genes = data.n_vars
        self.likelihood = self.config.likelihood
        if self.likelihood == "auto":
            self.likelihood = self.count_likelihood if "counts" in data.layers else "gaussian"
        self.learn_labels(data)
        self.place(data)

    def place(self, data: AnnData) -> None:
        """Build the network on its device, and take scales and levels of its observation from the data."""
        self.network = self.untrained()
        self.network["observation"].calibrate(data)
        if self.where.type == "cuda":
            self.note("trained on a GPU: the order of its sums, and so the last digits, may differ from run to run")

    def learn_labels(self, data: AnnData) -> None:
        """Set the attributes that network and loss take from the training labels; here none."""

    def build(self, n_genes: int) -> nn.ModuleDict:
        """Return the untrained network."""
        raise NotImplementedError

    def untrained(self) -> nn.ModuleDict:
        """Return the untrained network on its device."""
        from methods.nn.device import device

        return self.build(self.n_genes).to(device())

    def expression(self, codes: np.ndarray, data: AnnData | None = None) -> np.ndarray:
        """Return the expected expression (n_cells, n_genes) of the decoder's inputs ``codes``, on the scale of X.

        It is that of the cells of ``data``, or of typical cells, which for counts have another library.
        """
        import torch

        observed, found = self.network["observation"], []
        codes = np.ascontiguousarray(codes, dtype=np.float32)
        starts = range(0, max(len(codes), 1), BLOCK)
        with torch.no_grad():
            for start, part in zip(starts, in_blocks(data) if data is not None else repeat(None), strict=False):
                z = torch.from_numpy(codes[start : start + BLOCK]).to(self.where)
                minibatch = None if part is None else observed.tensors(part)
                found.append(observed.expression(self.network["decoder"](z), minibatch).cpu().numpy())
        return np.concatenate(found)

    @property
    def where(self) -> Any:
        """The device of the network."""
        return next(self.network.parameters()).device


def in_blocks(data: AnnData) -> list[AnnData]:
    """Return the data in parts of at most :data:`BLOCK` cells, at least one part."""
    return [data] if data.n_obs <= BLOCK else [data[i : i + BLOCK] for i in range(0, data.n_obs, BLOCK)]


def environment_numbers(data: AnnData, where: Any) -> Tensor:
    """Return the index of each cell's environment among the sorted ones, (n_cells,), on the device ``where``."""
    import torch

    return torch.from_numpy(np.unique(column(data, "environment"), return_inverse=True)[1]).to(where)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed PyTorch's random numbers on the CPU with ``seed``, and leave the global generator as it was."""
    import torch

    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would also reseed the GPU's generator, which is not forked here
        torch.default_generator.manual_seed(seed)
        yield
