"""SCVI and ContrastiveVI of scvi-tools, where the optional extra is installed."""

from __future__ import annotations

import os
import random
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from methods.base import Method, column, control, key, require, require_trained
from methods.errors import CannotFit
from methods.groups import group_means, moved

if TYPE_CHECKING:
    from anndata import AnnData
    from torch import Tensor

#: Early stopping needs validation cells, which scvi-tools takes from these.
MIN_CELLS = 20


class ScviTools(Method):
    """A model of scvi-tools: its networks, loss and training, behind this suite's contract.

    Both models are variational autoencoders of counts under a zero-inflated negative binomial, trained with early
    stopping on the evidence bound of a tenth of the cells. They predict the expectation of X under that likelihood;
    scvi-tools' own normalised expression has another scale and is not the mean of a logarithm.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"smoke": {"max_epochs": 5}}
    uses_gpu = True

    @dataclass(frozen=True)
    class Config:
        """Network and training."""

        n_latent: int = key(10, above=0)  # scvi-tools
        hidden: tuple[int, ...] = key((128,), above=0)  # scvi-tools: one layer of 128
        dropout: float = key(0.1, least=0, below=1)  # scvi-tools
        learning_rate: float = key(1e-3, above=0)  # scvi-tools
        minibatch: int = key(128, above=0)  # scvi-tools
        max_epochs: int = key(400, above=0)  # scvi-tools, of up to 20,000 cells
        patience: int = key(45, above=0)  # scvi-tools

    @classmethod
    def check(cls, config: Any) -> None:
        """Refuse hidden layers of different widths."""
        require(len(set(config.hidden)) == 1, "hidden", config.hidden, "must have equal widths")

    @classmethod
    def preload(cls) -> None:
        """Import scvi-tools, which takes longer than some fits, where it is installed."""
        try:
            require_scvi()
        except CannotFit:
            return

    def fit(self, data: AnnData, seed: int) -> Self:
        """Train scvi-tools' model on the counts, and keep its network."""
        from anndata import AnnData as Cells

        from methods.nn.device import device
        from methods.nn.observation import observation

        require_scvi()
        self.n_genes = data.n_vars
        counts = self.counts(data).cpu().numpy()
        # raises CannotFit unless X is made of the counts
        observation("zero-inflated-negative-binomial", data.n_vars).calibrate(data)
        if data.n_obs < MIN_CELLS or not counts.any(axis=1).all():
            raise CannotFit(f"{self.name} needs at least {MIN_CELLS} cells, each with counts")
        self.environments = sorted(set(column(data, "environment").tolist()))
        labels = column(data, "environment").astype(object)
        cells = Cells(counts, obs={"environment": labels})
        cells.obs_names = [f"cell{i}" for i in range(len(counts))]
        schedule = {
            "max_epochs": self.config.max_epochs,
            "batch_size": self.config.minibatch,
            "accelerator": device().type.replace("cuda", "gpu"),
            "devices": 1,
            "early_stopping": True,
            "early_stopping_patience": self.config.patience,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "plan_kwargs": {"lr": self.config.learning_rate},
        }
        with seeded_everywhere(seed):
            model = self.train(cells, schedule, control(data))
        self.module = model.module.to(device()).eval()
        self.history = {key: [float(v) for v in curve.iloc[:, 0]] for key, curve in model.history.items()}
        stopped = len(self.history["elbo_validation"]) < self.config.max_epochs
        self.unconverged = "" if stopped else f"stopped by max_epochs={self.config.max_epochs}"
        return self

    @abstractmethod
    def train(self, cells: AnnData, schedule: dict[str, Any], control: str) -> Any:
        """Return the trained model of ``cells``, counts with their environments in ``obs``."""

    @abstractmethod
    def build(self) -> Any:
        """Return an untrained network of the fitted one's shape."""

    def arguments(self) -> dict[str, Any]:
        """Return the configuration under scvi-tools' names."""
        return {
            "n_hidden": self.config.hidden[0],
            "n_layers": len(self.config.hidden),
            "dropout_rate": self.config.dropout,
        }

    @property
    def where(self) -> Any:
        """The device that the network is on."""
        return next(self.module.parameters()).device

    def _observed(self) -> Any:
        """Return this suite's likelihood of counts, whose outputs are log shares and logits of dropout."""
        from methods.nn.observation import observation

        observed = observation("zero-inflated-negative-binomial", self.n_genes)
        observed.offset.zero_()  # type: ignore[operator]
        return observed

    def counts(self, data: AnnData) -> Tensor:
        """Return the counts (n_cells, n_genes); CannotFit where there are none."""
        if "counts" not in data.layers:
            raise CannotFit(f"{self.name} needs counts, and these data have none")
        return self._observed().tensors(data)["counts"].dense()

    def cells(self, data: AnnData) -> tuple[Tensor, Tensor]:
        """Return the counts and the logarithm of their sums (n_cells, 1), on the network's device."""
        counts = self.counts(data).to(self.where)
        return counts, counts.sum(1, keepdim=True).clamp(min=1.0).log()

    def expression(self, data: AnnData, share: Tensor, dropout: Tensor) -> np.ndarray:
        """Return E X of a decoder's shares and logits of dropout, (n_cells, n_genes)."""
        import torch

        observed = self._observed().to(self.where)
        with torch.no_grad():
            observed.likelihood.log_theta.copy_(self.module.px_r)
            output = torch.cat([share.clamp(min=1e-20).log(), dropout], 1)
            return observed.expression(output, observed.tensors(data)).cpu().numpy()

    def untrained(self) -> Any:
        """Return an untrained network on its device."""
        import torch

        from methods.nn.device import device

        require_scvi()
        with torch.random.fork_rng(devices=[]):
            return self.build().to(device())


