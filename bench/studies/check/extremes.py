"""Data at the edge of what a method can be asked to fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bench.studies.check.subject import TARGET, cells

if TYPE_CHECKING:
    from anndata import AnnData

EXTREMES = (
    "one cell",
    "two cells",
    "five cells",
    "one gene",
    "most genes zero",
    "most genes constant",
    "all zero",
    "all constant",
    "cells repeated",
    "30 environments",
)
#: Many cells, and genes that vary: no reason to refuse.
ORDINARY = frozenset({"most genes zero", "most genes constant", "30 environments"})


def extreme(case: str) -> AnnData:
    """Return the data of one of :data:`EXTREMES`."""
    from tasks.splits import handed

    whole = cells().whole
    rng = np.random.default_rng(0)
    everything = np.arange(whole.n_obs)
    few = {"one cell": [0], "two cells": [0, 40], "five cells": [0, 1, 40, 41, 80]}
    if case in few:
        return handed(whole, np.array(few[case]))
    if case == "one gene":
        return handed(whole[:, [7]].copy(), everything)
    if case == "cells repeated":
        x = np.repeat(rng.gamma(2, 1, (2, 40)), 20, axis=0)
        return _labelled(x, np.repeat(["control", TARGET], 20), np.array(["a"] * 40))
    if case == "30 environments":
        environments = np.array(["control", TARGET, *(f"e{i}" for i in range(28))])[np.arange(300) % 30]
        return _labelled(rng.gamma(2, 1, (300, 40)), environments, np.array(["a", "b", "c"])[rng.integers(0, 3, 300)])
    out, first = handed(whole, everything), 10 if case.startswith("most") else 0
    if "zero" in case:
        out.X[:, first:] = 0.0
        out.layers["counts"][:, first:] = 0.0
    else:
        out.X[:, first:] = 3.3
        del out.layers["counts"]
    return out


def _labelled(x: np.ndarray, environments: np.ndarray, contents: np.ndarray) -> AnnData:
    import pandas as pd
    from anndata import AnnData

    from tasks.datasets.base import Fields

    obs = pd.DataFrame({"condition": environments, "cell_type": contents}, index=[f"cell{i}" for i in range(len(x))])
    out = AnnData(x.astype(np.float32), obs=obs)
    out.uns["X_units"] = "log1p of counts per 10,000"
    return Fields("condition", "cell_type", control="control").attach(out)
