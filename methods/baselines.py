"""Simple baselines for predicting an environment.

All of them add a shift to the given cells, x̂ = x + Δ̂(content). They differ in Δ̂ alone.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from methods.base import Method, column, key, parts_of
from methods.groups import group_means

if TYPE_CHECKING:
    from anndata import AnnData


class Shift(Method):
    """Add to every cell the shift expected of its content label.

    Δ(content) = mean x(target, content) − mean x(source, content), from training cells in float64, for contents with
    :data:`methods.groups.LEAST_CELLS` cells or more in both environments; where none has, for all contents in both.
    """

    tags = frozenset({"baseline", "prediction"})

    def fit(self, data: AnnData, seed: int) -> Self:
        """Keep the mean expression of each (environment, content)."""
        self.means = group_means(np.asarray(data.X), column(data, "environment"), column(data, "content"))
        return self

    def adapt(self, data: AnnData) -> Self:
        """Return a copy that also knows the mean expression of ``data``'s environments."""
        adapted = copy.copy(self).fit(data, 0)
        adapted.means = self.means.joined(adapted.means)
        return adapted

    @abstractmethod
    def shift(self, profile: np.ndarray, source: str, target: str) -> np.ndarray:
        """Return the shift (n_genes,) for cells whose mean in ``source`` is ``profile`` (n_genes,)."""

    def predict(self, data: AnnData, target_environment: str) -> np.ndarray:
        """Return ``data.X`` plus the shift of each cell's content label, (n_cells, n_genes)."""
        predicted = np.array(data.X, dtype=np.float32)
        cells = group_means(predicted, column(data, "environment"), column(data, "content"))
        for (source, content), profile in cells.items():
            mask = (column(data, "environment") == source) & (column(data, "content") == content)
            predicted[mask] += self.shift(profile, source, target_environment).astype(np.float32)
        return predicted


class NoChange(Shift):
    """Predict that nothing changes: Δ̂ = 0."""

    name = "no-change"
    predicts_untrained = True

    def shift(self, profile: np.ndarray, source: str, target: str) -> np.ndarray:
        """Return zeros."""
        return np.zeros_like(profile)


class MeanShift(Shift):
    """Predict the mean shift of the trained content labels, each weighing the same."""

    name = "mean-shift"
    reference = "Ahlmann-Eltze, Huber, Anders 2025, Nature Methods: linear baselines for perturbation prediction"

    def shift(self, profile: np.ndarray, source: str, target: str) -> np.ndarray:
        """Return the mean of the trained shifts."""
        return self.means.shifts(source, target)[1].mean(axis=0)


class AdditiveShift(MeanShift):
    """Predict the sum of the parts' mean shifts for an environment "A+B" that was not trained; else the mean shift."""

    name = "additive-shift"

    def shift(self, profile: np.ndarray, source: str, target: str) -> np.ndarray:
        """Return Δ(A) + Δ(B), or Δ(target) where it was trained."""
        parts = parts_of(target, {environment for environment, _ in self.means})
        return np.sum([super(AdditiveShift, self).shift(profile, source, part) for part in parts], axis=0)


class NearestTypeShift(Shift):
    """Predict the shift of the content label whose source profile correlates best with that of the cells."""

    name = "nearest-type-shift"

    def shift(self, profile: np.ndarray, source: str, target: str) -> np.ndarray:
        """Return the shift of the nearest label by Pearson correlation of source profiles."""
        profiles, shifts = self.means.shifts(source, target)
        centred = profiles - profiles.mean(axis=1, keepdims=True)
        query = profile - profile.mean()
        norms = np.linalg.norm(centred, axis=1) * np.linalg.norm(query)
        correlation = np.divide(centred @ query, norms, out=np.zeros_like(norms), where=norms > 0)
        return shifts[np.argmax(correlation)]


class RidgeShift(Shift):
    """Ridge regression of the shift on the source profile, over the trained content labels.

    Both are centred over labels, so that the strongest penalty gives the mean shift. With T labels and many genes the
    dual form is solved: Δ̂ = Δ̄ + k(K + λI)⁻¹(Δ − Δ̄), K the T × T Gram matrix of the centred profiles. λ is the value
    of ``strengths`` (in units of the mean of K's diagonal) with the smallest leave-one-label-out error; each label is
    predicted by a fit without it.
    """

    name = "ridge-shift"

    @dataclass(frozen=True)
    class Config:
        """Penalties to choose from."""

        # decades around the natural scale of the Gram matrix; ours
        strengths: tuple[float, ...] = key((0.01, 0.1, 1.0, 10.0, 100.0), least=0)

    def shift(self, profile: np.ndarray, source: str, target: str) -> np.ndarray:
        """Return the ridge prediction (n_genes,) at the best penalty."""
        profiles, shifts = self.means.shifts(source, target)
        n_labels = len(profiles)
        if n_labels < 3:  # without one of two labels a single point is left: nothing to regress
            return shifts.mean(axis=0)
        errors = []
        for strength in self.config.strengths:
            left_out = [
                shifts[i] - _ridge(np.delete(profiles, i, 0), np.delete(shifts, i, 0), profiles[i], strength)
                for i in range(n_labels)
            ]
            errors.append(np.square(left_out).sum())
        return _ridge(profiles, shifts, profile, self.config.strengths[int(np.argmin(errors))])


def _ridge(profiles: np.ndarray, shifts: np.ndarray, query: np.ndarray, strength: float) -> np.ndarray:
    """Dual ridge prediction (n_genes,) at ``query``, with the intercept unpenalised."""
    centre, mean = profiles.mean(axis=0), shifts.mean(axis=0)
    centred = profiles - centre
    gram = centred @ centred.T
    penalty = strength * np.trace(gram) / len(gram)
    if penalty == 0.0:  # identical profiles carry nothing to regress on
        return mean
    weights = np.linalg.solve(gram + penalty * np.eye(len(gram)), centred @ (query - centre))
    return mean + weights @ (shifts - mean)
