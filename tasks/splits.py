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
        A copy that shares no memory with ``data`` and holds no ``obsm``, no truth, and no further columns. What is
        sparse in ``data`` (genes are yet to be chosen) stays sparse.
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


def halves(cells: np.ndarray, replicates: np.ndarray | None, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Split ``cells`` (indices) into two disjoint halves, whole replicates to one side where that is possible.

    Replicates are dealt in random order, each to the smaller half, until neither half has under a quarter of
    the cells. When none of 20 deals gives that (one donor dominates, or there is one donor), cells are split at
    random.
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
                return cells[first], cells[~first]
    shuffled = rng.permutation(cells)
    return np.sort(shuffled[: len(cells) // 2]), np.sort(shuffled[len(cells) // 2 :])
