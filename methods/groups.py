"""Mean expression of groups of cells, and the shifts between environments that they give."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from methods.errors import CannotFit

#: A content label enters a shift between environments if it has this many cells in both: a mean of fewer cells is
#: mostly noise, and would weigh as much as any other. The tasks' own mean shift has the same limit.
LEAST_CELLS = 20


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
