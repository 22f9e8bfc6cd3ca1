"""What must hold of any expression data, checked before a method sees them.

Every function raises :class:`tasks.datasets.base.DataError` with one sentence that names the data set (or
the file) and the column or the gene at fault, and returns nothing.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.datasets.base import DataError, Fields

if TYPE_CHECKING:
    from anndata import AnnData


def check_expression(data: AnnData, name: str) -> None:
    """Refuse data that are empty, have a gene twice, values that are not finite, or counts that are none.

    Parameters
    ----------
    data
        The data; ``layers["counts"]`` is checked if it is there.
    name
        The data set or file that a message names.
    """
    for number, what in ((data.n_obs, "cells"), (data.n_vars, "genes")):
        if number == 0:
            raise DataError(f"{name}: has no {what} (its shape is {data.n_obs} cells x {data.n_vars} genes)")
    twice = data.var_names[data.var_names.duplicated()].unique()
    if len(twice):
        raise DataError(f"{name}: var_names has {len(twice)} names more than once: {_listed(twice)}")
    _refuse(data, "X", lambda values: ~np.isfinite(values), "NaN or infinite", name)
    if "counts" in data.layers:
        _refuse(data, "counts", lambda values: ~np.isfinite(values), "NaN or infinite", name)
        _refuse(data, "counts", lambda values: values < 0, "negative", name)
        _refuse(data, "counts", lambda values: values != np.floor(values), "not whole numbers", name)


def check_fields(data: AnnData, fields: Fields, name: str) -> None:
    """Refuse data without a column that ``fields`` names, with gaps in one, or without the control."""
    present = [str(column) for column in data.obs.columns]
    for role in ("environment", "content", "replicate"):
        column = getattr(fields, role)
        if not column:
            continue
        if column not in present:
            close = difflib.get_close_matches(column, present, n=1)
            hint = f", the nearest is {close[0]!r}" if close else ""
            raise DataError(
                f"{name}: obs has no column {column!r}, which is to hold the {role}; it has {_listed(present)}{hint}"
            )
        gaps = int(data.obs[column].isna().sum())
        if gaps:
            raise DataError(f"{name}: obs[{column!r}] is empty for {gaps} of {data.n_obs} cells")
    environments = sorted({str(value) for value in data.obs[fields.environment]})
    if fields.control and fields.control not in environments:
        raise DataError(
            f"{name}: obs[{fields.environment!r}] has no control {fields.control!r}; it has {_listed(environments)}"
        )


def check_crossed(data: AnnData, fields: Fields, name: str) -> None:
    """Refuse a content label that occurs in one environment alone, since it has no counterpart elsewhere."""
    environment = data.obs[fields.environment].astype(str)
    content = data.obs[fields.content].astype(str)
    seen = environment.groupby(content).agg(lambda values: sorted(set(values)))
    alone = [f"{label!r} (in {where[0]!r})" for label, where in seen.items() if len(where) == 1]
    if alone:
        raise DataError(
            f"{name}: obs[{fields.content!r}] has labels that occur in one obs[{fields.environment!r}] "
            f"alone: {', '.join(alone)}"
        )


def _refuse(data: AnnData, where: str, is_bad: Callable[[np.ndarray], np.ndarray], what: str, name: str) -> None:
    """Raise DataError if ``is_bad`` holds of any value of ``X`` or of the layer ``where``."""
    from scipy.sparse import issparse

    matrix = data.X if where == "X" else data.layers[where]
    if issparse(matrix):
        stored = matrix.tocoo()
        bad = is_bad(stored.data)
        values, columns = stored.data[bad], stored.col[bad]
    else:
        matrix = np.asarray(matrix)
        bad = is_bad(matrix)
        values, columns = matrix[bad], np.nonzero(bad)[1]
    if not len(values):
        return
    genes = data.var_names[np.unique(columns)]
    raise DataError(
        f"{name}: {'X' if where == 'X' else f'layers[{where!r}]'} has {len(values)} values that are {what}, such as "
        f"{values[0]:g}, in {len(genes)} of {data.n_vars} genes: {_listed(genes)}"
    )


def _listed(names: Iterable[Any], most: int = 10) -> str:
    texts = [repr(str(name)) for name in names]
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")
