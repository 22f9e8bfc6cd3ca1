"""The random numbers of a training step: a network's from PyTorch's own generator, replicas' from one for each.

A replica draws what its network would draw alone, whatever the others do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Generator, Tensor

_generators: list[Generator | None] = [None]


@contextmanager
def drawing_from(generators: Sequence[Generator]) -> Iterator[None]:
    """Let the first axis of all that is drawn be of replicas, which draw from ``generators`` one after another."""
    global _generators
    before, _generators = _generators, list(generators)
    try:
        yield
    finally:
        _generators = before


def normal_like(values: Tensor) -> Tensor:
    """Return standard normals of the shape, type and device of ``values``."""
    return _drawn(torch.empty_like(values), lambda part, generator: part.normal_(generator=generator))


def uniform_like(values: Tensor) -> Tensor:
    """Return uniform numbers in [0, 1) of the shape, type and device of ``values``."""
    return _drawn(torch.empty_like(values), lambda part, generator: part.uniform_(generator=generator))


def kept_like(values: Tensor, dropped: int) -> Tensor:
    """Return True with probability 1 − ``dropped``/2¹⁶, of the shape and device of ``values``.

    One draw of 64 bits decides over four entries, in a quarter of the time of a Bernoulli draw for each.
    """
    n_replicas = len(_generators)
    n_entries = values.numel() // n_replicas
    draws = torch.empty(n_replicas, -(-n_entries // 4), dtype=torch.int64, device=values.device)
    bits = _drawn(draws, lambda part, generator: part.random_(-(2**63), None, generator=generator)).view(torch.int16)
    return (bits[:, :n_entries] >= dropped - 2**15).view(values.shape)


def _drawn(values: Tensor, fill: Callable[[Tensor, Generator | None], Tensor]) -> Tensor:
    """Fill ``values``, whose first axis is of replicas unless there is one generator alone."""
    if len(_generators) == 1 and _generators[0] is None:
        return fill(values, None)
    for part, generator in zip(values, _generators, strict=True):
        fill(part, generator)
    return values
