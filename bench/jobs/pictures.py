"""Codes in two dimensions, with labels of the cells, for pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from methods.errors import CannotFit

if TYPE_CHECKING:
    from tasks.base import Task

#: A picture has at most so many cells.
MAX_CELLS = 600
#: Labels of a cell.
LABELS = ("environment", "content")


def picture(task: Task, fitted: Any, unit: str, seed: int) -> dict[str, list[Any]]:
    """Return some cells' codes in two dimensions, their labels, and whether they were trained on.

    Codes with more than two latents are shown by their first two principal components. The cells are the same for all
    methods, but for one that has no code for cells that were held out, which shows the others.

    Returns
    -------
    dict
        ``x``, ``y``, ``environment``, ``content`` (empty labels where the data have no such column) and ``trained``,
        each a list over cells.
    """
    from sklearn.decomposition import PCA

    known = task.data.obs_names.isin(task.training_data(unit, seed).obs_names)
    chosen = np.sort(np.random.default_rng(0).permutation(task.data.n_obs)[:MAX_CELLS])
    try:
        codes = fitted.embed(task.handed(chosen))
    except CannotFit:
        # a method that must be told the environment of a cell has no code for a cell of one that it never saw
        chosen = chosen[known[chosen]]
        codes = fitted.embed(task.handed(chosen))
    codes, cells = np.asarray(codes, dtype=float), task.handed(chosen)
    if codes.shape[1] > 2:
        codes = PCA(2, svd_solver="full").fit_transform(codes)
    labels = {
        role: cells.obs[name].tolist() if (name := cells.uns["fields"][role]) else [""] * len(chosen) for role in LABELS
    }
    x, y = (np.round(column, 4).tolist() for column in np.pad(codes, ((0, 0), (0, 2 - codes.shape[1]))).T)
    return {"x": x, "y": y, **labels, "trained": known[chosen].tolist()}
