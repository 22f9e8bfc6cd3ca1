"""Mean expression of groups of cells, and the shifts between environments that they give."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from methods.errors import CannotFit

#: A content label enters a shift between environments if it has this many cells in both: a mean of fewer cells is
#: mostly noise, and would weigh as much as any other. The tasks' own mean shift has the same limit.
LEAST_CELLS = 20
#: Penalties that a regression of shifts chooses from, in units of the mean of the Gram matrix' diagonal.
STRENGTHS = (0.01, 0.1, 1.0, 10.0, 100.0)


class GroupMeans(dict[tuple[str, str], np.ndarray]):
    """Mean rows (n,) of groups of cells, by (environment, content), with the number of cells of each in ``sizes``."""

    def __init__(self, means: Mapping[tuple[str, str], np.ndarray], sizes: Mapping[tuple[str, str], int]):
        super().__init__(means)
        self.sizes = dict(sizes)

    def joined(self, other: GroupMeans) -> GroupMeans:
        """Return the groups of both; where both have a group, the mean is that of ``other``."""
        return GroupMeans({**self, **other}, {**self.sizes, **other.sizes})

    def shifts(self, source: str, target: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the means in ``source`` and the shifts to ``target`` of shared contents, each (n_contents, n).

        Raises
        ------
        CannotFit
            No content has cells in both environments.
        """
        contents = self.shared(source, target)
        if not contents:
            trained = ", ".join(sorted({environment for environment, _ in self}))
            raise CannotFit(
                f"no content label was trained in both {source!r} and {target!r}; trained environments: {trained}"
            )
        means = np.stack([self[source, content] for content in contents])
        return means, np.stack([self[target, content] for content in contents]) - means

    def shared(self, source: str, target: str) -> list[str]:
        """Return the contents over which the shift between two environments is averaged.

        They have :data:`LEAST_CELLS` cells or more in both environments. Where there is no such content (a new
        environment may be known from ten cells), they are all contents that both environments have.
        """
        both = [content for environment, content in self if environment == target and (source, content) in self]
        large = [c for c in both if min(self.sizes[source, c], self.sizes[target, c]) >= LEAST_CELLS]
        return large or both


def group_means(values: np.ndarray, environments: np.ndarray, contents: np.ndarray) -> GroupMeans:
    """Return the mean row of ``values`` (n_cells, n) for each (environment, content) present, in float64."""
    pairs = sorted(set(zip(environments.tolist(), contents.tolist(), strict=True)))
    cells = {pair: (environments == pair[0]) & (contents == pair[1]) for pair in pairs}
    means = {pair: values[mask].mean(axis=0, dtype=np.float64) for pair, mask in cells.items()}
    return GroupMeans(means, {pair: int(mask.sum()) for pair, mask in cells.items()})


def moved(
    codes: np.ndarray, environments: np.ndarray, shift: Callable[[np.ndarray, str], np.ndarray | float]
) -> np.ndarray:
    """Return ``codes`` (n_cells, n) with the shift of each cell's environment added.

    Parameters
    ----------
    environments
        (n_cells,).
    shift
        ``shift(codes, environment)`` is that of the cells of an environment, given their codes.
    """
    found = codes.copy()
    for environment in np.unique(environments).tolist():
        cells = environments == environment
        found[cells] += shift(codes[cells], environment)
    return found


def regressed(
    means: np.ndarray, shifts: np.ndarray, queries: np.ndarray, strengths: Sequence[float] = STRENGTHS
) -> np.ndarray:
    """Return the shift that ridge regression on the mean expects at each of ``queries``, (..., n).

    Means and shifts are centred over contents, so that the strongest penalty gives the mean shift. With T contents and
    many genes the dual form is solved: Δ(x) = Δ̄ + k(x)(K + λI)⁻¹(Δ − Δ̄), K the T × T Gram matrix of the centred means.
    λ is the value of ``strengths`` (in units of the mean of K's diagonal) with the smallest leave-one-content-out
    error; each content is predicted by a fit without it. With two contents there is nothing to regress: the mean shift.

    Parameters
    ----------
    means, shifts
        Of the contents, each (n_contents, n): :meth:`GroupMeans.shifts`.
    queries
        Means or single cells, (..., n).
    """
    if len(means) < 3:  # without one of two a single point is left
        return np.broadcast_to(shifts.mean(axis=0), queries.shape)

    def error(strength: float) -> float:
        others = [np.arange(len(means)) != i for i in range(len(means))]
        left_out = [
            shift - _ridge(means[rest], shifts[rest], mean, strength)
            for rest, mean, shift in zip(others, means, shifts, strict=True)
        ]
        return float(np.square(left_out).sum())

    return _ridge(means, shifts, queries, min(strengths, key=error))


def _ridge(means: np.ndarray, shifts: np.ndarray, queries: np.ndarray, strength: float) -> np.ndarray:
    """Return the dual ridge prediction (..., n) at ``queries``, with the intercept unpenalised."""
    centre, mean = means.mean(axis=0), shifts.mean(axis=0)
    centred = means - centre
    gram = centred @ centred.T
    penalty = strength * np.trace(gram) / len(gram)
    if penalty == 0.0:  # alike means carry nothing to regress on
        return np.broadcast_to(mean, queries.shape)
    weights = np.linalg.solve(gram + penalty * np.eye(len(gram)), shifts - mean)
    return mean + (queries - centre) @ centred.T @ weights
