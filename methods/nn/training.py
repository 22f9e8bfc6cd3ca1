"""The one training loop of all variational autoencoders."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from methods.base import CannotFit

#: Penalties may grow with the square of the cells that they see at once.
VALIDATED_AT_ONCE = 1024


class NonFiniteLoss(FloatingPointError):
    """A loss term became NaN or infinite; the message names it, the epoch and what to try."""


class Model(Protocol):
    """What the loop asks of a model."""

    @property
    def unwatched(self) -> Collection[str]:
        """Return the terms that are trained on but say nothing of how good the model is, as an adversary's own loss.

        The best weights are chosen without them.
        """

    def loss_terms(self, network: Any, minibatch: Mapping[str, Tensor], epoch: int) -> dict[str, Tensor]:
        """Return the named loss terms of one minibatch, each a scalar mean over cells; their sum is the loss.

        In validation ``epoch`` is the last one that the schedule allows, so that whatever is warmed up counts in full.
        """

    def parameter_groups(self, network: Any) -> list[dict[str, Any]]:
        """Return the parameter groups of the optimiser; a group's ``lr`` replaces the schedule's."""


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
    warmup
        Epochs at the start during which the loss is not yet the final one, and no weights count as best.
    final_learning_rate
        Where a cosine schedule over all epochs ends; 0 keeps the learning rate constant.
    """

    max_epochs: int
    learning_rate: float
    minibatch: int
    validation: float
    patience: int
    warmup: int = 0
    final_learning_rate: float = 0.0


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
    model: Model,
    network: nn.Module,
    tensors: Mapping[str, Tensor],
    schedule: Schedule,
    seed: int,
    name: str,
    strata: Tensor | None = None,
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
    strata
        Labels (n_cells,), whole numbers; every minibatch then holds each label in its share of the cells.

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

    optimizer = torch.optim.Adam(model.parameter_groups(network), lr=schedule.learning_rate, fused=True)
    cosine = schedule.final_learning_rate > 0
    decay = CosineAnnealingLR(optimizer, schedule.max_epochs, schedule.final_learning_rate) if cosine else None
    outcome = Outcome(stopped=f"max_epochs={schedule.max_epochs}")
    best, best_weights = float("inf"), deepcopy(network.state_dict())
    with torch.random.fork_rng(devices=[where] if where.type == "cuda" else []):
        torch.manual_seed(seed)
        for epoch in range(schedule.max_epochs):
            network.train()
            totals: dict[str, Tensor] = {}
            shuffled = kept[torch.randperm(len(kept), generator=shuffle).to(where)]
            if strata is not None:
                shuffled = shuffled[_spread(strata[shuffled])]
            for cells in shuffled.tensor_split(n_batches):
                minibatch = {key: value.index_select(0, cells) for key, value in tensors.items()}
                terms = model.loss_terms(network, minibatch, epoch)
                optimizer.zero_grad(set_to_none=True)
                torch.stack(list(terms.values())).sum().backward()
                optimizer.step()
                for key, value in terms.items():
                    totals[key] = totals.get(key, 0.0) + value.detach() * (len(cells) / len(kept))
            if decay is not None:
                decay.step()
            curves = {key: float(value) for key, value in totals.items()}
            _require_finite(curves, name, epoch)
            outcome.log(curves)
            watched = sum(value for key, value in curves.items() if key not in model.unwatched)
            if n_validation:
                network.eval()
                watched = 0.0
                with torch.no_grad():
                    for piece in torch.arange(n_validation, device=where).split(VALIDATED_AT_ONCE):
                        minibatch = {key: value.index_select(0, piece) for key, value in validation.items()}
                        terms = model.loss_terms(network, minibatch, schedule.max_epochs)
                        loss = sum(value for key, value in terms.items() if key not in model.unwatched)
                        watched += float(loss) * len(piece) / n_validation
                _require_finite({"validation": watched}, name, epoch)
                outcome.log({"validation": watched})
            if watched < best or epoch < schedule.warmup:
                # what is best during the warm-up is only where the next epoch starts from
                best = watched if epoch >= schedule.warmup else float("inf")
                outcome.best_epoch = epoch
                best_weights = deepcopy(network.state_dict())
            elif epoch - outcome.best_epoch >= schedule.patience:
                outcome.stopped = f"no improvement for {schedule.patience} epochs after epoch {outcome.best_epoch}"
                outcome.converged = True
                break
    network.load_state_dict(best_weights)
    network.eval()
    return outcome


def _spread(labels: Tensor) -> Tensor:
    """Return an order of ``labels`` (n,) in which any stretch holds each in proportion; equal ones keep their order."""
    by_label = torch.sort(labels, stable=True).indices
    counts = torch.unique_consecutive(labels[by_label], return_counts=True)[1]
    rank = torch.arange(len(labels), device=labels.device) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    place = (rank + 0.5) / counts.repeat_interleave(counts)
    return by_label[torch.sort(place, stable=True).indices]


def _require_finite(curves: Mapping[str, float], name: str, epoch: int) -> None:
    for term, value in curves.items():
        if not abs(value) < float("inf"):
            raise NonFiniteLoss(
                f"{name}: loss term {term!r} is {value} at epoch {epoch}; "
                "try a smaller learning_rate or a larger minibatch"
            )
