"""Stacked fits: networks of one shape that are trained side by side, along a leading axis.

A step of a small network is mostly the calling of operations, not arithmetic; five stacked networks take little more
time than one. Parameters and buffers of shape (...) become (n_fits, ...), and the parts in :mod:`methods.nn.networks`
and :mod:`methods.nn.likelihoods` then map (n_fits, n_cells, ...) to (n_fits, n_cells, ...). Each fit has its own random
numbers: the functions ``..._like`` draw from PyTorch's generator for one network, and from a generator for each fit
within :func:`drawing_from`, so that a fit draws the same numbers whether it is stacked or not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

#: Parameters and buffers by name.
Weights = dict[str, Tensor]

_generators: list[Generator | None] = [None]


def stack(networks: Sequence[nn.Module]) -> nn.Module:
    """Return one network with the parameters and buffers of ``networks``, of one shape, along a leading axis."""
    stacked = deepcopy(networks[0])
    for path, module in stacked.named_modules():
        parts = [network.get_submodule(path) for network in networks]
        for name in module._parameters:
            if module._parameters[name] is not None:
                setattr(module, name, nn.Parameter(torch.stack([getattr(part, name).detach() for part in parts])))
        for name in module._buffers:
            if module._buffers[name] is not None:
                setattr(module, name, torch.stack([getattr(part, name) for part in parts]))
    return stacked


class Best:
    """Copies of the parameters and buffers of a network, or of each fit of a stacked network, from its best epoch."""

    def __init__(self, network: nn.Module, stacked: bool):
        self.network, self.stacked = network, stacked
        self.weights: Weights = {name: values.clone() for name, values in network.state_dict().items()}

    def take(self, fits: list[int]) -> None:
        """Copy the present weights of the fits of these numbers."""
        for name, values in self.network.state_dict().items() if fits else ():
            if not self.stacked or len(fits) == len(values):
                self.weights[name].copy_(values)
            else:
                self.weights[name][fits] = values[fits]

    def of(self, fit: int) -> Weights:
        """Return the weights of a fit."""
        return {name: values[fit] if self.stacked else values for name, values in self.weights.items()}

    def keep(self, fits: Tensor) -> None:
        """Forget all but the fits of these numbers."""
        self.weights = {name: values[fits] for name, values in self.weights.items()}


def keep(network: nn.Module, optimizer: torch.optim.Optimizer, fits: Tensor) -> None:
    """Reduce a stacked network and its optimiser, in place, to the fits of these numbers."""
    kept: dict[Tensor, nn.Parameter] = {}
    for module in network.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = kept[parameter] = nn.Parameter(parameter.detach()[fits])
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = buffer[fits]
    for old, new in kept.items():
        state = optimizer.state.pop(old)
        # the number of steps is a scalar, the same for all fits
        optimizer.state[new] = {key: value[fits] if value.dim() else value for key, value in state.items()}
    for group in optimizer.param_groups:
        group["params"] = [kept[parameter] for parameter in group["params"]]


def rows(table: Tensor, numbers: Tensor) -> Tensor:
    """Return the rows (..., n, width) of ``table`` (..., n_rows, width) by their ``numbers`` (..., n)."""
    if table.dim() == 3:
        first = len(table[0]) * torch.arange(len(table), device=table.device)
        table, numbers = table.flatten(0, 1), numbers + first.unsqueeze(-1)
    return F.embedding(numbers, table)


@contextmanager
def drawing_from(generators: Sequence[Generator]) -> Iterator[None]:
    """Draw each fit, along the first axis of a tensor, from its own generator."""
    global _generators
    before, _generators = _generators, list(generators)
    try:
        yield
    finally:
        _generators = before


def normal_like(values: Tensor) -> Tensor:
    """Return standard normals of the shape, type and device of ``values``."""
    return _draw(torch.empty_like(values), lambda part, generator: part.normal_(generator=generator))


def uniform_like(values: Tensor) -> Tensor:
    """Return uniform numbers in [0, 1) of the shape, type and device of ``values``."""
    return _draw(torch.empty_like(values), lambda part, generator: part.uniform_(generator=generator))


def kept_like(values: Tensor, dropped: int) -> Tensor:
    """Return True with probability 1 − ``dropped``/2¹⁶, of the shape and device of ``values``.

    One draw of 64 bits decides over four entries, which takes a quarter of the time of a Bernoulli draw for each.
    """
    n_fits = len(_generators)
    n_entries = values.numel() // n_fits
    draws = torch.empty(n_fits, -(-n_entries // 4), dtype=torch.int64, device=values.device)
    bits = _draw(draws, lambda part, generator: part.random_(-(2**63), None, generator=generator)).view(torch.int16)
    return (bits[:, :n_entries] >= dropped - 2**15).view(values.shape)


def _draw(values: Tensor, fill: Callable[[Tensor, Generator | None], Tensor]) -> Tensor:
    """Fill ``values``, whose first axis is fits unless a single network is trained."""
    if len(_generators) == 1 and _generators[0] is None:
        return fill(values, None)
    for part, generator in zip(values, _generators, strict=True):
        fill(part, generator)
    return values