class SCVI(ScviTools):
    """scVI (Lopez et al. 2018): a VAE of counts whose decoder is told the environment as a batch.

    The encoder reads expression alone, so that every cell has a code, and the decoder's label is to explain the
    environment. ``embed`` is the posterior mean; ``predict`` decodes it with the target's label, as scvi-tools'
    ``transform_batch`` does. It knows only the environments on which it was trained.
    """

    name = "scvi"
    tags = frozenset({"embedding", "prediction", "vae", "conditional"})
    paper = "Lopez et al. 2018, Nature Methods 15:1053; scvi-tools: Gayoso et al. 2022, Nature Biotechnology 40:163"

    def arguments(self) -> dict[str, Any]:
        """Return the configuration under scvi-tools' names."""
        return {**super().arguments(), "n_latent": self.config.n_latent, "gene_likelihood": "zinb"}

    def train(self, cells: AnnData, schedule: dict[str, Any], control: str) -> Any:
        """Return the trained model."""
        from scvi.model import SCVI as Model

        Model.setup_anndata(cells, batch_key="environment")
        model = Model(cells, **self.arguments())
        model.train(**schedule)
        return model

    def build(self) -> Any:
        """Return an untrained network."""
        from scvi.module import VAE

        sizes = {"n_input": self.n_genes, "n_batch": len(self.environments), "n_labels": 1}
        return VAE(**sizes, **self.arguments())

    def embed(self, data: AnnData) -> np.ndarray:
        """Return the posterior means (n_cells, n_latent)."""
        import torch

        counts, _ = self.cells(data)
        with torch.no_grad(), torch.random.fork_rng(devices=[]):  # the encoder also draws
            return self.module.z_encoder(torch.log1p(counts))[0].mean.cpu().numpy()

    def predict(self, data: AnnData, target_environment: str) -> np.ndarray:
        """Return the expression (n_cells, n_genes) expected of ``data``'s cells in ``target_environment``."""
        import torch

        require_trained(self.name, target_environment, self.environments)
        codes, library = torch.from_numpy(self.embed(data)).to(self.where), self.cells(data)[1]
        label = torch.full_like(library, self.environments.index(target_environment), dtype=torch.long)
        with torch.no_grad():
            share, _, _, dropout = self.module.decoder("gene", codes, library, label)
        return self.expression(data, share, dropout)


