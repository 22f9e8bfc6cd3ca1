"""Splits of cells: a method is handed the chosen cells and nothing else, and copies of a cell are on one side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tasks.datasets.base import DataError, Fields
from tasks.datasets.reading import copies_of

if TYPE_CHECKING:
    from anndata import AnnData


def handed(data: AnnData, cells: np.ndarray) -> AnnData:
    """Return the AnnData that a method is handed: expression, counts and the field columns of ``cells`` alone.

    Parameters
    ----------
    data
        The whole data set.
    cells
        Boolean mask or indices (n_cells,).

    Returns
    -------
    AnnData
        A copy that shares no memory with ``data`` and holds no ``obsm``, no truth, and no further columns. Sparse
        matrices (genes are yet to be chosen) stay sparse.
    """
    from anndata import AnnData

    fields = Fields.of(data)
    columns = [name for name in (fields.environment, fields.content, fields.replicate) if name]
    obs = data.obs.iloc[cells if cells.dtype != bool else np.flatnonzero(cells)][columns].astype(str)
    layers = {"counts": data.layers["counts"][cells]} if "counts" in data.layers else None
    x = data.X[cells] if hasattr(data.X, "indptr") else np.ascontiguousarray(data.X[cells], dtype=np.float32)
    out = AnnData(x, obs=obs, var=data.var[[]].copy(), layers=layers)
    out.uns["X_units"] = data.uns.get("X_units", "")
    return fields.attach(out)


def halves(
    cells: np.ndarray, replicates: np.ndarray | None, rng: np.random.Generator, copies: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Split ``cells`` (indices) into two disjoint halves, whole replicates to one side where that is possible.

    Replicates are dealt in random order, each to the smaller half, until neither half has under a quarter of
    the cells. When none of 20 deals gives that (one donor dominates, or there is one donor), cells are split at
    random. Copies of one cell, also those of several replicates, are in one half.

    Parameters
    ----------
    cells
        Indices (n_cells,).
    replicates
        Their labels (n_cells,), or None.
    rng
        Source of all randomness.
    copies
        Labels of all cells of the data set (:func:`tasks.datasets.reading.copies_of`), which ``cells`` are indices of.
    """
    if replicates is not None:
        labels, sizes = np.unique(replicates, return_counts=True)
        for _ in range(20):
            totals = [0, 0]
            of_first = np.zeros(len(labels), dtype=bool)
            for label in rng.permutation(len(labels)):
                side = int(totals[1] < totals[0])
                of_first[label] = side == 0
                totals[side] += int(sizes[label])
            if min(totals) >= len(cells) / 4:
                first = np.isin(replicates, labels[of_first])
                first = np.isin(copies[cells], copies[cells[first]])
                return cells[first], cells[~first]
    first_half, second_half = dealt(rng.permutation(cells), len(cells) // 2, copies)
    return np.sort(first_half), np.sort(second_half)


def dealt(order: np.ndarray, n_first: int, copies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first ``n_first`` of shuffled cells (indices), and the others; copies go where the first of them goes.

    So the first part may be larger than asked for, by the copies of its last cell.
    """
    _, first_seen, group = np.unique(copies[order], return_index=True, return_inverse=True)
    ranks = first_seen[group]
    by_group = np.argsort(ranks, kind="stable")
    order, ranks = order[by_group], ranks[by_group]
    if 0 < n_first < len(order):
        n_first = int(np.searchsorted(ranks, ranks[n_first - 1], side="right"))
    return order[:n_first], order[n_first:]


def parted(data: AnnData, unit: str, seed: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Return a random ``share`` of the cells (indices), and the others, both shuffled; copies of a cell stay together.

    Tasks that ask for the same share have the same split, so that they share fits. ``unit`` is that of
    :class:`tasks.base.Drawn`: draws are split by the seed alone, and each split of real cells is another one.
    """
    number = [int(unit.removeprefix("split"))] if unit.startswith("split") else []
    order = np.random.default_rng([seed, 85, *number]).permutation(data.n_obs)
    return dealt(order, int(share * data.n_obs), copies_of(data))


def once(cells: np.ndarray, copies: np.ndarray) -> np.ndarray:
    """Return ``cells`` (indices) in their order, without second copies of a cell: for probes that split again."""
    return cells[np.sort(np.unique(copies[cells], return_index=True)[1])]


def without_copies(data: AnnData, seen: np.ndarray, hidden: np.ndarray | None = None) -> np.ndarray:
    """Return a mask of the training cells: those that are ``seen`` and have no hidden copy.

    Parameters
    ----------
    data
        The whole data set. Copies count whatever their labels are.
    seen, hidden
        Masks (n_cells,); all cells that are not seen are hidden, unless ``hidden`` says which.

    Raises
    ------
    tasks.datasets.base.DataError
        None is left.
    """
    copies = copies_of(data)
    kept = seen & ~np.isin(copies, copies[~seen if hidden is None else hidden])
    if seen.any() and not kept.any():
        raise DataError(
            f"each of {seen.sum()} training cells is an exact copy of a held-out one: none is left to learn from; "
            "leave the copies out"
        )
    return kept


def distinct(copies: np.ndarray, *labels: np.ndarray) -> np.ndarray:
    """Return a mask (n_cells,) that keeps one of the copies of a cell that agree in all ``labels`` (n_cells,)."""
    import pandas as pd

    return ~pd.MultiIndex.from_arrays([copies, *labels]).duplicated()
