"""Shared by the metric families: conversion of their inputs, and correlation and ranking with defined edge cases.

"Constant" means the same throughout this package: a spread below single precision, relative to the values.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
Mask = NDArray[np.bool_]

RESOLUTION = float(np.finfo(np.float32).eps)
"""Spread, relative to the values, under which numbers computed in single precision are constant: 1.2e-7."""

MAX_LEVELS = 20
"""Most distinct values of a discrete variable; a variable with more is continuous."""


def as_floats(name: str, values: NDArray[Any]) -> Floats:
    """Return ``values`` as float64, or raise ValueError unless they are finite."""
    array = np.asarray(values, dtype=np.float64)
    bad = array.size - int(np.isfinite(array).sum())
    if bad:
        raise ValueError(f"{name} has {bad} of {array.size} values that are NaN or infinite")
    return array


def as_labels(name: str, values: NDArray[Any]) -> Labels:
    """Return labels of any kind as integers 0, 1, ..., or raise ValueError if any is NaN."""
    if values.dtype.kind == "f" and np.isnan(values).any():
        raise ValueError(f"{name} has {int(np.isnan(values).sum())} of {len(values)} labels that are NaN")
    return np.unique(values, return_inverse=True)[1].astype(np.int64)


def as_mask(name: str, values: NDArray[Any]) -> Mask:
    """Return ``values`` as booleans, or raise ValueError unless they are 0 or 1."""
    if not np.isin(values, (0, 1)).all():
        raise ValueError(f"{name} must hold only 0 and 1, or booleans; got {np.unique(values)[:5]}")
    return values.astype(bool)


def is_discrete(values: NDArray[Any]) -> bool:
    """Tell whether numbers are levels: at most ``MAX_LEVELS`` distinct ones, each there twice on average."""
    return len(np.unique(values)) <= min(MAX_LEVELS, len(values) // 2)


def halves(n: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split n samples at random into one half to fit on and another to score on; n is at least 4."""
    if n < 4:
        raise ValueError(f"{n} samples; at least 4 are needed, 2 to fit and 2 to score")
    order = np.random.default_rng(seed).permutation(n)
    return order[: n // 2], order[n // 2 :]


def adjusted_accuracy(truth: NDArray[Any], predicted: NDArray[Any]) -> float:
    """Balanced accuracy between chance and perfect: ``(mean recall - 1/C) / (1 - 1/C)`` over the C true labels.

    Naming one label everywhere scores 0, whatever the sizes of the labels. The lowest score is -1 / (C - 1). Not a
    number if C is 1.
    """
    right = truth == predicted
    recalls = [right[truth == label].mean() for label in np.unique(truth)]
    if len(recalls) < 2:
        return float("nan")
    chance = 1.0 / len(recalls)
    return float((np.mean(recalls) - chance) / (1.0 - chance))


def r2(truth: Floats, predicted: Floats) -> float:
    """Coefficient of determination, ``1 - Σ(y - ŷ)² / Σ(y - mean y)²``; not a number if y is constant."""
    spread = np.sum((truth - truth.mean()) ** 2)
    if spread <= (RESOLUTION * np.linalg.norm(truth)) ** 2:
        return float("nan")
    return float(1.0 - np.sum((truth - predicted) ** 2) / spread)


def standardised(x: Floats) -> Floats:
    """Every column with mean 0 and standard deviation 1; a constant column becomes exactly zero."""
    return unit_columns(x) * np.sqrt(len(x))


def unit_columns(x: Floats, size: Floats | None = None) -> Floats:
    """Centre every column and divide it by its norm; a constant column becomes exactly zero.

    Products of such columns are Pearson correlations, so a constant column correlates 0 with every other.

    Parameters
    ----------
    x
        Values, (n, n_columns).
    size
        Norms (n_columns,) that a column's spread is compared with; by default the norms of the columns.
    """
    size = np.linalg.norm(x, axis=0) if size is None else size
    centred = x - x.mean(axis=0)
    spread = np.linalg.norm(centred, axis=0)
    constant = spread <= RESOLUTION * size
    unit: Floats = np.where(constant, 0.0, centred / np.where(constant, 1.0, spread))
    return unit


def pearson(a: Floats, b: Floats) -> float:
    """Pearson correlation of two vectors; 0 if either is constant."""
    unit = unit_columns(np.stack([a, b], axis=1))
    return float(np.clip(unit[:, 0] @ unit[:, 1], -1.0, 1.0))


def average_precision(relevant: NDArray[np.bool_], scores: Floats) -> float:
    """Area under the precision-recall steps; tied scores enter together, so order never matters.

    ``Σ_t (R_t - R_{t-1}) P_t`` over the distinct scores t, from the highest. Not a number if all or none
    of the entries are relevant. A constant score gives the prevalence.

    Parameters
    ----------
    relevant
        Which entries are to be found, (n,).
    scores
        Higher is more likely relevant, (n,).
    """
    n_relevant = int(relevant.sum())
    if n_relevant in (0, relevant.size):
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    last_of_tie = np.append(np.diff(scores[order]) != 0, True)
    hits = np.cumsum(relevant[order])[last_of_tie]
    taken = np.arange(1, relevant.size + 1)[last_of_tie]
    return float(np.sum(np.diff(hits, prepend=0) / n_relevant * hits / taken))
