"""Replicas: several networks of one shape, side by side along a leading axis, trained in one pass.

A small network's step is mostly the calling of operations, not arithmetic; five networks in one call cost little more
than one. Parameters and buffers of shape (...) become (n_replicas, ...), and the parts in :mod:`methods.nn.networks`
and :mod:`methods.nn.likelihoods` then map (n_replicas, n_cells, ...) to the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Parameters and buffers by name.
Weights = dict[str, Tensor]


def stacked(networks: Sequence[nn.Module]) -> nn.Module:
    """Return a network that is all of ``networks``, of one shape, side by side."""
    several = deepcopy(networks[0])
    for path, module in several.named_modules():
        alike = [network.get_submodule(path) for network in networks]
        for name in module._parameters:
            if module._parameters[name] is not None:
                values = torch.stack([getattr(one, name).detach() for one in alike])
                setattr(module, name, nn.Parameter(values))
        for name in module._buffers:
            if module._buffers[name] is not None:
                setattr(module, name, torch.stack([getattr(one, name) for one in alike]))
    return several


def weights_of(network: nn.Module, replica: int | None = None) -> Weights:
    """Return a copy of a network's parameters and buffers, or of one replica's, as ``load_state_dict`` takes them."""
    of_one = ... if replica is None else replica
    return {name: values[of_one].clone() for name, values in network.state_dict().items()}


def keep(network: nn.Module, optimizer: torch.optim.Optimizer, replicas: Tensor) -> None:
    """Leave in ``network`` and its optimiser the replicas of these numbers alone, in place."""
    kept: dict[Tensor, nn.Parameter] = {}
    for module in network.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = kept[parameter] = nn.Parameter(parameter.detach()[replicas])
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = buffer[replicas]
    for old, new in kept.items():
        state = optimizer.state.pop(old)
        # the counter of steps is of all replicas
        optimizer.state[new] = {key: value[replicas] if value.dim() else value for key, value in state.items()}
    for group in optimizer.param_groups:
        group["params"] = [kept[parameter] for parameter in group["params"]]


def rows(table: Tensor, numbers: Tensor) -> Tensor:
    """Return the rows (..., n, width) of ``table`` (..., n_rows, width) that have ``numbers`` (..., n)."""
    if table.dim() == 3:
        first = len(table[0]) * torch.arange(len(table), device=table.device)
        table, numbers = table.flatten(0, 1), numbers + first.unsqueeze(-1)
    return F.embedding(numbers, table)
