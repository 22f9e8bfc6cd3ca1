"""Nearest neighbours, searched once for all metrics of an evaluation that ask for those of the same codes.

Metrics stay functions of their arrays: each calls ``neighbours``. Within ``sharing``, a search is looked up by the
*content* of the codes: codes that were changed in place are searched again, and equal codes at another address are not.
At the end of ``sharing`` all searches are forgotten.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from metrics.arrays import RESOLUTION, Floats, standardised
from metrics.base import checked

EXACT = 50_000
"""Cells beyond which the search is approximate. Below, its compilation, 15 to 40 s in each process, is more than it
saves: an exact search among 50,000 cells took 32 s of a processor for 10 latents and 14 s for 30."""
K_USUAL = 90
"""Neighbours that are searched for at least, the cell itself included: the most that any metric asks for."""

_searches: ContextVar[dict[bytes, Neighbours] | None] = ContextVar("searches", default=None)


@dataclass(frozen=True)
class Neighbours:
    """The nearest neighbours of each cell, itself first and the nearest next.

    Attributes
    ----------
    indices, distances
        (n_cells, k) each.
    """

    indices: NDArray[np.int64]
    distances: Floats


@contextmanager
def sharing() -> Iterator[None]:
    """Within it, and in this thread alone, the same codes are searched once."""
    token = _searches.set({})
    try:
        yield
    finally:
        _searches.reset(token)


@checked
def neighbours(codes: Annotated[Floats, "n_cells>=3 n_latent"], k: int = K_USUAL) -> Neighbours:
    """Find the nearest neighbours (Euclidean) of each cell.

    The search is exact up to ``EXACT`` cells; beyond, nearest neighbour descent (pynndescent, a fixed seed) misses
    fewer than one neighbour in twenty. Ties are broken at random, by a fixed seed, never by the order of the cells,
    which may be sorted by batch. In a constant code all cells tie: each has neighbours drawn at random.

    Parameters
    ----------
    codes
        (n_cells, n_latent).
    k
        Neighbours of each cell, itself included; at most n_cells - 1 are taken.

    Returns
    -------
    graph
        Read-only: others may share it.

    Raises
    ------
    ValueError
        If there are fewer than 3 cells, values are not finite, or k is under 2.
    """
    if k < 2:
        raise ValueError(f"k is {k}; at least 2 are needed, the cell itself included")
    n_searched = min(max(k, K_USUAL), len(codes) - 1)
    searches = _searches.get()
    if searches is None:
        graph = _search(codes, n_searched)
    else:
        digest = hashlib.blake2b(f"{codes.shape} {n_searched}".encode())
        digest.update(np.ascontiguousarray(codes).data)
        key = digest.digest()
        if key not in searches:
            searches[key] = _search(codes, n_searched)
        graph = searches[key]
    return Neighbours(graph.indices[:, :k], graph.distances[:, :k])


def _search(z: Floats, k: int) -> Neighbours:
    rng = np.random.default_rng(0)
    indices = np.empty((len(z), k), dtype=np.int64)
    distances = np.zeros((len(z), k))
    indices[:, 0] = np.arange(len(z))
    if not standardised(z).any():
        for cell in range(len(z)):
            others = rng.choice(len(z) - 1, k - 1, replace=False)
            indices[cell, 1:] = others + (others >= cell)
    else:
        order = rng.permutation(len(z))
        points = z[order] - z.mean(axis=0)  # far from the origin, squares would lose the distances
        nearest, distances[order, 1:] = (_exact if len(z) <= EXACT else _approximate)(points, k - 1)
        indices[order, 1:] = order[nearest]
        # cells that coincide are as far apart as rounding makes them
        distances[distances <= RESOLUTION * np.linalg.norm(z - z.mean(axis=0), axis=1)[:, None]] = 0.0
    indices.flags.writeable = distances.flags.writeable = False
    return Neighbours(indices, distances)


def _exact(points: Floats, k: int) -> tuple[NDArray[np.int64], Floats]:
    """Indices and distances of each point's k nearest others, (n_points, k) each."""
    from sklearn.neighbors import NearestNeighbors

    distances, indices = NearestNeighbors(n_neighbors=k).fit(points).kneighbors()
    return indices, distances


def _approximate(points: Floats, k: int) -> tuple[NDArray[np.int64], Floats]:
    """``_exact``, by nearest neighbour descent with the settings that UMAP gives it."""
    from pynndescent import NNDescent
    from sklearn.neighbors import NearestNeighbors

    n = len(points)
    indices = (
        NNDescent(
            points,
            n_neighbors=k + 1,
            n_trees=min(64, 5 + round(n**0.5 / 20)),
            n_iters=max(5, round(np.log2(n))),
            max_candidates=60,
            random_state=0,
            n_jobs=1,
        )
        .neighbor_graph[0]
        .astype(np.int64)
    )
    short = np.flatnonzero((indices < 0).any(axis=1))  # it leaves out what it could not find
    if len(short):
        indices[short] = NearestNeighbors(n_neighbors=k + 1).fit(points).kneighbors(points[short])[1]
    # it computes in single precision
    distances = np.stack([np.linalg.norm(points - points[column], axis=1) for column in indices.T], axis=1)
    distances[indices == np.arange(n)[:, None]] = np.inf  # the point itself, mostly but not always found
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(indices, order, axis=1), np.take_along_axis(distances, order, axis=1)