class ContrastiveVI(ScviTools):
    """ContrastiveVI (Weinberger, Lin, Lee 2023): latents that all cells have, and salient ones that controls lack.

    Control cells are the background, all others the target. ``embed`` returns the means of the shared latents,
    ``embed_blocks`` also those of the salient latents, zero in control cells. Theirs does not predict. Here ``predict``
    is latent arithmetic on both blocks: the shared latents of the target may hold the environment as well, and an
    exchange of the salient latents alone hardly moves a cell.
    """

    name = "contrastive-vi"
    tags = frozenset({"embedding", "prediction", "vae", "disentanglement", "blocks"})
    paper = "Weinberger, Lin, Lee 2023, Nature Methods 20:1336"

    @dataclass(frozen=True)
    class Config(ScviTools.Config):
        """The network, with the salient latents."""

        n_salient: int = key(10, above=0)  # scvi-tools
        wasserstein: float = key(0.0, least=0)  # scvi-tools

    def fit(self, data: AnnData, seed: int) -> Self:
        """Train, and keep the mean latents of each environment and content."""
        self.control = control(data)
        super().fit(data, seed)
        codes = np.hstack(list(self.embed_blocks(data).values()))
        self.latent_means = group_means(codes, column(data, "environment"), column(data, "content"))
        return self

    def train(self, cells: AnnData, schedule: dict[str, Any], control: str) -> Any:
        """Return the trained model."""
        from scvi.external import ContrastiveVI as Model

        is_control = (cells.obs["environment"] == control).to_numpy()
        if min(is_control.sum(), (~is_control).sum()) < MIN_CELLS // 2:
            raise CannotFit(f"{self.name} needs at least {MIN_CELLS // 2} control and as many other cells")
        Model.setup_anndata(cells)
        model = Model(cells, **self.arguments())
        groups = {"background_indices": np.flatnonzero(is_control), "target_indices": np.flatnonzero(~is_control)}
        model.train(**groups, **schedule)
        return model

    def arguments(self) -> dict[str, Any]:
        """Return the configuration under scvi-tools' names."""
        return {
            **super().arguments(),
            "n_background_latent": self.config.n_latent,
            "n_salient_latent": self.config.n_salient,
            "wasserstein_penalty": self.config.wasserstein,
        }

    def build(self) -> Any:
        """Return an untrained network."""
        from scvi.external.contrastivevi import ContrastiveVAE

        return ContrastiveVAE(n_input=self.n_genes, n_batch=1, **self.arguments())

    def embed(self, data: AnnData) -> np.ndarray:
        """Return the means of the shared latents, (n_cells, n_latent)."""
        return self.embed_blocks(data)["shared"]

    def embed_blocks(self, data: AnnData) -> dict[str, np.ndarray]:
        """Return the means of the shared and of the salient latents; the latter are zero in control cells."""
        import torch

        x = torch.log1p(self.cells(data)[0])
        batch = torch.zeros_like(x[:, :1], dtype=torch.long)
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            shared, salient = (
                encoder(x, batch)[0].cpu().numpy() for encoder in (self.module.z_encoder, self.module.s_encoder)
            )
        return {"shared": shared, "private": salient * (column(data, "environment") != self.control)[:, None]}

    def predict(self, data: AnnData, target_environment: str) -> np.ndarray:
        """Return the expression (n_cells, n_genes) expected of ``data``'s cells in ``target_environment``."""
        import torch

        require_trained(self.name, target_environment, self.environments)
        codes, sources = np.hstack(list(self.embed_blocks(data).values())), column(data, "environment")
        codes = moved(codes, sources, lambda _, source: self.latent_shift(source, target_environment))
        latents, library = torch.from_numpy(codes).to(self.where), self.cells(data)[1]
        with torch.no_grad():
            batch = torch.zeros_like(library, dtype=torch.long)
            share, _, _, dropout = self.module.decoder("gene", latents, library, batch)
        return self.expression(data, share, dropout)

    def latent_shift(self, source: str, target: str) -> np.ndarray:
        """Return the mean shift of both blocks, each content label seen in both environments weighing the same."""
        require_trained(self.name, source, self.environments)
        return np.asarray(self.latent_means.shifts(source, target)[1].mean(axis=0), dtype=np.float32)


def require_scvi() -> None:
    """Import scvi-tools, or raise CannotFit with how to install it."""
    try:
        with seeded_everywhere(0):  # it seeds what is global on import
            import scvi.external
            import scvi.model  # noqa: F401
    except ImportError as error:
        raise CannotFit("scvi-tools is not installed; pip install '.[scvi]'") from error


@contextmanager
def seeded_everywhere(seed: int) -> Iterator[None]:
    """Seed all generators of scvi-tools, silence its messages, and restore the former state afterwards."""
    import logging
    import sys
    import warnings

    import torch

    before = random.getstate(), np.random.get_state(), os.environ.copy()  # noqa: NPY002
    levels = {name: logging.getLogger(name).level for name in ("scvi", "lightning.pytorch", "lightning.fabric")}
    drawn = torch.get_rng_state()
    # an unused GPU has drawn nothing, and asking for the number of GPUs would keep forked processes from using them
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    drawn_there = {device: torch.cuda.get_rng_state(device) for device in devices}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if "scvi" in sys.modules and hasattr(sys.modules["scvi"], "settings"):
                for name in levels:
                    logging.getLogger(name).setLevel(logging.ERROR)
                sys.modules["scvi"].settings.seed = seed
            yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        torch.set_rng_state(drawn)
        for device, state in drawn_there.items():
            torch.cuda.set_rng_state(state, device)
        os.environ.clear()
        os.environ.update(before[2])
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
