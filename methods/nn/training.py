"""The one training loop of all variational autoencoders."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from methods.base import CannotFit


class NonFiniteLoss(FloatingPointError):
    """A loss term became NaN or infinite; the message names it, the epoch and what to try."""


class Model(Protocol):
    """What the loop asks of a model: named loss terms, each a scalar mean over cells; their sum is the loss."""

    def loss_terms(self, network: nn.Module, minibatch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the loss terms of one minibatch."""


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train.

    Attributes
    ----------
    max_epochs
        Passes over the training split at most.
    learning_rate
        Of Adam.
    minibatch
        Cells a gradient step; the last ones of an epoch are spread, so that no minibatch is tiny.
    validation
        Share of the cells kept out of the gradient steps, by which the best weights are chosen. With fewer
        than 20 cells the training loss is watched instead.
    patience
        Epochs without improvement after which training stops.
    """

    max_epochs: int
    learning_rate: float
    minibatch: int
    validation: float
    patience: int


@dataclass
class Outcome:
    """Training curves (term to value at each epoch) and why training stopped."""

    history: dict[str, list[float]] = field(default_factory=dict)
    best_epoch: int = 0
    stopped: str = ""
    converged: bool = False

    def log(self, terms: Mapping[str, float], prefix: str = "") -> None:
        """Append one epoch's values."""
        for name, value in terms.items():
            self.history.setdefault(prefix + name, []).append(value)


def device() -> torch.device:
    """Return the GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def train(
    model: Model, network: nn.Module, tensors: Mapping[str, Tensor], schedule: Schedule, seed: int, name: str
) -> Outcome:
    """Train ``network`` in place by Adam and leave it in eval mode with its best weights.

    Parameters
    ----------
    model
        Gives the loss terms.
    network
        On its device.
    tensors
        Training data by name, the first axis being cells, on the network's device.
    schedule
        How long and how fast.
    seed
        Of the split, the order of cells, dropout and the posterior draws.
    name
        The method's name, for messages.

    Raises
    ------
    NonFiniteLoss
        When a term is NaN or infinite at the end of an epoch.
    """
    n_cells = len(next(iter(tensors.values())))
    if n_cells < 2:
        raise CannotFit(f"{name} needs at least 2 cells, got {n_cells}")
    where = next(iter(tensors.values())).device
    # the order of cells is drawn on the CPU, so that it is the same one on every device
    shuffle = torch.Generator().manual_seed(seed)
    order = torch.randperm(n_cells, generator=shuffle).to(where)
    n_validation = int(schedule.validation * n_cells) if n_cells >= 20 else 0
    held, kept = order[:n_validation], order[n_validation:]
    validation = {key: value.index_select(0, held) for key, value in tensors.items()}
    n_batches = -(-len(kept) // schedule.minibatch)

    optimizer = torch.optim.Adam(network.parameters(), lr=schedule.learning_rate, fused=True)
    outcome = Outcome(stopped=f"max_epochs={schedule.max_epochs}")
    best, best_weights = float("inf"), deepcopy(network.state_dict())
    with torch.random.fork_rng(devices=[where] if where.type == "cuda" else []):
        torch.manual_seed(seed)
        for epoch in range(schedule.max_epochs):
            network.train()
            totals: dict[str, Tensor] = {}
            shuffled = kept[torch.randperm(len(kept), generator=shuffle).to(where)]
            for cells in shuffled.tensor_split(n_batches):
                minibatch = {key: value.index_select(0, cells) for key, value in tensors.items()}
                terms = model.loss_terms(network, minibatch)
                optimizer.zero_grad(set_to_none=True)
                torch.stack(list(terms.values())).sum().backward()
                optimizer.step()
                for key, value in terms.items():
                    totals[key] = totals.get(key, 0.0) + value.detach() * (len(cells) / len(kept))
            curves = {key: float(value) for key, value in totals.items()}
            _require_finite(curves, name, epoch)
            outcome.log(curves)
            watched = sum(curves.values())
            if n_validation:
                network.eval()
                with torch.no_grad():
                    terms = model.loss_terms(network, validation)
                watched = float(torch.stack(list(terms.values())).sum())
                _require_finite({"validation": watched}, name, epoch)
                outcome.log({"validation": watched})
            if watched < best:
                best, outcome.best_epoch = watched, epoch
                best_weights = deepcopy(network.state_dict())
            elif epoch - outcome.best_epoch >= schedule.patience:
                outcome.stopped = f"no improvement for {schedule.patience} epochs after epoch {outcome.best_epoch}"
                outcome.converged = True
                break
    network.load_state_dict(best_weights)
    network.eval()
    return outcome


def _require_finite(curves: Mapping[str, float], name: str, epoch: int) -> None:
    for term, value in curves.items():
        if not abs(value) < float("inf"):
            raise NonFiniteLoss(
                f"{name}: loss term {term!r} is {value} at epoch {epoch}; "
                "try a smaller learning_rate or a larger minibatch"
            )
