"""Checks of any expression data, made before a method sees them.

Every function raises :class:`tasks.datasets.base.DataError` with one sentence that names the data set (or
the file) and the column or the gene at fault, and returns nothing.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
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
        raise DataError(f"{name}: var_names has {len(twice)} names more than once: {listed(twice)}")
    _refuse(data, "X", lambda values: ~np.isfinite(values), "NaN or infinite", name)
    if "counts" in data.layers:
        _refuse(data, "counts", lambda values: ~np.isfinite(values), "NaN or infinite", name)
        _refuse(data, "counts", lambda values: values < 0, "negative", name)
        _refuse(data, "counts", lambda values: values != np.floor(values), "not whole numbers", name)


def check_columns(obs: Sequence[str], var: Sequence[str], fields: Fields, name: str) -> None:
    """Refuse data whose columns of cells lack one that ``fields`` names.

    Parameters
    ----------
    obs, var
        Names of the columns of cells and of genes.
    fields
        The columns of cells that are needed.
    name
        The data set or file that a message names.
    """
    for role in ("environment", "content", "replicate"):
        column = getattr(fields, role)
        if not column or column in obs:
            continue
        if column in var:
            raise DataError(
                f"{name}: obs has no column {column!r}, which is to hold the {role}, and var has it: cells and genes "
                "look exchanged, and cells are to be the rows; write the transposed data (data.T) to a file"
            )
        close = difflib.get_close_matches(column, obs, n=1)
        hint = f", the nearest is {close[0]!r}" if close else ""
        raise DataError(
            f"{name}: obs has no column {column!r}, which is to hold the {role}; it has {listed(obs) or 'none'}{hint}"
        )


def check_fields(data: AnnData, fields: Fields, name: str) -> None:
    """Refuse data without a column that ``fields`` names, with cells that have no label in one, or without control."""
    check_columns([str(c) for c in data.obs.columns], [str(c) for c in data.var.columns], fields, name)
    for role in ("environment", "content", "replicate"):
        column = getattr(fields, role)
        if not column:
            continue
        labels = data.obs[column]
        absent = int((labels.isna() | (labels.astype(str).str.strip() == "")).sum())
        if absent:
            raise DataError(
                f"{name}: obs[{column!r}] is empty for {absent} of {data.n_obs} cells (NaN or blank); label these "
                "cells, or leave them out"
            )
    environments = sorted({str(value) for value in data.obs[fields.environment]})
    if fields.control and fields.control not in environments:
        raise DataError(
            f"{name}: obs[{fields.environment!r}] has no control {fields.control!r}; it has {listed(environments)}"
        )


def near_equal(labels: Iterable[str]) -> list[list[str]]:
    """Return the groups of labels that differ by blanks or case alone, each sorted."""
    groups: dict[str, list[str]] = {}
    for label in sorted(set(labels)):
        groups.setdefault("".join(label.split()).casefold(), []).append(label)
    return [group for group in groups.values() if len(group) > 1]


def notes_of_labels(data: AnnData, fields: Fields) -> list[str]:
    """Return a sentence for each column of ``fields`` that has labels which differ by blanks or case alone."""
    notes = []
    for column in (fields.environment, fields.content, fields.replicate):
        groups = near_equal(data.obs[column].astype(str)) if column else []
        if groups:
            alike = "; ".join(" and ".join(map(repr, group)) for group in groups[:5])
            what = "labels that differ by blanks or case alone"
            notes.append(f"obs[{column!r}] has {what}: {alike}; spell them alike if they are one")
    return notes


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
        f"{values[0]:g}, in {len(genes)} of {data.n_vars} genes: {listed(genes)}"
    )


def listed(names: Iterable[Any], most: int = 10) -> str:
    """Return names in quotes, separated by commas; of more than ``most`` the first and how many more."""
    texts = [repr(str(name)) for name in names]
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")
