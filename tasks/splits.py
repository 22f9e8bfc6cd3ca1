"""Taking cells out of a data set without taking anything else along."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tasks.datasets.base import Fields

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
        A copy that shares no memory with ``data`` and holds no ``obsm``, no truth, and no further columns.
    """
    from anndata import AnnData

    fields = Fields.of(data)
    columns = [name for name in (fields.environment, fields.content, fields.replicate) if name]
    obs = data.obs.iloc[cells if cells.dtype != bool else np.flatnonzero(cells)][columns].astype(str)
    layers = {"counts": data.layers["counts"][cells]} if "counts" in data.layers else None
    out = AnnData(
        np.ascontiguousarray(data.X[cells], dtype=np.float32), obs=obs, var=data.var[[]].copy(), layers=layers
    )
    out.uns["X_units"] = data.uns.get("X_units", "")
    return fields.attach(out)


def halves(cells: np.ndarray, replicates: np.ndarray | None, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Split ``cells`` (indices) into two disjoint halves, whole replicates to one side where that is possible.

    Replicates are dealt, largest first and ties in random order, to the smaller half. When that leaves a half
    with under a quarter of the cells (one donor dominates, or there is one donor), cells are split at random.
    """
    if replicates is not None:
        labels, sizes = np.unique(replicates, return_counts=True)
        order = rng.permutation(len(labels))
        order = order[np.argsort(-sizes[order], kind="stable")]
        totals, side = [0, 0], {}
        for label in order:
            smaller = int(totals[1] < totals[0])
            side[labels[label]] = smaller
            totals[smaller] += int(sizes[label])
        if min(totals) >= len(cells) / 4:
            first = np.array([side[label] == 0 for label in replicates])
            return cells[first], cells[~first]
    shuffled = rng.permutation(cells)
    return np.sort(shuffled[: len(cells) // 2]), np.sort(shuffled[len(cells) // 2 :])
